"""Destruction of keys: what they encrypted can never be decrypted again.

    1. master.key is renamed to destroyed.key: from here on the destruction is always completed
    2. destroyed.key is overwritten with zeros: the key no longer exists
    3. the records are removed, then destroyed.key, and the folder of a retired key

destroyed.key is removed last, so that the next call recognises and completes an interrupted
retirement. A key that is damaged or open to others can be destroyed like any other.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from clients.vault.keys.erasure import erase, overwrite
from clients.vault.keys.keyring import Vault
from clients.vault.keys.record import Record, read_record
from clients.vault.layout import (
    DESTROYED_KEY,
    FINGERPRINT,
    KEY_FILE,
    NEXT_KEY,
    RECORDS,
    record_file,
    record_files,
)
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import sync


class DoomedKey(NamedTuple):
    """A key to destroy, or what an earlier retirement left of one, with its records."""

    folder: Path
    name: str
    """Its fingerprint, if known."""
    is_current: bool
    """Whether it is the master key."""
    is_partly_destroyed: bool
    """Whether its destruction has begun, or the key is missing."""
    flaw: str | None
    """Why the key cannot be read; None for a readable one."""
    records: dict[str, Record | None]
    """By name; None for a damaged one."""


def keys_to_destroy(vault: Vault, *, all_keys: bool) -> list[DoomedKey]:
    """The keys that a retirement destroys, oldest first, the master key last.

    Args:
        vault: The vault.
        all_keys: Whether to include the master key.
    """
    places = reversed(list(vault.generations()))
    found = (_find_key(place, place == vault.folder) for place in places)
    return [each for each in found if each is not None and (all_keys or not each.is_current)]


def find_damage(vault: Vault) -> list[str]:
    """Keys and records that cannot be read, one line each."""
    found = [
        each for place in vault.generations() if (each := _find_key(place, place == vault.folder))
    ]
    keys = [each.flaw for each in found if each.flaw is not None]
    records = [
        f"{record_file(each.folder, name)}: the salts of derived keys are damaged"
        for each in found
        for name, record in each.records.items()
        if record is None
    ]
    strange = [
        f"{each.folder}: expected a folder named by a key's fingerprint; left out"
        for each in found
        if not each.is_current and not FINGERPRINT.fullmatch(each.folder.name)
    ]
    return keys + records + strange


def destroy(vault: Vault, each: DoomedKey) -> None:
    """Overwrite and remove a key and its records; the next call completes an interrupted one.

    Raises:
        OSError: A file cannot be written or removed.
    """
    key, mark = each.folder / KEY_FILE, each.folder / DESTROYED_KEY
    if each.is_current and os.path.lexists(spare := each.folder / NEXT_KEY):
        erase(spare)
    if os.path.lexists(key):
        if os.path.lexists(mark):
            erase(mark)
        key.replace(mark)
        sync(each.folder)
    if os.path.lexists(mark) and not mark.is_symlink():
        overwrite(mark)
    if (each.folder / RECORDS).exists():
        shutil.rmtree(each.folder / RECORDS)
    sync(each.folder)
    mark.unlink(missing_ok=True)
    sync(each.folder)
    if not each.is_current:
        shutil.rmtree(each.folder)
        sync(each.folder.parent)
    vault.forget_key()


def _find_key(folder: Path, is_current: bool) -> DoomedKey | None:
    """The key, or its remains, in a folder; None if there is nothing to destroy."""
    records = {path.stem: _read_if_whole(path) for path in record_files(folder)}
    is_partly_destroyed = os.path.lexists(folder / DESTROYED_KEY)
    name = folder.name if FINGERPRINT.fullmatch(folder.name) else "of no known fingerprint"
    if not os.path.lexists(folder / KEY_FILE):
        if is_current and not (
            records or is_partly_destroyed or os.path.lexists(folder / NEXT_KEY)
        ):
            return None
        return DoomedKey(folder, name, is_current, True, None, records)
    try:
        key = ClientKey.load(folder / KEY_FILE)
        return DoomedKey(folder, key.fingerprint, is_current, is_partly_destroyed, None, records)
    except InputError as error:
        return DoomedKey(folder, name, is_current, is_partly_destroyed, str(error), records)


def _read_if_whole(path: Path) -> Record | None:
    try:
        return read_record(path)
    except InputError:
        return None
