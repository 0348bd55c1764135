"""Decryption of shards with derived keys, for the owner of the vault."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clients.vault.keys.keyring import Vault
from clients.vault.keys.record import CLIENT, Record, view_name
from clients.vault.node_folders.exports import record_mismatch
from clients.vault.shards.encrypting import view_digest
from fl_ppseg.crypto.ciphers.encryption import decrypt
from fl_ppseg.crypto.ciphers.pixel_moves import pixel_order
from fl_ppseg.crypto.keys import Part
from fl_ppseg.data.shard import ShardPart, open_shard
from fl_ppseg.system.errors import InputError


class PlainView(NamedTuple):
    """A view before encryption."""

    part: Part
    scene_id: str
    """`split/city/stem`."""
    view: int
    image: np.ndarray
    """(3, H, W) uint8 RGB."""
    labels: np.ndarray
    """(H, W) uint8 trainIds; for a held-out image at the label map's own size."""

    @property
    def name(self) -> str:
        """Name of this view in a record's samples."""
        return view_name(self.part, self.scene_id, self.view)


def decrypt_shard(vault: Vault, folder: Path, samples_only: bool = False) -> Iterator[PlainView]:
    """Decrypt the views of a shard; the views of a scene follow each other.

    Args:
        vault: The vault that it was encrypted in.
        folder: The shard.
        samples_only: Decrypt only the views of which the vault keeps a digest.

    Raises:
        InputError: Its keys are not derived, it is damaged, or the vault lacks its salts or key.
    """
    (shard,) = open_shard([folder]).parts
    if shard.manifest.record is None:
        raise InputError(
            f"{folder}: cannot be decrypted: expected derived keys, but its images are plain, or "
            "their disposable keys no longer exist"
        )
    if why := record_mismatch(vault.folder, folder.name, shard.manifest.record):
        raise InputError(f"{folder}: {why}; encrypt the images again")
    key, record = vault.find(shard.manifest.record)
    _check(folder, shard, record)
    block_size = shard.manifest.block_size
    for found in _stored(shard, record.train, record.heldout):
        if samples_only and found.name not in record.samples:
            continue
        subkey = record.subkey(key, found.part, found.scene_id, found.view)
        image = decrypt(
            np.array(found.image),
            subkey,
            record.cipher,
            block_size=block_size,
            scope=record.block_scope,
        )
        labels = found.labels
        if shard.manifest.labels == "encrypted":
            size = (image.shape[1], image.shape[2])
            order = pixel_order(record.cipher, subkey, size, block_size, record.block_scope)
            labels = order.restored_cells(labels, labels.shape[0] // size[0])
        yield found._replace(image=image, labels=labels)


def wrong_samples(vault: Vault, folder: Path) -> list[str]:
    """Names of the sampled views of a shard that do not decrypt to what was encrypted.

    Raises:
        InputError: As `decrypt_shard`, or the vault keeps no samples of it.
    """
    (shard,) = open_shard([folder]).parts
    samples = vault.find(shard.manifest.record)[1].samples if shard.manifest.record else {}
    views = {view.name: view for view in decrypt_shard(vault, folder, samples_only=True)}
    if not samples or views.keys() != samples.keys():
        raise InputError(
            f"{folder}: the vault has no matching samples, so its decryption cannot be checked; "
            "encrypt the images again"
        )
    return [name for name, view in views.items() if view_digest(view.image) != samples[name]]


def _check(folder: Path, shard: ShardPart, record: Record) -> None:
    """Check that a shard and the owner's record belong together.

    Raises:
        InputError: They do not.
    """
    manifest = shard.manifest
    is_fresh = manifest.is_of_round or not manifest.num_views
    salted = range(1) if is_fresh else range(manifest.num_views)
    views = [
        *(view_name("train", name, view) for name in record.train for view in salted),
        *(view_name("heldout", name, 0) for name in record.heldout),
    ]
    sizes = (len(record.train), 0 if manifest.is_of_round else len(record.heldout))
    is_whole = CLIENT in record.salts or record.salts.keys() == set(views)
    if sizes != (manifest.num_images, manifest.num_heldout) or not is_whole:
        raise InputError(
            f"{folder}: does not match the vault's record {manifest.record}; the shard or the "
            "vault was changed, so encrypt the images again"
        )


def _stored(shard: ShardPart, train: list[str], heldout: list[str]) -> Iterator[PlainView]:
    """The stored views of a shard, still encrypted, with their names from the owner's record."""
    manifest, images, labels = shard.manifest, shard.images, shard.labels
    training = (
        PlainView("train", name, manifest.first_view + view, images[n, view], labels[n, view])
        for n, name in enumerate(train)
        for view in range(manifest.num_views)
    )
    pairs = zip(() if manifest.is_of_round else heldout, shard.heldout(), strict=True)
    held = (PlainView("heldout", scene_id, 0, image, labels) for scene_id, (image, labels) in pairs)
    return chain(training, held)
