"""Keys and their salts in files: one owner's, and those that all owners share in some methods.

<vault>/<client>/master.key                  0600, from the OS; never overwritten
<vault>/<client>/manifests/<record>.json     what the owner keeps of a shard with derived keys
<vault>/<client>/retired/<fingerprint>/      a retired key with the records that belong to it

`layout` names the rest. A vault or key that belongs to another user is refused.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
"""Incomplete files that a killed process may leave."""


class Vault:
    """One owner's folder of keys and salts; in a simulation it also holds the shards."""

    def __init__(self, folder: Path) -> None:
        """Open a vault, or make one.

        Raises:
            InputError: The folder belongs to another user, or others could replace it.
        """
        make_folders(folder.parent, 0o700)
        self.folder = make_private_folder(folder)
        self._key: ClientKey | None = None

    def ensure_key(self) -> ClientKey:
        """The master key; generated and saved if the vault has none yet.

        Raises:
            InputError: It is damaged, another user's, open to others, or missing though it was
                used.
        """
        if self._key is None:
            if not self.has_key:
                self._generate_key()
            self._key = ClientKey.load(self.key_path)
        return self._key

    def _generate_key(self) -> None:
        if (self.folder / DESTROYED_KEY).exists():
            raise InputError(unfinished_retirement(self.folder))
        if record_files(self.folder):
            raise InputError(
                f"{self.key_path}: missing, but images were encrypted with it; restore its "
                f"backup, or remove {self.folder} and start a new run"
            )
        ClientKey.generate().save(self.key_path)

    @property
    def key_path(self) -> Path:
        """File of the master key."""
        return self.folder / KEY_FILE

    @property
    def has_key(self) -> bool:
        """Whether the master key exists."""
        return self.key_path.exists()

    def forget_key(self) -> None:
        """Drop the cached master key, so that its next use reads the file again."""
        self._key = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock this vault for one process; others wait.

        Incomplete files of a killed process are erased first: they may hold secrets.
        """
        with hold_lock(self.folder / LOCK):
            for place in self.generations():
                for folder in (place, place / RECORDS):
                    for left in folder.glob(TEMPORARY):
                        erase(left)
            yield

    def save_record(self, record: Record) -> str:
        """Save the record of a shard, before anything is encrypted with its salts.

        Returns:
            The record's name.
        """
        self.ensure_key()  # before its records, which show that there was a key
        text, name = record.to_json(), record.name
        _write_new(self._record_path(self.folder, name), text)
        return name

    def drop_record(self, name: str) -> None:
        """Remove the record of a shard that was abandoned."""
        self._record_path(self.folder, name).unlink(missing_ok=True)

    def has_record(self, name: str) -> bool:
        """Whether a record of this name belongs to the master key."""
        return is_record_name(name) and self._record_path(self.folder, name).exists()

    def find(self, name: str) -> tuple[ClientKey, Record]:
        """A record, and the key that it belongs to: the master key or a retired one.

        Raises:
            InputError: There is no such record, it is damaged, or its key is missing.
        """
        for place in self.generations():
            if (path := self._record_path(place, name)).exists():
                return ClientKey.load(place / KEY_FILE), read_record(path)
        raise InputError(
            f"{self.folder}: no salts of record {name}; restore the backup of the vault that "
            "encrypted the images"
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
                f"{ascii(name)[:80]} is not the name of a record: expected 32 hex digits; the "
                "shard was changed, so encrypt the images again"
            )
        return record_file(place, name)


def is_record_name(name: str) -> bool:
    """Whether a name can be a record's; it becomes part of a path, and shards are untrusted."""
    return RECORD_NAME.fullmatch(name) is not None


def unfinished_retirement(folder: Path) -> str:
    """The message for a vault whose retirement was interrupted."""
    return (
        f"{folder}: the destruction of its keys was interrupted; finish it with `retire --all`, "
        "then make a key with `new` or restore a backup with `restore`"
    )


def _write_new(path: Path, text: str) -> None:
    """Write a file that never changes; an existing one is identical and is kept."""
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


def open_vault(vault_dir: Path, client: str) -> Vault:
    """Open the vault of an owner who has a master key.

    Args:
        vault_dir: The folder of vaults.
        client: The owner's client.

    Raises:
        InputError: There is no such vault, or it has no key.
    """
    folder = vault_dir / client
    if not (folder / KEY_FILE).exists():
        if (folder / DESTROYED_KEY).exists():
            raise InputError(unfinished_retirement(folder))
        raise InputError(
            f"{folder}: no master key; make one with `python -m clients.vault new --vault "
            f"{vault_dir} --client {client}`, or restore a backup"
        )
    return Vault(folder)


def ensure_shared_subkey(vault_dir: Path, protection: ArmConfig) -> SubKey:
    """The key that all owners share in an arm with key mode `shared`, made if it does not exist.

    Arms share it too, except those that publish it (see `shared_salt`).

    Args:
        vault_dir: The folder of all vaults of a simulation.
        protection: Of the arm.

    Raises:
        InputError: The folder is open to others, the key is missing, or it or its salt is damaged.
    """
    vault = Vault(vault_dir / SHARED)
    path = record_file(vault.folder, shared_salt(protection))
    with vault.lock():
        key = vault.ensure_key()  # before its salts, which show that there was a key
        if not path.exists():
            _write_new(path, json.dumps({CLIENT: new_salt().hex()}))
        remedy = "remove the file, and the images are encrypted again"
        return key.client_subkey(read_salt(path, remedy))


def shared_salt(protection: ArmConfig) -> str:
    """Name of the salt of a shared key.

    An `adapted` embedding is published with the weights that it was adapted from: whoever has both
    has the key, so no other arm may use the same one.
    """
    return "salt-published" if protection.embedding == "adapted" else "salt"


def read_salt(path: Path, remedy: str) -> bytes:
    """The salt of the key that all share.

    Args:
        path: The file that holds it.
        remedy: What to do if it cannot be read.

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
    raise InputError(f"{path}: cannot read the salt of the shared key ({reason}); {remedy}")
