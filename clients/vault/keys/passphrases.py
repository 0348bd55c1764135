"""Passphrases: read exactly, compared as people type them, and not too easy to guess.

A passphrase is mapped as RFC 8265 (OpaqueString) has it: spaces of other scripts become U+0020, the
rest is in Unicode's form NFC. So `ü` typed on a Mac (NFD) and on Linux (NFC) is one passphrase.
Unlike there control characters count like others, since a file may hold whatever a program drew.

A file is read exactly, but for one newline at its end and a byte order mark at its beginning, which
no keyboard types and which is said. What earlier versions made of a file (they took its first
line, ended it at U+000B, U+2028 and others too, and mapped nothing) still opens their backups.
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
"""Different characters, blanks aside."""
MIN_STEPS: Final = 4
"""Different distances from a character to the next: 1 in `aaaa` and `abcd`, 2 in `abababab`."""
MAX_BYTES: Final = 2**16


class Passphrase(NamedTuple):
    """What a person or a file gave."""

    text: str
    """As it seals and opens backups."""
    earlier: tuple[str, ...]
    """What earlier versions would have made of it, where that differs."""
    remark: str | None = None
    """What was taken away from a file, for a person."""

    def __repr__(self) -> str:
        """Nothing of it."""
        return "Passphrase(...)"


def mapped(text: str) -> str:
    """A passphrase as OpaqueString maps it.

    Raises:
        InputError: It is no text, but has bytes that no character has.
    """
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        raise InputError("the passphrase holds bytes that are no UTF-8; type it again, as text")
    spaced = "".join(" " if unicodedata.category(each) == "Zs" else each for each in text)
    return unicodedata.normalize("NFC", spaced)


def require_strength(text: str) -> None:
    """Find out whether a passphrase is worth guarding every key; text as `mapped`.

    Raises:
        InputError: It is short, or simple enough to be among the first that anybody tries.
    """
    if len(text) < MIN_CHARACTERS:
        raise InputError(
            f"a passphrase of {len(text)} characters; it guards every key, so give at least "
            f"{MIN_CHARACTERS}"
        )
    different = {each for each in text if not each.isspace()}
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    if len(different) < MIN_DIFFERENT or len(steps) < MIN_STEPS:
        raise InputError(
            f"a passphrase of {len(different)} different characters in a simple order; it guards "
            "every key, so give several words, or draw one: openssl rand -base64 24"
        )


def ask_passphrase(*, twice: bool) -> Passphrase:
    """Ask for a passphrase on the terminal.

    Raises:
        InputError: There is no terminal, or the two differ.
    """
    try:
        given = getpass.getpass("Passphrase: ")
        if twice and mapped(getpass.getpass("Once more: ")) != mapped(given):
            raise InputError("the two passphrases differ; begin again")
    except EOFError:
        raise InputError("no terminal to ask for a passphrase; give --passphrase-file") from None
    return _passphrase(given, (given,), None)


def read_passphrase(path: Path, *, seals: bool) -> Passphrase:
    """Read a passphrase from a file that is its owner's alone.

    Args:
        path: The file.
        seals: Whether a backup is to be sealed with it. To open one, a file of several lines will
            do, whose first line earlier versions took.

    Raises:
        InputError: The file is missing, another user's, open to others, too large, no UTF-8 text,
            empty, or of several lines.
    """
    text = _text_of(path)
    earlier = (text.splitlines() or [""])[0]
    remark = None
    if text.startswith("\ufeff"):
        text = text.removeprefix("\ufeff")
        remark = f"{path}: the byte order mark (U+FEFF) at its beginning does not count"
    line = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not line:
        raise InputError(f"{path}: holds no passphrase; expected one line of text")
    if seals and ("\n" in line or "\r" in line):
        raise InputError(
            f"{path}: holds several lines; expected a passphrase in one line and nothing else, so "
            "put what else is there into another file"
        )
    return _passphrase(line, (earlier, line), remark)


def _passphrase(given: str, earlier: tuple[str, ...], remark: str | None) -> Passphrase:
    text = mapped(given)
    others = dict.fromkeys(each for each in earlier if each not in ("", text))
    return Passphrase(text, tuple(others), remark)


def _text_of(path: Path) -> str:
    content = _content_of(path)
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: more than {MAX_BYTES} bytes; expected a passphrase in one line")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise InputError(f"{path}: is no UTF-8 text, UTF-16 perhaps; save it as UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no UTF-8 text; save it as UTF-8") from None


def _content_of(path: Path) -> bytes:
    """The first bytes of a file, or of a pipe, that is this user's alone."""
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
            f"{path}: cannot be read ({error.strerror}); name the file of the passphrase"
        ) from None
