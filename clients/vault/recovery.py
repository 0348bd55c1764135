"""The owner's right: what has derived keys back to images, with the vault alone."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clients.vault.keyring import Vault
from clients.vault.record import Part, view_name
from clients.vault.sealing import hashed
from fl_ppseg.ciphers import decrypt
from fl_ppseg.errors import InputError
from fl_ppseg.shard import ShardPart, open_shard


class Plain(NamedTuple):
    """A view as it was before it was encrypted."""

    part: Part
    scene_id: str
    """`split/city/stem`."""
    view: int
    image: np.ndarray
    """(3, H, W) uint8 RGB."""
    labels: np.ndarray
    """(H, W) uint8 trainIds; of a held-out image at the label map's own size."""

    @property
    def name(self) -> str:
        """What a record's sample of this view is named."""
        return view_name(self.part, self.scene_id, self.view)


def decrypted(vault: Vault, folder: Path, samples_only: bool = False) -> Iterator[Plain]:
    """The views of a shard as they were; those of each scene one after the other.

    Args:
        vault: The vault that it was encrypted in.
        folder: The shard.
        samples_only: Give those alone of which the vault keeps a hash.

    Raises:
        InputError: Its keys are not derived, it is damaged, or the vault lacks its salts or key.
    """
    (shard,) = open_shard([folder]).parts
    if shard.manifest.record is None:
        raise InputError(
            f"{folder}: has no derived keys; its images are plain, or each was encrypted with a "
            "disposable key that nobody has any more"
        )
    key, record = vault.find(shard.manifest.record)
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
        yield found._replace(image=image)


def wrong_samples(vault: Vault, folder: Path) -> list[str]:
    """Names of the sampled views of a shard that do not decrypt to what was encrypted.

    Raises:
        InputError: As `decrypted`.
    """
    (shard,) = open_shard([folder]).parts
    samples = vault.find(shard.manifest.record)[1].samples if shard.manifest.record else {}
    views = decrypted(vault, folder, samples_only=True)
    return [view.name for view in views if hashed(view.image) != samples[view.name]]


def _stored(shard: ShardPart, train: list[str], heldout: list[str]) -> Iterator[Plain]:
    """The views of a shard as they lie there, by the names that the owner's record has."""
    training = (
        Plain("train", scene_id, view, shard.images[number, view], shard.labels[number, view])
        for number, scene_id in enumerate(train)
        for view in range(shard.manifest.num_views)
    )
    pairs = zip(heldout, shard.heldout(), strict=True)
    held = (Plain("heldout", scene_id, 0, image, labels) for scene_id, (image, labels) in pairs)
    return chain(training, held)
