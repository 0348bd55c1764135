"""Files that are whole or absent: written beside their place, flushed, then renamed.

And folders that are their owner's alone, and work that one process does at a time.
"""

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fl_ppseg.errors import InputError


def write_atomically(
    path: Path, content: bytes | str, mode: int = 0o644, *, lasting: bool = True
) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    Args:
        path: The file; its folder is made where it is missing.
        content: Text is written as UTF-8.
        mode: Permissions, from the first byte on.
        lasting: As in `replacing`.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, lasting=lasting) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


@contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A temporary file that takes the place of `path` at the end, or leaves no trace.

    Args:
        path: The file.
        lasting: Whether no power cut after this takes it back, which costs some milliseconds. A
            power cut never leaves a part of the content, either way.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        if lasting:
            sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # what fails to write names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, mode: int = 0o755) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` at the end, or leaves no trace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def private_folder(path: Path) -> Path:
    """Make a folder that its owner alone may enter (0700); one that is there is tightened.

    Raises:
        InputError: It is open to others and not this user's own, or shared (sticky, as `/tmp` is).
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.stat()
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
            raise InputError(
                f"{path}: others may enter it and it is not yours alone; keys want a folder of "
                "your own, so choose another folder"
            )
        path.chmod(0o700)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; other processes wait for it. It ends with its process, whatever ends that.

    The holder removes the file. Who waited for a removed one holds nothing and begins again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _lies_at(path, descriptor):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def _lies_at(path: Path, descriptor: int) -> bool:
    """Whether a path still names the open file: its holder may remove it at any moment."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Return once a file's content, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Find out whether files can be made in a folder that need not be there yet; leaves no trace.

    Raises:
        InputError: They cannot.
    """
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        with TemporaryDirectory(prefix=".", dir=there):
            return
    except OSError as error:
        raise InputError(
            f"{folder}: nothing can be written there ({error.strerror}); choose another folder"
        ) from None


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_folder(kind: str, variable: str, default: str) -> Path:
    """This program's folder for cached or kept data of the user (XDG base directories).

    Args:
        kind: Folder inside it, e.g. `scenes`.
        variable: Environment variable, `XDG_CACHE_HOME` or `XDG_STATE_HOME`.
        default: Where it lies in the home when the variable is not set.
    """
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "fl_ppseg" / kind


def available_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Progress = Callable[[int, int], None]
"""Called with (done, total) while something long goes on."""
