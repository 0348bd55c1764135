"""Files of lines that a node's app only appends to: its ledger and its pledges.

A line is on disk before the app does what it says. An incomplete last line belongs to something
that was never done, and is cut off. A missing file is never made anew: whoever could remove it
could otherwise start counting again.
"""

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.policy.node_policy import RefusedError
from fl_ppseg.system.errors import InputError

logger = logging.getLogger(__name__)


def make_journal(path: Path) -> Path:
    """Make an empty file; an existing one is kept. Returns its path."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o600))
    return path


@contextmanager
def open_locked(
    path: Path,
    what: str,
    missing: str,
    lost: str = "missing, so earlier questions are not known; restore it",
) -> Iterator[int]:
    """Open a file and lock it for this process.

    Args:
        path: The file.
        what: What it is, for messages.
        missing: What the coordinator is told if there is none.
        lost: What the node's own log says then.

    Raises:
        RefusedError: There is none.
        InputError: It is not a file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        logger.error("%s: %s", path, lost)
        raise RefusedError(missing) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{path}: not a regular file; restore the {what}")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def read_lines(descriptor: int, path: Path, what: str, max_bytes: int) -> list[bytes]:
    """The lines of an open file; cuts off an incomplete last one.

    Raises:
        InputError: It is too large.
    """
    size = os.fstat(descriptor).st_size
    if size > max_bytes:
        raise InputError(
            f"{path}: larger than {max_bytes} bytes; inspect what was asked, then move it away and "
            f"start a new {what}"
        )
    content = os.pread(descriptor, size, 0)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        logger.warning("%s: the last line is incomplete, and is cut off", path)
        os.ftruncate(descriptor, whole)
    return content[:whole].split(b"\n")[:-1]


def append(descriptor: int, line: str, path: Path) -> None:
    """Append a line; it is on disk before this returns, or not written if the disk is full."""
    size = os.fstat(descriptor).st_size
    rest = memoryview(line.encode() + b"\n")
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, size)
        error.filename = str(path)
        raise
