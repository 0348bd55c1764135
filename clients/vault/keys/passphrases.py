"""Passphrases: how they are read, normalised, and checked for strength.

A passphrase is mapped as in RFC 8265 (OpaqueString): spaces of other scripts become U+0020, and the
text is normalised to Unicode NFC. So `ü` typed on a Mac (NFD) and on Linux (NFC) gives one
passphrase. Unlike in the RFC, control characters are allowed, since a file may hold random bytes.

A file is read exactly, except for one newline at its end and a byte order mark at its start, which
is ignored with a remark. Earlier versions took only the first line, ended it also at U+000B, U+2028
and others, and mapped nothing; backups that they sealed still open.
"""

import codecs
import getpass
import os
import stat
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import check_own

MIN_CHARACTERS: Final = 12
MIN_DIFFERENT: Final = 6
"""Distinct characters, not counting white space."""
MIN_STEPS: Final = 4
"""Distinct distances between neighbouring characters: 1 in `aaaa` and `abcd`, 2 in `abababab`."""
MAX_BYTES: Final = 2**16


class Passphrase(NamedTuple):
    """A passphrase that was typed or read from a file."""

    text: str
    """The text that seals and opens backups."""
    earlier: tuple[str, ...]
    """How earlier versions would have read it, where that differs."""
    remark: str | None = None
    """What was ignored in a file, as a message to the user."""

    def __repr__(self) -> str:
        """Omits the text."""
        return "Passphrase(...)"


def mapped(text: str) -> str:
    """A passphrase as OpaqueString maps it.

    Raises:
        InputError: It holds bytes that are not UTF-8.
    """
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        raise InputError("the passphrase holds bytes that are not UTF-8; type it again as text")
    spaced = "".join(" " if unicodedata.category(each) == "Zs" else each for each in text)
    return unicodedata.normalize("NFC", spaced)


def require_strength(text: str) -> None:
    """Check that a passphrase is strong enough to protect every key; text as `mapped`.

    Raises:
        InputError: It is too short, or simple enough to be guessed early.
    """
    if len(text) < MIN_CHARACTERS:
        raise InputError(
            f"passphrase too short: expected at least {MIN_CHARACTERS} characters, got "
            f"{len(text)}; it protects every key, so choose a longer one"
        )
    different = {each for each in text if not each.isspace()}
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    if len(different) < MIN_DIFFERENT or len(steps) < MIN_STEPS:
        raise InputError(
            f"passphrase too simple: {len(different)} different characters in a simple order; it "
            "protects every key, so use several words, or generate one: openssl rand -base64 24"
        )


def ask_passphrase(*, twice: bool) -> Passphrase:
    """Ask for a passphrase on the terminal.

    Raises:
        InputError: There is no terminal, or the two differ.
    """
    try:
        given = getpass.getpass("Passphrase: ")
        if twice and mapped(getpass.getpass("Once more: ")) != mapped(given):
            raise InputError("the two passphrases differ; run the command again")
    except EOFError:
        raise InputError("no terminal to ask for a passphrase; give --passphrase-file") from None
    return _passphrase(given, (given,), None)


def read_passphrase(path: Path, *, seals: bool) -> Passphrase:
    """Read a passphrase from a file that only its owner can read.

    Args:
        path: The file.
        seals: Whether it is going to seal a backup. To open one, a file of several lines is
            accepted, since earlier versions took its first line.

    Raises:
        InputError: The file is missing, another user's, open to others, too large, not UTF-8 text,
            empty, or has several lines.
    """
    text = _text_of(path)
    earlier = (text.splitlines() or [""])[0]
    remark = None
    if text.startswith("\ufeff"):
        text = text.removeprefix("\ufeff")
        remark = f"{path}: the byte order mark (U+FEFF) at its start is ignored"
    line = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not line:
        raise InputError(f"{path}: no passphrase in it; expected one line of text")
    if seals and ("\n" in line or "\r" in line):
        raise InputError(
            f"{path}: several lines; expected one line with the passphrase and nothing else; move "
            "everything else to another file"
        )
    return _passphrase(line, (earlier, line), remark)


def _passphrase(given: str, earlier: tuple[str, ...], remark: str | None) -> Passphrase:
    text = mapped(given)
    others = dict.fromkeys(each for each in earlier if each not in ("", text))
    return Passphrase(text, tuple(others), remark)


def _text_of(path: Path) -> str:
    content = _content_of(path)
    if len(content) > MAX_BYTES:
        raise InputError(
            f"{path}: larger than {MAX_BYTES} bytes; expected one line with the passphrase"
        )
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise InputError(f"{path}: not UTF-8 text, possibly UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def _content_of(path: Path) -> bytes:
    """The first bytes of a file or pipe that only this user can read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            check_own(path, found)
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise InputError(f"{path}: open to others; run chmod 600 on it")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give the file that holds the passphrase"
        ) from None
