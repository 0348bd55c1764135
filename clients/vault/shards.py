"""Encrypting one owner's images for all arms at once: views, keys, cipher, shard."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from clients.vault.assignment import Assignment, Prepared, shard_digest, stored_as
from clients.vault.keyring import SubKeys, Vault, shared_subkey
from clients.vault.private import prepare_private
from fl_ppseg.ciphers import encrypt, get_cipher
from fl_ppseg.config import ArmConfig
from fl_ppseg.dataset import Scene
from fl_ppseg.errors import InputError
from fl_ppseg.keys import SubKey
from fl_ppseg.shard import (
    SCHEMA,
    Manifest,
    ShardWriter,
    open_shard,
    read_manifest,
    writing_shard,
)
from fl_ppseg.views import fit_for_scoring, scored_size, views

logger = logging.getLogger(__name__)

Encrypt = Callable[[np.ndarray, SubKey], np.ndarray]


def prepare_shards(assignment: Assignment) -> dict[str, Prepared]:
    """Encrypt one owner's images for all arms at once; what is there already is kept.

    Args:
        assignment: Images, sizes and protections.

    Returns:
        What the node gets for each arm; arms that protect alike share a shard.

    Raises:
        InputError: For an image or label map that cannot be read or encrypted, a cipher to which
            no embedding can be adapted, or a vault that is open to others.
    """
    vault = Vault(assignment.vault)
    with vault.lock():
        return _prepare(vault, assignment)


def _prepare(vault: Vault, job: Assignment) -> dict[str, Prepared]:
    stored = {arm: stored_as(protection) for arm, protection in job.protections.items()}
    digests = {arm: shard_digest(job, p, _shared_key(vault, p)) for arm, p in stored.items()}
    missing = {
        digest: stored[arm]
        for arm, digest in digests.items()
        if not _is_whole(vault, digest, stored[arm])
    }
    if missing:
        _encrypt_all(vault, job, missing)
    return {
        arm: Prepared(vault.shard_folder(digest), prepare_private(vault, job, arm, digest))
        for arm, digest in digests.items()
    }


class Sealer:
    """Encrypts views of one protection into one shard."""

    def __init__(self, keys: SubKeys | None, encrypt: Encrypt, writer: ShardWriter) -> None:
        self._keys, self._encrypt, self._writer = keys, encrypt, writer

    def view(self, image: np.ndarray, labels: np.ndarray, scene: Scene, view: int) -> None:
        """Encrypt and store one training view."""
        self._writer.add_view(self._seal(image, "train", scene, view), labels)

    def heldout(self, image: np.ndarray, labels: np.ndarray, scene: Scene) -> None:
        """Encrypt and store one held-out image."""
        self._writer.add_heldout(self._seal(image, "heldout", scene, 0), labels)

    def _seal(self, image: np.ndarray, split: str, scene: Scene, view: int) -> np.ndarray:
        if self._keys is None:
            return image
        return self._encrypt(image, self._keys.of_view(split, scene, view))


def _encrypt_all(vault: Vault, job: Assignment, missing: Mapping[str, ArmConfig]) -> None:
    size, policy = job.data.image_size, job.data.fit
    sizes = [scored_size(scene.size(), size, policy) for scene in job.heldout]
    with ExitStack() as stack:
        sealers: list[Sealer] = []
        drawn: dict[str, SubKeys] = {}
        for digest, protection in missing.items():
            manifest = Manifest(
                SCHEMA, job.city, digest, job.block_size, len(job.train), job.data.num_views, sizes
            )
            writing = writing_shard(vault.shard_folder(digest), manifest, size)
            keys = None
            if protection.cipher:
                keys = drawn[digest] = SubKeys(vault, protection)
            writer = stack.enter_context(writing)
            sealers.append(Sealer(keys, _encryption(protection, job.block_size), writer))
        for scene in job.train:
            for number, (image, labels) in enumerate(_views(job, scene)):
                for sealer in sealers:
                    sealer.view(image, labels, scene, number)
        for scene in job.heldout:
            image, labels = fit_for_scoring(*scene.load(), size, policy)
            for sealer in sealers:
                sealer.heldout(image, labels, scene)
        for digest, keys in drawn.items():  # before the shards appear, at the end of the stack
            if keys.salts:  # a shard of earlier ones is none any more
                (vault.shard_folder(digest) / "manifest.json").unlink(missing_ok=True)
                vault.save_salts(digest, keys.salts)


def _views(job: Assignment, scene: Scene) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    image, labels = scene.load()
    data = job.data
    size, number = data.image_size, data.num_views
    return list(views(image, labels, size, data.fit, number, job.seed, scene.scene_id))


def _encryption(protection: ArmConfig, block_size: int) -> Encrypt:
    if protection.cipher is None or protection.block_scope is None:
        return lambda image, _: image
    cipher, scope = get_cipher(protection.cipher), protection.block_scope
    return lambda image, key: encrypt(image, key, cipher, block_size=block_size, scope=scope)


def _shared_key(vault: Vault, protection: ArmConfig) -> str | None:
    """Fingerprint of the key that this owner shares with the others, where it does."""
    if protection.key_mode != "shared":
        return None
    return shared_subkey(vault.folder.parent, protection).fingerprint


def _is_whole(vault: Vault, digest: str, protection: ArmConfig) -> bool:
    """Whether a shard of these settings is there; a damaged one is encrypted again, and said."""
    folder = vault.shard_folder(digest)
    manifest = read_manifest(folder)
    if manifest is None or manifest.settings != digest:
        return False
    has_salts = protection.key_lifetime == "derived" and protection.key_mode != "shared"
    if has_salts and not vault.has_salts(digest):
        logger.warning("%s: its salts are gone from the owner's manifests", folder)
        return False
    try:
        open_shard([folder])
    except InputError as error:
        logger.warning("%s", error)
        return False
    return True
