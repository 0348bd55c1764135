"""Keys and their salts in files: one owner's, and those that all share in the papers' methods.

<vault>/<city>/master.key                  0600, from the OS; never overwritten
<vault>/<city>/manifests/<record>.json     what the owner keeps of a shard with derived keys
<vault>/<city>/retired/<fingerprint>/      a key of earlier, with the records that belong to it
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Final

from clients.vault.record import CLIENT, Record, read_record
from fl_ppseg.config import ArmConfig
from fl_ppseg.errors import InputError
from fl_ppseg.files import locked, private_folder, replacing, write_atomically
from fl_ppseg.keys import ClientKey, SubKey, new_salt

KEY_FILE: Final = "master.key"
RETIRED: Final = "retired"


class Vault:
    """One owner's folder of keys and salts; a simulation's shards lie there too."""

    def __init__(self, folder: Path) -> None:
        """Open a vault, or make one."""
        self.folder = private_folder(folder)

    @cached_property
    def key(self) -> ClientKey:
        """The master key, made at its first use.

        Raises:
            InputError: It is damaged, open to others, or gone though it was used.
        """
        if not self.has_key:
            if any(self.folder.glob("manifests/*.json")):
                raise InputError(
                    f"{self.key_path}: gone, but images were encrypted with it; restore its "
                    f"backup, or remove {self.folder} and begin a new run"
                )
            with replacing(self.key_path) as draft:
                ClientKey.generate().save(draft)
        return ClientKey.load(self.key_path)

    @property
    def key_path(self) -> Path:
        """File of the master key."""
        return self.folder / KEY_FILE

    @property
    def has_key(self) -> bool:
        """Whether the master key is there."""
        return self.key_path.exists()

    def lock(self) -> AbstractContextManager[None]:
        """Only one process at a time works in this vault; others wait."""
        return locked(self.folder / ".lock")

    def save_record(self, record: Record) -> str:
        """Write what its owner keeps of a shard, before anything is encrypted with its salts.

        Returns:
            The record's name.
        """
        _ = self.key  # made before its records, which tell that there was one
        text, name = record.to_json(), record.name
        path = self._record_path(self.folder, name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, text, mode=0o600)
        return name

    def drop_record(self, name: str) -> None:
        """Remove the record of a shard that came to nothing."""
        self._record_path(self.folder, name).unlink(missing_ok=True)

    def has_record(self, name: str) -> bool:
        """Whether there is a record of this name under the master key."""
        return self._record_path(self.folder, name).exists()

    def find(self, name: str) -> tuple[ClientKey, Record]:
        """A record, and the key that it belongs to: the master key or a retired one.

        Raises:
            InputError: There is no such record, it is damaged, or its key is gone.
        """
        for place in self.generations():
            if (path := self._record_path(place, name)).exists():
                return ClientKey.load(place / KEY_FILE), read_record(path)
        raise InputError(
            f"{self.folder}: holds no salts of record {name}; restore the backup of the vault that "
            "the images were encrypted with"
        )

    def generations(self) -> Iterator[Path]:
        """Folders of the master key and of the retired ones, newest first."""
        yield self.folder
        yield from sorted((self.folder / RETIRED).glob("*"), key=lambda p: -p.stat().st_mtime_ns)

    @staticmethod
    def _record_path(place: Path, name: str) -> Path:
        return place / "manifests" / f"{name}.json"


def owners_vault(vault_dir: Path, city: str) -> Vault:
    """The vault of an owner who has made a key.

    Args:
        vault_dir: The folder of vaults.
        city: The owner's city.

    Raises:
        InputError: There is none.
    """
    folder = vault_dir / city
    if not (folder / KEY_FILE).exists():
        raise InputError(
            f"{folder}: no master key; make one with `python -m clients.vault new --vault "
            f"{vault_dir} --city {city}`, or restore its backup"
        )
    return Vault(folder)


def shared_subkey(vault_dir: Path, protection: ArmConfig) -> SubKey:
    """The key of all owners and cities for an arm with key mode `shared`; made at its first use.

    Arms share it too, except those that publish it (see `shared_salt`).

    Args:
        vault_dir: The folder of all vaults of a simulation.
        protection: Of the arm.

    Raises:
        InputError: The folder is open to others, the key is gone, or it or its salt is damaged.
    """
    vault = Vault(vault_dir / ".shared")
    path = vault.folder / "manifests" / f"{shared_salt(protection)}.json"
    with vault.lock():
        key = vault.key  # made before its salts, which tell that there was one
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, json.dumps({CLIENT: new_salt().hex()}), mode=0o600)
        return key.client_subkey(read_salt(path, "remove the file, and all is encrypted again"))


def shared_salt(protection: ArmConfig) -> str:
    """Name of the salt of a shared key.

    An `adapted` embedding is published beside the weights that it was adapted from: whoever has
    both has the key, so no other arm may have the same.
    """
    return "salt-published" if protection.embedding == "adapted" else "salt"


def read_salt(path: Path, remedy: str) -> bytes:
    """The salt of the key that all share.

    Args:
        path: The file that holds it.
        remedy: What to do where it does not.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        return bytes.fromhex(json.loads(path.read_text("utf-8"))[CLIENT])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no readable salt of the key ({type(error).__name__}); {remedy}"
        ) from None
