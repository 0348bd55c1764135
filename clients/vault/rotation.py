"""A new master key for an old one, and the end of keys.

A key of earlier lies with its records in `retired/<fingerprint>/`: it decrypts what it encrypted,
and encrypts nothing any more.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from clients.vault.keyring import KEY_FILE, RETIRED, Vault
from clients.vault.record import Record, read_record
from fl_ppseg.files import private_folder, replacing
from fl_ppseg.keys import ClientKey


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
        InputError: A key or record is damaged or open to others.
    """
    return [
        Generation(
            folder,
            ClientKey.load(folder / KEY_FILE).fingerprint,
            folder == vault.folder,
            {path.stem: read_record(path) for path in sorted(folder.glob("manifests/*.json"))},
        )
        for folder in vault.generations()
        if (folder / KEY_FILE).exists()
    ]


def rotate(vault: Vault) -> ClientKey:
    """Retire the master key and make a new one; cut short, it can be called again.

    Returns:
        The new key.

    Raises:
        InputError: The master key cannot be read.
    """
    old = vault.key
    place = vault.folder / RETIRED / old.fingerprint
    for closed in (place.parent, place, place / "manifests"):
        private_folder(closed)
    with replacing(place / KEY_FILE) as draft:
        old.save(draft)
    for record in vault.folder.glob("manifests/*.json"):
        record.replace(place / "manifests" / record.name)
    with replacing(vault.key_path) as draft:
        ClientKey.generate().save(draft)
    return ClientKey.load(vault.key_path)


def destroy(generation: Generation) -> None:
    """Overwrite and remove a key, then its records. What it encrypted is lost for ever."""
    key_file = generation.folder / KEY_FILE
    with key_file.open("r+b") as file:
        file.write(bytes(key_file.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    key_file.unlink()
    shutil.rmtree(generation.folder / "manifests", ignore_errors=True)
    if not generation.is_current:
        shutil.rmtree(generation.folder)
