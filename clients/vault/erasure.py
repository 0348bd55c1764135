"""The end of a file with secrets in it."""

import os
import stat
from pathlib import Path

from fl_ppseg.files import write_all


def erase(path: Path) -> None:
    """Overwrite a file of the vault with zeros, then remove it; a link goes, not its target."""
    if stat.S_ISREG(path.lstat().st_mode):
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
