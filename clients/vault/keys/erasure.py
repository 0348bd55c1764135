"""The end of a file with secrets in it."""

import os
import stat
from pathlib import Path

from fl_ppseg.system.files import write_all


def erase(path: Path) -> None:
    """Overwrite a file of the vault with zeros, then remove it.

    Of a symbolic link, or a second name of a file that has its own place, the name alone goes.
    """
    found = path.lstat()
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        overwrite(path)
    path.unlink()


def overwrite(path: Path) -> None:
    """Write zeros over all of a file, in its place on the disk as far as its system does that."""
    path.chmod(0o600)
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        write_all(descriptor, bytes(os.fstat(descriptor).st_size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
