"""Reads small files that only an owner writes: no links, bounded size, checked owner.

The content of such a file is trusted, so it is first checked who could have written it. A link, a
file of somebody else or one that others may write is refused, as ssh refuses such keys.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from fl_ppseg.system.errors import InputError

_PIECE: Final = 2**20


def read_owned(path: Path, max_bytes: int, what: str) -> str:
    """Read the text of a file that root, the caller or the owner of its folder wrote.

    Arguments and errors as in `read_owned_bytes`; text that is not UTF-8 is refused too.
    """
    try:
        return read_owned_bytes(path, max_bytes, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read ({error}); save it as UTF-8") from None


def read_owned_bytes(path: Path, max_bytes: int, what: str) -> bytes:
    """Read the content of a file that root, the caller or the owner of its folder wrote.

    Args:
        path: The file.
        max_bytes: A larger file is refused.
        what: What the file is, for messages.

    Raises:
        InputError: It is missing, a link, not a regular file, too large, of another user, or others
            may write it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(
                f"{path}: is a link; expected a regular file, so put the {what} itself there"
            ) from None
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        _check(os.fstat(descriptor), path, what)
        content = _read(descriptor, max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise InputError(f"{path}: larger than {max_bytes} bytes, so not a {what}; check the path")
    return content


def _read(descriptor: int, num_bytes: int) -> bytes:
    """Read at most so many bytes in pieces, since `os.read` allocates all it is asked for."""
    content = bytearray()
    while len(content) < num_bytes:
        more = os.read(descriptor, min(_PIECE, num_bytes - len(content)))
        if not more:
            break
        content += more
    return bytes(content)


def _check(found: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: not a regular file; put the {what} itself there")
    if found.st_uid not in {0, os.geteuid(), path.parent.stat().st_uid}:
        raise InputError(
            f"{path}: belongs to user {found.st_uid}, not to root, you or the owner of its folder; "
            "check its content, then give it to its owner (chown)"
        )
    if (mode := stat.S_IMODE(found.st_mode)) & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"{path}: others may write this {what} (mode {mode:04o}); check its content, then run "
            "chmod 600 on it"
        )
