"""Small files that only an owner writes: read without following, bounded, and of whom.

What such a file says is trusted, so it is asked first who could have written it. A link, a file of
somebody else or one that others may write is refused, as ssh refuses such keys.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from fl_ppseg.system.errors import InputError

_PIECE: Final = 2**20


def read_owned(path: Path, max_bytes: int, what: str) -> str:
    """The text of a file that root, the caller or the owner of its folder wrote.

    Arguments and errors are those of `read_owned_bytes`; text that is no UTF-8 is one more.
    """
    try:
        return read_owned_bytes(path, max_bytes, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def read_owned_bytes(path: Path, max_bytes: int, what: str) -> bytes:
    """The content of a file that root, the caller or the owner of its folder wrote.

    Args:
        path: The file.
        max_bytes: More is refused unread.
        what: What the file is, for messages.

    Raises:
        InputError: It is missing, a link or no file, too large, of another user, or others may
            write it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(
                f"{path}: is a link; a {what} is a file of its own, so put the file itself there"
            ) from None
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        _check(os.fstat(descriptor), path, what)
        content = _read(descriptor, max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise InputError(f"{path}: larger than {max_bytes} bytes, which no {what} is")
    return content


def _read(descriptor: int, num_bytes: int) -> bytes:
    """At most so many bytes; `os.read` takes the memory that it is asked for, whatever is there."""
    content = bytearray()
    while len(content) < num_bytes:
        more = os.read(descriptor, min(_PIECE, num_bytes - len(content)))
        if not more:
            break
        content += more
    return bytes(content)


def _check(found: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is no file")
    if found.st_uid not in {0, os.geteuid(), path.parent.stat().st_uid}:
        raise InputError(
            f"{path}: belongs to user {found.st_uid}, not to root, you or the owner of its folder; "
            "check what it says, then give it to its owner (chown)"
        )
    if (mode := stat.S_IMODE(found.st_mode)) & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"{path}: others may write this {what} (mode {mode:04o}); check what it says, then run "
            "chmod 600 on it"
        )
