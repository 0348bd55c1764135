"""Keys and their salts in files: one owner's, and those that all share in the papers' methods.

<vault>/<city>/master.key                  0600, from the OS; never overwritten
<vault>/<city>/manifests/<record>.json     what the owner keeps of a shard with derived keys
<vault>/<city>/retired/<fingerprint>/      a key of earlier, with the records that belong to it

`layout` names the rest. The vault and its keys are their owner's: another user's are refused.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Final

from clients.vault.keys.erasure import erase
from clients.vault.keys.record import CLIENT, Record, read_record
from clients.vault.layout import (
    DESTROYED_KEY,
    KEY_FILE,
    LOCK,
    MAX_KEY_BYTES,
    RECORD_NAME,
    RECORDS,
    RETIRED,
    SHARED,
    record_file,
    record_files,
)
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.documents import parse_json, read_text
from fl_ppseg.crypto.keys import SALT_BYTES, ClientKey, SubKey, new_salt
from fl_ppseg.system.atomic_file import write_in
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import hold_lock, make_folders, make_private_folder

SALT: Final = re.compile(rf"[0-9a-f]{{{2 * SALT_BYTES}}}")
TEMPORARY: Final = ".*.tmp"
"""What a process that was killed may leave: a file that was not whole."""


class Vault:
    """One owner's folder of keys and salts; a simulation's shards lie there too."""

    def __init__(self, folder: Path) -> None:
        """Open a vault, or make one.

        Raises:
            InputError: The folder is another user's, or others could put another in its place.
        """
        make_folders(folder.parent, 0o700)
        self.folder = make_private_folder(folder)

    @cached_property
    def key(self) -> ClientKey:
        """The master key, made at its first use.

        Raises:
            InputError: It is damaged, another user's, open to others, or gone though it was used.
        """
        if not self.has_key:
            if (self.folder / DESTROYED_KEY).exists():
                raise InputError(half_retired(self.folder))
            if record_files(self.folder):
                raise InputError(
                    f"{self.key_path}: gone, but images were encrypted with it; restore its "
                    f"backup, or remove {self.folder} and begin a new run"
                )
            ClientKey.generate().save(self.key_path)
        return ClientKey.load(self.key_path)

    @property
    def key_path(self) -> Path:
        """File of the master key."""
        return self.folder / KEY_FILE

    @property
    def has_key(self) -> bool:
        """Whether the master key is there."""
        return self.key_path.exists()

    def forget_key(self) -> None:
        """Read the master key anew at its next use."""
        self.__dict__.pop("key", None)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process at a time works in this vault; others wait.

        What a process that was killed left half written goes first: it may hold secrets.
        """
        with hold_lock(self.folder / LOCK):
            for place in self.generations():
                for folder in (place, place / RECORDS):
                    for left in folder.glob(TEMPORARY):
                        erase(left)
            yield

    def save_record(self, record: Record) -> str:
        """Write what its owner keeps of a shard, before anything is encrypted with its salts.

        Returns:
            The record's name.
        """
        _ = self.key  # made before its records, which tell that there was one
        text, name = record.to_json(), record.name
        _write_new(self._record_path(self.folder, name), text)
        return name

    def drop_record(self, name: str) -> None:
        """Remove the record of a shard that came to nothing."""
        self._record_path(self.folder, name).unlink(missing_ok=True)

    def has_record(self, name: str) -> bool:
        """Whether there is a record of this name under the master key."""
        return is_record_name(name) and self._record_path(self.folder, name).exists()

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
        places = (path for path in (self.folder / RETIRED).glob("*") if path.is_dir())
        yield from sorted(places, key=lambda path: -path.stat().st_mtime_ns)

    @staticmethod
    def _record_path(place: Path, name: str) -> Path:
        if not is_record_name(name):
            raise InputError(
                f"{ascii(name)[:80]} names no record of a vault: expected 32 hex digits; the shard "
                "was changed, so encrypt the images again"
            )
        return record_file(place, name)


def is_record_name(name: str) -> bool:
    """Whether a record can be called so: a name is part of a path, and others write shards."""
    return RECORD_NAME.fullmatch(name) is not None


def half_retired(folder: Path) -> str:
    """What to do where a retirement of the master key was cut short."""
    return (
        f"{folder}: its keys were being destroyed when that was cut short; `retire --all` goes on "
        "with it, and then `new` makes a key or `restore` brings a backup back"
    )


def _write_new(path: Path, text: str) -> None:
    """Write a file that is never changed; one that is there is the same."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileExistsError):
            write_in(folder, path.name, text.encode("utf-8"), 0o600, exclusive=True)
        os.fsync(folder)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        os.close(folder)


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
        if (folder / DESTROYED_KEY).exists():
            raise InputError(half_retired(folder))
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
    vault = Vault(vault_dir / SHARED)
    path = record_file(vault.folder, shared_salt(protection))
    with vault.lock():
        key = vault.key  # made before its salts, which tell that there was one
        if not path.exists():
            _write_new(path, json.dumps({CLIENT: new_salt().hex()}))
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
        values = parse_json(read_text(path, MAX_KEY_BYTES), str(path))
        salt = values.get(CLIENT) if isinstance(values, dict) else None
        if isinstance(salt, str) and SALT.fullmatch(salt):
            return bytes.fromhex(salt)
        reason = "expected an object with 32 hex digits"
    except InputError as error:
        reason = str(error)
    raise InputError(f"{path}: no readable salt of the key ({reason}); {remedy}")
