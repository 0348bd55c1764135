"""Erases files that contain secrets."""

import os
import stat
from pathlib import Path

from fl_ppseg.system.files import write_all


def erase(path: Path) -> None:
    """Overwrite a file of the vault with zeros, then remove it.

    Of a symbolic link or a hard link only the name is removed.
    """
    found = path.lstat()
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        overwrite(path)
    path.unlink()


def overwrite(path: Path) -> None:
    """Write zeros over a whole file, in place as far as its file system allows."""
    path.chmod(0o600)
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        write_all(descriptor, bytes(os.fstat(descriptor).st_size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
