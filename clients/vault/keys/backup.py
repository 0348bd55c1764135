"""One file with all keys and salts of a vault, sealed with a passphrase.

    file    = "fl_ppseg/v1/vault-backup\\n" + salt (16 bytes) + nonce (12) + sealed
    sealed  = ChaCha20-Poly1305 (RFC 8439) of the content under
              scrypt (RFC 7914) of the passphrase with the salt, N = 2^17, r = 8, p = 1, 32 bytes;
              header and salt are authenticated with it
    content = JSON {"schema": 2, "client": ..., "files": {path in the vault: text}}, paths as in
              `layout`; earlier versions wrote {"city": ..., "files": ...}, which is read as before

The passphrase is UTF-8, mapped as in `passphrases`.

Whoever has the file and the passphrase has every key, so guard the passphrase like the vault.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from clients.policy.cohort_key import COHORT_KEY
from clients.vault.keys.keyring import Vault, unfinished_retirement
from clients.vault.keys.passphrases import Passphrase, require_strength
from clients.vault.layout import (
    DESTROYED_KEY,
    FLOOR,
    HANDED_OVER,
    KEY_FILE,
    kept_size,
    record_files,
)
from fl_ppseg.config.client_names import is_client_name
from fl_ppseg.config.documents import parse_json
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.system.atomic_file import write_in
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import make_private_folder, write_atomically

SCHEMA: Final = 2
HEADER: Final = b"fl_ppseg/v1/vault-backup\n"
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
SCRYPT: Final = {"n": 2**17, "r": 8, "p": 1}
"""Each guess at a passphrase costs 128 MB and some tenths of a second."""
MAX_BACKUP_BYTES: Final = 2**30
"""Room for the records of some four million views; a larger file is rejected."""
_FIELDS: Final = {"schema", "client", "files"}
_EARLIER_FIELDS: Final = {"city", "files"}
"""Of the content of backups of earlier versions."""


class Backup(NamedTuple):
    """The content of a backup."""

    files: Mapping[str, str]
    """Text of each file by its path in the vault; contains keys."""
    has_earlier_reading: bool
    """Whether it was sealed with the passphrase as an earlier version read it."""

    def __repr__(self) -> str:
        """Omits the content."""
        return f"Backup({len(self.files)} files)"


def back_up(vault: Vault, client: str, path: Path, passphrase: str) -> list[str]:
    """Write a backup to a new file (0600). The caller holds the vault's lock.

    An interrupted rotation or retirement does not prevent a backup: what exists is backed up. A
    damaged retired key is backed up unchanged.

    Returns:
        Names of the files in it.

    Raises:
        InputError: The file exists, the passphrase is too simple, or the master key cannot be
            read.
    """
    if os.path.lexists(path):
        raise InputError(f"{path}: exists and is never overwritten; choose another file")
    require_strength(passphrase)
    ClientKey.load(vault.key_path)  # what is worth backing up
    files = dict(_kept_files(vault))
    content = json.dumps({"schema": SCHEMA, "client": client, "files": files}).encode()
    sealed = seal(content, passphrase)
    try:
        _write_new(path, sealed)
    except FileExistsError:
        raise InputError(f"{path}: exists and is never overwritten; choose another file") from None
    return list(files)


def open_backup(path: Path, client: str, passphrase: Passphrase) -> Backup:
    """Read a backup; the vault is not consulted.

    Raises:
        InputError: The file is not a backup of the client's vault, it is damaged, or the passphrase
            is wrong.
    """
    sealed = _read(path)
    for number, text in enumerate((passphrase.text, *passphrase.earlier)):
        try:
            content = unseal(sealed, text)
        except InvalidTag:
            continue
        return Backup(_files_of(content, path, client), number > 0)
    raise InputError(
        f"{path}: wrong passphrase, or a damaged file; check the passphrase, or use another backup"
    )


def restore(vault: Vault, backup: Backup) -> None:
    """Write the files of a backup into a vault that has no key, the master key last.

    The caller holds the vault's lock. Files that an interrupted call left are kept if they are
    identical.

    Raises:
        InputError: The vault has a key, or a different file of the same name.
    """
    if os.path.lexists(vault.key_path):
        raise InputError(
            f"{vault.folder}: already holds a master key, and keys are never overwritten; choose "
            "another --vault"
        )
    if os.path.lexists(vault.folder / DESTROYED_KEY):
        raise InputError(unfinished_retirement(vault.folder))
    for name in sorted(backup.files, key=lambda name: name == KEY_FILE):
        target, content = vault.folder / name, backup.files[name].encode("utf-8", "surrogatepass")
        for closed in reversed(target.relative_to(vault.folder).parents):
            make_private_folder(vault.folder / closed)
        _put(target, content)
    vault.forget_key()


def _write_new(path: Path, sealed: bytes) -> None:
    """Write a new file, whole or not at all.

    Raises:
        FileExistsError: Something has its name.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_in(folder, path.name, sealed, 0o600, exclusive=True)
        os.fsync(folder)
    except PermissionError:
        if os.path.lexists(path):
            raise FileExistsError from None
        write_atomically(path, sealed, mode=0o600)  # FAT on memory sticks has no permissions
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        os.close(folder)


def _put(path: Path, content: bytes) -> None:
    """Write a file of a vault; an existing one is kept if it is identical or may be newer."""
    with Directory.open(path.parent) as folder:
        try:
            folder.write(path.name, content, 0o600, exclusive=True)
        except FileExistsError:
            may_differ = path.name in (HANDED_OVER, FLOOR)  # newer than the backup's
            if not may_differ and folder.read(path.name, MAX_BACKUP_BYTES) != content:
                raise InputError(
                    f"{path}: exists and differs from the backup's, and nothing is overwritten; "
                    "choose another --vault"
                ) from None


def _kept_files(vault: Vault) -> Iterator[tuple[str, str]]:
    """Path and text of each file that a backup holds.

    Raises:
        InputError: One cannot be read.
    """
    places = [(place, KEY_FILE) for place in vault.generations()]
    found = [path / name for path, name in places if (path / name).exists()]
    for place, _ in places:
        found += record_files(place)
    found += [
        path for name in (HANDED_OVER, FLOOR, COHORT_KEY) if (path := vault.folder / name).exists()
    ]
    for path in found:
        name = path.relative_to(vault.folder).as_posix()
        size = kept_size(name)
        if size is None:
            continue
        with Directory.open(path.parent) as folder:
            content = folder.read(path.name, size)
        try:
            yield name, content.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(
                f"{path}: damaged, it is not text; replace it with the one of an earlier backup, "
                "or remove it"
            ) from None


def seal(content: bytes, passphrase: str) -> bytes:
    """Content -> the bytes of a backup file."""
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    about = HEADER + salt
    return about + nonce + _cipher(passphrase, salt).encrypt(nonce, content, about)


def unseal(sealed: bytes, passphrase: str) -> bytes:
    """The bytes of a backup file -> its content.

    Raises:
        InvalidTag: The passphrase is wrong, or the bytes were changed.
    """
    about, rest = sealed[: len(HEADER) + SALT_BYTES], sealed[len(HEADER) + SALT_BYTES :]
    salt = about[len(HEADER) :]
    return _cipher(passphrase, salt).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], about)


def _cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, **SCRYPT).derive(passphrase.encode()))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            sealed = file.read(MAX_BACKUP_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the file that `backup` wrote"
        ) from None
    if len(sealed) > MAX_BACKUP_BYTES:
        raise InputError(
            f"{path}: not a backup of a vault: expected at most {MAX_BACKUP_BYTES} bytes; give the "
            "file that `backup` wrote"
        )
    if not sealed.startswith(HEADER) or len(sealed) < len(HEADER) + SALT_BYTES + NONCE_BYTES:
        raise InputError(
            f"{path}: not a backup of a vault, or made by another version; give the file that "
            "`backup` wrote"
        )
    return sealed


def _files_of(content: bytes, path: Path, client: str) -> Mapping[str, str]:
    """The files in an opened backup; names and sizes are checked.

    Raises:
        InputError: One of them cannot belong to a vault.
    """
    values = parse_json(content, f"content of {path}", MAX_BACKUP_BYTES)
    if not isinstance(values, dict) or values.keys() not in (_FIELDS, _EARLIER_FIELDS):
        raise InputError(f"{path}: not a backup of a vault: expected schema, client and files")
    if (schema := values.get("schema", SCHEMA)) != SCHEMA:
        raise InputError(f"{path}: expected version {SCHEMA}, got version {ascii(schema)[:20]}")
    owner, files = values.get("client", values.get("city")), values["files"]
    if not isinstance(owner, str) or not is_client_name(owner):
        raise InputError(f"{path}: not a backup of a vault: expected the name of a client")
    if owner != client:
        raise InputError(
            f"{path}: is the backup of {owner}, not of {client}; check --client and --from"
        )
    if not isinstance(files, dict):
        raise InputError(f"{path}: not a backup of a vault: expected an object of texts")
    for name, text in files.items():
        size = kept_size(name)
        if size is None:
            raise InputError(
                f"{path}: not a backup of a vault: unexpected file name {ascii(name)[:80]}"
            )
        if not isinstance(text, str) or len(text.encode("utf-8", "surrogatepass")) > size:
            raise InputError(
                f"{path}: not a backup of a vault: expected a text of at most {size} bytes as "
                f"{name}"
            )
    _check_master_key(path, files)
    return files


def _check_master_key(path: Path, files: Mapping[str, str]) -> None:
    if KEY_FILE not in files:
        raise InputError(f"{path}: not a backup of a vault: it has no master key")
    try:
        ClientKey.parse(files[KEY_FILE].encode("utf-8", "surrogatepass"), f"{KEY_FILE} in {path}")
    except InputError:
        raise InputError(f"{path}: the master key in it is damaged; use an older backup") from None
