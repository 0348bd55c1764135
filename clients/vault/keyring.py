"""Keys and salts in their files: one owner's, and those that all share in the papers' methods."""

import json
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

from fl_ppseg.config import ArmConfig
from fl_ppseg.dataset import Scene
from fl_ppseg.errors import InputError
from fl_ppseg.files import locked, private_folder, replacing, write_atomically
from fl_ppseg.keys import ClientKey, SubKey, new_salt

CLIENT = "client"
"""Name of the salt of the key that all images of a shard share."""


class Vault:
    """One owner's folder of keys, salts, shards and private embeddings."""

    def __init__(self, folder: Path) -> None:
        """Open a vault, or make one."""
        self.folder = private_folder(folder)

    @cached_property
    def key(self) -> ClientKey:
        """The master key, made at its first use.

        Raises:
            InputError: It is damaged, open to others, or gone though it was used.
        """
        path = self.folder / "master.key"
        if not path.exists():
            if any(self.folder.glob("manifests/*.json")):
                raise InputError(
                    f"{path}: gone, but images were encrypted with it; restore its backup, or "
                    f"remove {self.folder} and begin a new run"
                )
            with replacing(path) as draft:
                ClientKey.generate().save(draft)
        return ClientKey.load(path)

    def lock(self) -> AbstractContextManager[None]:
        """Only one process at a time works in this vault; others wait."""
        return locked(self.folder / ".lock")

    def shard_folder(self, digest: str) -> Path:
        """Where the shard with this digest of its settings lies."""
        return self.folder / "shards" / digest

    def save_salts(self, digest: str, salts: dict[str, str]) -> None:
        """Write the owner's manifest of a shard, so that derived images can be decrypted later."""
        path = self._manifest(digest)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, json.dumps(salts), mode=0o600)

    def has_salts(self, digest: str) -> bool:
        """Whether the owner's manifest of a shard is there."""
        return self._manifest(digest).exists()

    def client_subkey(self, digest: str) -> SubKey:
        """The key that all images of a `per-client` shard are encrypted with.

        Raises:
            InputError: The owner's manifest of the shard is missing or damaged.
        """
        remedy = "remove the file, and the images are encrypted again"
        return self.key.client_subkey(read_salt(self._manifest(digest), remedy))

    def _manifest(self, digest: str) -> Path:
        return self.folder / "manifests" / f"{digest}.json"


class SubKeys:
    """Hands out a key for each view as key mode and lifetime want; no key is drawn twice."""

    def __init__(self, vault: Vault, protection: ArmConfig) -> None:
        self._vault = vault
        self._is_disposable = protection.key_lifetime == "disposable"
        self.salts: dict[str, str] = {}
        """The salts drawn so far by what they are for, in hex."""
        self._of_all: SubKey | None = None
        if protection.key_mode == "per-client":
            self._of_all = vault.key.client_subkey(self._new_salt(CLIENT))
        if protection.key_mode == "shared":
            self._of_all = shared_subkey(vault.folder.parent, protection)

    def of_view(self, split: str, scene: Scene, view: int) -> SubKey:
        """The key of one view: that of all images, a derived or a disposable one."""
        if self._of_all is not None:
            return self._of_all
        if self._is_disposable:
            return SubKey.generate()
        salt = self._new_salt(f"{split}/{scene.scene_id}/{view}")
        return self._vault.key.view_subkey(
            split=split, city=scene.city, file=scene.stem, view=view, salt=salt
        )

    def _new_salt(self, name: str) -> bytes:
        salt = new_salt()
        self.salts[name] = salt.hex()
        return salt


def shared_subkey(vault_dir: Path, protection: ArmConfig) -> SubKey:
    """The key of all owners and cities for an arm with key mode `shared`; made at its first use.

    Arms share it too, except those that publish it (see `shared_salt`).

    Args:
        vault_dir: The folder of all vaults of a simulation.
        protection: Of the arm.

    Raises:
        InputError: The folder is open to others, the key is gone, or it or its salt is damaged.
    """
    vault, name = Vault(vault_dir / ".shared"), shared_salt(protection)
    with vault.lock():
        _ = vault.key  # made before its salts, which tell that there was one
        if not vault.has_salts(name):
            vault.save_salts(name, {CLIENT: new_salt().hex()})
        return vault.client_subkey(name)


def shared_salt(protection: ArmConfig) -> str:
    """Name of the salt of a shared key.

    An `adapted` embedding is published beside the weights that it was adapted from: whoever has
    both has the key, so no other arm may have the same.
    """
    return "salt-published" if protection.embedding == "adapted" else "salt"


def read_salt(path: Path, remedy: str) -> bytes:
    """The salt of a key that serves many images.

    Args:
        path: The manifest that holds it.
        remedy: What to do where it does not.

    Raises:
        InputError: The manifest is missing or damaged.
    """
    try:
        return bytes.fromhex(json.loads(path.read_text("utf-8"))[CLIENT])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no readable salt of the key ({type(error).__name__}); {remedy}"
        ) from None
