"""The owner's vault: keys are made and images are encrypted here, and only here.

    <vault>/<city>/master.key          0600, made once from the OS
    <vault>/<city>/manifests/          salts of derived keys, the owner's own
    <vault>/<city>/shards/<digest>/    what the training node gets: encrypted views, labels

A shard is prepared once: `num_views` augmented views an image, each encrypted with its own key (or
the client's), held-out images encrypted alike. Equal settings and images find it again; of several
processes at once the first makes it. Folders are 0700: their owner's alone.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fl_ppseg.ciphers import encrypt, get_cipher
from fl_ppseg.config import ArmConfig, DataConfig
from fl_ppseg.dataset import Scene
from fl_ppseg.errors import InputError
from fl_ppseg.files import locked, private_folder, replacing, write_atomically
from fl_ppseg.keys import ClientKey, SubKey, new_salt
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


@dataclass(frozen=True)
class Assignment:
    """What one owner is to encrypt: picklable, without any key."""

    vault: Path
    """This owner's folder; only the owner's processes touch it."""
    city: str
    train: tuple[Scene, ...]
    heldout: tuple[Scene, ...]
    data: DataConfig
    block_size: int
    """Side of a cipher block in pixels: the ViT's patch."""
    seed: int
    """Seed of the augmented views; keys never come from it."""
    protections: Mapping[str, ArmConfig]
    """How the images of each arm are to be protected."""


class Vault:
    """One owner's folder of keys, salts and shards."""

    def __init__(self, folder: Path) -> None:
        """Open a vault, or make one."""
        self.folder = private_folder(folder)

    @cached_property
    def _key(self) -> ClientKey:
        """The master key, made at its first use."""
        path = self.folder / "master.key"
        if not path.exists():
            with replacing(path) as draft:
                ClientKey.generate().save(draft)
        return ClientKey.load(path)

    def lock(self) -> AbstractContextManager[None]:
        """Only one process at a time works in this vault; others wait."""
        return locked(self.folder / ".lock")

    def shard_folder(self, digest: str) -> Path:
        """Where the shard with this digest of its settings lies."""
        return self.folder / "shards" / digest

    def subkeys(self, protection: ArmConfig, digest: str) -> "SubKeys":
        """The keys of a new shard; salts of derived ones are written to the owner's manifest."""
        return SubKeys(self._key, protection, self.folder / "manifests" / f"{digest}.json")


class SubKeys:
    """Hands out a key for each view as key mode and lifetime want; no key is drawn twice."""

    def __init__(self, key: ClientKey, protection: ArmConfig, manifest: Path) -> None:
        self._key = key
        self._protection = protection
        self._manifest = manifest
        self._salts: dict[str, str] = {}
        self._client: SubKey | None = None
        if protection.key_mode == "per-client":
            self._client = key.client_subkey(self._new_salt("client"))

    def of_view(self, split: str, scene: Scene, view: int) -> SubKey:
        """The key of one view: the client's, a derived or a disposable one."""
        if self._client is not None:
            return self._client
        if self._protection.key_lifetime == "disposable":
            return SubKey.generate()
        salt = self._new_salt(f"{split}/{scene.scene_id}/{view}")
        return self._key.view_subkey(
            split=split, city=scene.city, file=scene.stem, view=view, salt=salt
        )

    def keep_salts(self) -> None:
        """Write the owner's manifest, so that derived images can be decrypted later."""
        if self._salts:
            self._manifest.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._manifest, json.dumps(self._salts), mode=0o600)

    def _new_salt(self, name: str) -> bytes:
        salt = new_salt()
        self._salts[name] = salt.hex()
        return salt


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


def prepare_shards(assignment: Assignment) -> dict[str, Path]:
    """Encrypt one owner's images for all arms at once; what is there already is kept.

    Args:
        assignment: Images, sizes and protections.

    Returns:
        The shard's folder for each arm; arms that protect alike share one.

    Raises:
        InputError: For an image or label map that cannot be read or encrypted, or a vault that is
            open to others.
    """
    vault = Vault(assignment.vault)
    with vault.lock():
        return _prepare(vault, assignment)


def _prepare(vault: Vault, assignment: Assignment) -> dict[str, Path]:
    digests = {arm: _digest(assignment, p) for arm, p in assignment.protections.items()}
    folders = {arm: vault.shard_folder(digest) for arm, digest in digests.items()}
    missing = {
        digest: assignment.protections[arm]
        for arm, digest in digests.items()
        if not _is_whole(folders[arm], digest)
    }
    if missing:
        _encrypt_all(vault, assignment, missing)
    return folders


def throwaway_encryption(
    protection: ArmConfig, block_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Encryption as an arm wants it, under keys that nobody keeps: for queries and pictures.

    Args:
        protection: Key mode, cipher and scope; `per-client` keeps one key for all images given.
        block_size: Side of a cipher block in pixels.

    Returns:
        (3, H, W) uint8 -> (3, H, W) uint8; the identity for plain arms.
    """
    seal = _encryption(protection, block_size)
    client = SubKey.generate()
    per_client = protection.key_mode == "per-client"
    return lambda image: seal(image, client if per_client else SubKey.generate())


def _encrypt_all(vault: Vault, job: Assignment, missing: Mapping[str, ArmConfig]) -> None:
    size, policy = job.data.image_size, job.data.fit
    sizes = [scored_size(scene.size(), size, policy) for scene in job.heldout]
    with ExitStack() as stack:
        sealers, all_keys = [], []
        for digest, protection in missing.items():
            manifest = Manifest(
                SCHEMA, job.city, digest, job.block_size, len(job.train), job.data.num_views, sizes
            )
            writing = writing_shard(vault.shard_folder(digest), manifest, size)
            keys = vault.subkeys(protection, digest) if protection.cipher else None
            all_keys += [keys] if keys else []
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
        for keys in all_keys:  # before the shards appear, at the end of the stack
            keys.keep_salts()


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


def _is_whole(folder: Path, digest: str) -> bool:
    """Whether a shard of these settings is there; a damaged one is encrypted again, and said."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.settings != digest:
        return False
    try:
        open_shard([folder])
    except InputError as error:
        logger.warning("%s", error)
        return False
    return True


def _digest(job: Assignment, protection: ArmConfig) -> str:
    """Names everything a shard is made from and with, except its keys."""
    settings = {
        "schema": SCHEMA,
        "city": job.city,
        "train": [_identity(scene) for scene in job.train],
        "heldout": [_identity(scene) for scene in job.heldout],
        "data": job.data.model_dump(mode="json", include={"image_size", "fit", "num_views"}),
        "classes": _table_digest(job),
        "block_size": job.block_size,
        "seed": job.seed,
        "protection": protection.model_dump(
            include={"key_mode", "cipher", "block_scope", "key_lifetime"}
        ),
    }
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _table_digest(job: Assignment) -> str:
    table = next(scene.classes.label_to_train for scene in job.train + job.heldout)
    return hashlib.sha256(table.tobytes()).hexdigest()


def _identity(scene: Scene) -> list[object]:
    """An image and its label map by name, size and time of their last change."""
    stats = [path.stat() for path in (scene.image_path, scene.label_path)]
    return [scene.scene_id, *((s.st_size, s.st_mtime_ns) for s in stats)]
