"""One file with all keys and salts of a vault, sealed with a passphrase.

    file    = "fl_ppseg/v1/vault-backup\\n" + salt (16 bytes) + nonce (12) + sealed
    sealed  = ChaCha20-Poly1305 (RFC 8439) of the content under
              scrypt (RFC 7914) of the passphrase with the salt, N = 2^17, r = 8, p = 1, 32 bytes;
              header and salt are authenticated with it
    content = JSON {"city": ..., "files": {path in the vault: text}}

Whoever has file and passphrase has every key: the passphrase is as good as the vault.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from clients.vault.keyring import KEY_FILE, Vault
from fl_ppseg.errors import InputError
from fl_ppseg.files import private_folder, write_atomically

HEADER: Final = b"fl_ppseg/v1/vault-backup\n"
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
SCRYPT: Final = {"n": 2**17, "r": 8, "p": 1}
"""128 MB and some tenths of a second for each guess at a passphrase."""
MIN_PASSPHRASE: Final = 12
"""Characters."""


def back_up(vault: Vault, city: str, path: Path, passphrase: str) -> int:
    """Write a backup to a new file (0600).

    Returns:
        Number of files in it.

    Raises:
        InputError: The file is there already, or the passphrase is too short.
    """
    if path.exists():
        raise InputError(f"{path}: exists and is never overwritten; choose another file")
    if len(passphrase) < MIN_PASSPHRASE:
        raise InputError(
            f"a passphrase of {len(passphrase)} characters; it guards every key, so give at least "
            f"{MIN_PASSPHRASE}"
        )
    files = {
        file.relative_to(vault.folder).as_posix(): file.read_text("utf-8")
        for place in vault.generations()
        for file in (place / KEY_FILE, *sorted(place.glob("manifests/*.json")))
    }
    content = json.dumps({"city": city, "files": files}).encode()
    write_atomically(path, seal(content, passphrase), mode=0o600)
    return len(files)


def restore(folder: Path, city: str, path: Path, passphrase: str) -> int:
    """Put the files of a backup into a vault that has no key; the master key comes last.

    Returns:
        Number of files.

    Raises:
        InputError: The vault has a key, the file is no backup of the city's, it is damaged, or the
            passphrase is another.
    """
    if (folder / KEY_FILE).exists():
        raise InputError(
            f"{folder}: holds a master key, and keys are never overwritten; choose another --vault"
        )
    files = _files_of(_read(path), passphrase, path, city)
    vault = private_folder(folder)
    for name in sorted(files, key=lambda name: name == KEY_FILE):
        target = vault / name
        for closed in reversed(target.relative_to(vault).parents):
            private_folder(vault / closed)
        write_atomically(target, files[name], mode=0o600)
    return len(files)


def seal(content: bytes, passphrase: str) -> bytes:
    """Content -> the bytes of a backup file."""
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    about = HEADER + salt
    return about + nonce + _cipher(passphrase, salt).encrypt(nonce, content, about)


def unseal(sealed: bytes, passphrase: str) -> bytes:
    """The bytes of a backup file -> its content.

    Raises:
        InvalidTag: The passphrase is another, or the bytes were changed.
    """
    about, rest = sealed[: len(HEADER) + SALT_BYTES], sealed[len(HEADER) + SALT_BYTES :]
    salt = about[len(HEADER) :]
    return _cipher(passphrase, salt).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], about)


def _cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, **SCRYPT).derive(passphrase.encode()))


def _read(path: Path) -> bytes:
    try:
        sealed = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name the backup") from None
    if not sealed.startswith(HEADER) or len(sealed) < len(HEADER) + SALT_BYTES + NONCE_BYTES:
        raise InputError(f"{path}: no backup of a vault, or of another version")
    return sealed


def _files_of(sealed: bytes, passphrase: str, path: Path, city: str) -> Mapping[str, str]:
    try:
        content = json.loads(unseal(sealed, passphrase))
    except InvalidTag:
        raise InputError(f"{path}: wrong passphrase, or a damaged file") from None
    if content["city"] != city:
        raise InputError(f"{path}: is the backup of {content['city']}, not of {city}")
    files: Mapping[str, str] = content["files"]
    for name in files:
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts:
            raise InputError(f"{path}: names a file outside the vault; it is no backup of ours")
    return files
