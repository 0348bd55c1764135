"""Replaces the master key by a new one.

A retired key and its records lie in `retired/<fingerprint>/`: it decrypts what it encrypted, and
encrypts nothing more. A rotation makes the new key first (`next.key`), then copies the old one and
moves its records there, and lets the new one take its place last. Until then the old one is the
master key, whatever ends the process, and the next `rotate` continues with the same new key.
"""

from pathlib import Path
from typing import NamedTuple

from clients.vault.keys.erasure import erase
from clients.vault.keys.keyring import Vault
from clients.vault.keys.record import Record, read_record
from clients.vault.layout import KEY_FILE, NEXT_KEY, RECORDS, RETIRED, record_files
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import make_private_folder, sync


class Generation(NamedTuple):
    """A master key and what was encrypted with it."""

    folder: Path
    fingerprint: str
    is_current: bool
    records: dict[str, Record]
    """By name."""


def generations(vault: Vault) -> list[Generation]:
    """The master key and the retired ones, newest first.

    Raises:
        InputError: A key or record is damaged, another user's or open to others.
    """
    return [
        Generation(
            folder,
            ClientKey.load(folder / KEY_FILE).fingerprint,
            folder == vault.folder,
            {path.stem: read_record(path) for path in record_files(folder)},
        )
        for folder in vault.generations()
        if (folder / KEY_FILE).exists()
    ]


def rotate(vault: Vault) -> ClientKey:
    """Retire the master key and make a new one; the next call completes an interrupted one.

    Returns:
        The new key.

    Raises:
        InputError: The master key cannot be read, or a file cannot be made.
        OSError: The disk is full.
    """
    old = vault.ensure_key()
    new = _ensure_next_key(vault)
    place = vault.folder / RETIRED / old.fingerprint
    for closed in (place.parent, place, place / RECORDS):
        make_private_folder(closed)
    _keep(old, place / KEY_FILE)
    for record in record_files(vault.folder):
        record.replace(place / RECORDS / record.name)
    for folder in (place / RECORDS, place, place.parent):
        sync(folder)
    (vault.folder / NEXT_KEY).replace(vault.key_path)
    sync(vault.folder)
    vault.forget_key()
    return new


def is_rotating(vault: Vault) -> bool:
    """Whether a rotation was interrupted: the current key is also among the retired ones."""
    if (vault.folder / NEXT_KEY).exists():
        return True
    try:
        place = vault.folder / RETIRED / ClientKey.load(vault.key_path).fingerprint
    except InputError:  # missing or damaged: whoever needs it reports that
        return False
    return (place / KEY_FILE).exists()


def _ensure_next_key(vault: Vault) -> ClientKey:
    """The next key: of an interrupted rotation, or a new one; it has encrypted nothing yet."""
    path = vault.folder / NEXT_KEY
    if path.exists():
        try:
            return ClientKey.load(path)
        except InputError:
            erase(path)
    ClientKey.generate().save(path)
    return ClientKey.load(path)


def _keep(key: ClientKey, path: Path) -> None:
    """Keep a copy of a key among the retired ones; a damaged copy is replaced."""
    if path.exists():
        try:
            if ClientKey.load(path) == key:
                return
        except InputError:
            pass
        erase(path)
    key.save(path)
