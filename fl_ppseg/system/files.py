"""Atomic file writes: under a random name, flushed, then renamed.

Also private folders and lock files.
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

from fl_ppseg.system.atomic_file import CREATE, random_name
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.trusted_path import open_folder, user_name


def write_atomically(
    path: Path, content: bytes | str, mode: int = 0o644, *, lasting: bool = True
) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    Args:
        path: The file; its folder is made where it is missing.
        content: Text is written as UTF-8.
        mode: Permissions, from the first byte on; a folder that is made is open to nobody else.
        lasting: As in `replacing`.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    make_folders(path.parent, 0o755 if mode & 0o077 else 0o700)
    with _replacing(path, mode, lasting) as (_, descriptor):
        write_all(descriptor, data)


@contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A temporary file that takes the place of `path` at the end, or leaves no trace.

    Args:
        path: The file.
        lasting: Whether no power cut after this takes it back, which costs some milliseconds. A
            power cut never leaves a part of the content, either way.
    """
    with _replacing(path, 0o644, lasting) as (temporary, _):
        yield temporary


@contextmanager
def _replacing(path: Path, mode: int, lasting: bool) -> Iterator[tuple[Path, int]]:
    """The temporary file and its descriptor: made now, under an unpredictable name."""
    temporary = path.with_name(random_name())
    try:
        descriptor = os.open(temporary, CREATE, mode)
        try:
            yield temporary, descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        if lasting:
            sync(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # what fails to write names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte; a system may take fewer at once."""
    done = 0
    while done < len(content):
        done += os.write(descriptor, content[done:])


@contextmanager
def replacing_folder(path: Path, mode: int = 0o755) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` at the end, or leaves no trace."""
    make_folders(path.parent)
    temporary = path.with_name(random_name())
    temporary.mkdir(mode)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folders(path: Path, mode: int = 0o755) -> Path:
    """Make a folder and those that it lies in, where they are missing.

    `Path.mkdir(parents=True)` gives parents whatever the umask leaves: with 000 everybody may put
    other folders in their place.

    Args:
        path: The folder.
        mode: Permissions of every folder that is made, less the umask.
    """
    missing = []
    for folder in (path, *path.parents):
        if folder.is_dir():
            break
        missing.append(folder)
    for folder in reversed(missing):
        folder.mkdir(mode, exist_ok=True)
    return path


def make_private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter (0700), or restrict an existing one.

    Raises:
        InputError: It is not this user's own, or shared (sticky, as `/tmp` is), or others could put
            another one in its place.
    """
    try:
        try:
            descriptor = open_folder(path)
        except FileNotFoundError:
            descriptor = open_folder(path, make=0o700)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        found = os.fstat(descriptor)
        check_own(path, found)
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            if found.st_mode & stat.S_ISVTX:
                raise InputError(
                    f"{path}: others may enter it and it is not yours alone; keys need a folder of "
                    "your own, so choose another folder"
                )
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return path


def check_own(path: Path, found: os.stat_result) -> None:
    """Check that what was opened at a path belongs to this user alone.

    Args:
        path: Its name.
        found: What `fstat` says of it.

    Raises:
        InputError: It is another user's, who can read and change it.
    """
    if found.st_uid != os.geteuid():
        raise InputError(
            f"{path}: belongs to {user_name(found.st_uid)}, who can read and change it; expected "
            f"one of {user_name(os.geteuid())}; choose another, or work as "
            f"{user_name(found.st_uid)}"
        )


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold a lock file; other processes wait for it. It is released when its process ends.

    The holder removes the file; a process that waited for a removed file tries again.
    """
    make_folders(path.parent)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
    """Check that files can be written to a folder, which need not exist yet; leaves no trace.

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


def vaults_folder() -> Path:
    """Where simulations keep their owners' vaults, unless told otherwise."""
    return user_folder("vaults", "XDG_STATE_HOME", ".local/state").absolute()


def available_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Progress = Callable[[int, int], None]
"""Progress callback: called with (done, total)."""
