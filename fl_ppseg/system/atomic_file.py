"""Atomic file writes in a folder that is given by its descriptor."""

import errno
import os
import secrets
import shutil
from contextlib import suppress
from typing import BinaryIO, Final

from fl_ppseg.system.errors import InputError

OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC
CREATE: Final = OPEN | os.O_WRONLY | os.O_CREAT | os.O_EXCL
NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system says that has no hard links."""


def write_in(
    folder: int,
    name: str,
    content: bytes,
    mode: int,
    *,
    group: int | None = None,
    exclusive: bool = False,
) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    Args:
        folder: Descriptor of its folder.
        name: Of the file in it.
        content: What is to be in it.
        mode: Permissions from the first byte on, whatever the umask.
        group: Id of its group.
        exclusive: Never replace what has this name; where the system can, the content then has no
            other name either at any moment, so that a kill leaves nothing.

    Raises:
        FileExistsError: Something has this name, and it was to be exclusive.
        OSError: It cannot be written.
    """
    temporary, descriptor = _created(folder, exclusive)
    try:
        with os.fdopen(descriptor, "wb") as file:
            give(descriptor, mode, group)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            _place(folder, temporary, descriptor, name, exclusive)
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def copy_in(source: BinaryIO, folder: int, name: str, mode: int, group: int) -> None:
    """Copy an open file into a folder where nothing has its name; it is on disk then."""
    descriptor = os.open(name, CREATE, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        give(descriptor, mode, group)
        shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(descriptor)


def plain_name(name: str) -> str:
    """A name that leads into no other folder, as it is.

    Raises:
        InputError: It is none.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputError(f"{name!r}: expected the plain name of a file or folder")
    return name


def random_name() -> str:
    """A name for something that is not whole yet; nobody can have put anything there."""
    return f".{secrets.token_hex(16)}.tmp"


def give(descriptor: int, mode: int, group: int | None = None) -> None:
    """Set a file's group, then its permissions, so that no other group ever has them."""
    if group is not None:
        os.fchown(descriptor, -1, group)
    os.fchmod(descriptor, mode)


def _created(folder: int, exclusive: bool) -> tuple[str | None, int]:
    """A new file, without a name where that is possible and asked for, else with a random one."""
    if exclusive and hasattr(os, "O_TMPFILE"):
        with suppress(OSError):
            flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
            return None, os.open(".", flags, 0o600, dir_fd=folder)
    name = random_name()
    return name, os.open(name, CREATE, 0o600, dir_fd=folder)


def _place(folder: int, temporary: str | None, descriptor: int, name: str, exclusive: bool) -> None:
    """Give a written file its name."""
    if temporary is None:
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)
        return
    if exclusive:
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            return
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        if name in os.listdir(folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
