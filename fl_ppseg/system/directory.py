"""A folder held by its descriptor: what is done in it is done there, whatever becomes of its name.

Names in it are single ones, and no link is ever followed. What is written gets its permissions
before its first byte, whatever the umask, and its name when it is whole and on disk.
"""

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from fl_ppseg.system.atomic_file import OPEN, copy_in, plain_name, random_name, write_in
from fl_ppseg.system.directory_entry import Entry, kind_of
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.trusted_path import (
    check_file,
    check_folder,
    open_folder,
    trusted_users,
    user_name,
)


class Directory:
    """An open folder, usable with `with`; see the module's docstring."""

    def __init__(self, descriptor: int, path: Path, trusted: Collection[int]) -> None:
        self.descriptor = descriptor
        self.path = path
        """Its name when it was opened, for messages."""
        self._trusted = trusted

    @classmethod
    def open(cls, path: Path, *, owners: Collection[int] = (), make: int | None = None) -> Self:
        """Open a folder, if only root and the caller could have replaced it.

        Args:
            path: The folder.
            owners: Ids of further users who are trusted.
            make: Permissions of the folder where it is missing; None: it is not made.

        Raises:
            InputError: Another user could replace it, or something on the way to it.
            OSError: It is missing, or not a folder.
        """
        return cls(open_folder(path, owners=owners, make=make), path, trusted_users(owners))

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def child(self, name: str) -> Self:
        """Open a folder in this one.

        Raises:
            InputError: It is a link, belongs to another user, or others may write to it.
            OSError: It is missing, or not a folder.
        """
        self._refuse_link(name)
        with self._named(name):
            descriptor = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=self.descriptor)
        try:
            check_folder(os.fstat(descriptor), str(self.path / name), self._trusted)
        except InputError:
            os.close(descriptor)
            raise
        return type(self)(descriptor, self.path / name, self._trusted)

    def make_child(self, name: str, mode: int = 0o700, *, group: int | None = None) -> Self:
        """Make a folder in this one and open it; one that is there keeps its permissions.

        Args:
            name: Of the folder.
            mode: Permissions, whatever the umask.
            group: Id of its group.

        Raises:
            InputError: As `child`.
            OSError: It cannot be made.
        """
        with self._named(name):
            try:
                os.mkdir(plain_name(name), 0o700, dir_fd=self.descriptor)
            except FileExistsError:
                return self.child(name)
        made = self.child(name)
        try:
            made.chown(group=-1 if group is None else group, mode=mode)
        except BaseException:
            made.close()
            raise
        return made

    def entries(self) -> list[Entry]:
        """What lies in the folder, by name."""
        with os.scandir(self.descriptor) as found_here:
            names = sorted(entry.name for entry in found_here)
        return [found for name in names if (found := self.find(name))]

    def find(self, name: str) -> Entry | None:
        """What has a name; None where nothing has."""
        try:
            status = os.stat(plain_name(name), dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return Entry(name, kind_of(status.st_mode), status)

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """A file of this folder, open for reading.

        Raises:
            InputError: It is a link, or not a file.
            OSError: It is missing, or cannot be read.
        """
        self._refuse_link(name)
        with self._named(name):  # a pipe would wait for its writer indefinitely
            descriptor = os.open(name, OPEN | os.O_NONBLOCK, dir_fd=self.descriptor)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{self.path / name}: expected a file, got something else")
            yield file

    def read(self, name: str, max_bytes: int, *, own: bool = False) -> bytes:
        """Content of a file.

        Args:
            name: Of the file.
            max_bytes: What it has at most.
            own: Refuse a file that does not belong to root or the caller, or that others may
                write.

        Raises:
            InputError: It is larger, a link or not a file, or refused.
            OSError: It is missing, or cannot be read.
        """
        with self.reading(name) as file:
            if own:
                check_file(os.fstat(file.fileno()), str(self.path / name), self._trusted)
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise InputError(
                f"{self.path / name}: expected at most {max_bytes} bytes, got more; it is damaged "
                "or not a file of this program"
            )
        return content

    def write(
        self,
        name: str,
        content: bytes | str,
        mode: int = 0o600,
        *,
        group: int | None = None,
        exclusive: bool = False,
        lasting: bool = True,
    ) -> None:
        """Write a file so that a reader sees the old or the new content, never a part.

        Args:
            name: Of the file.
            content: Text is written as UTF-8.
            mode: Permissions from the first byte on, whatever the umask.
            group: Id of its group.
            exclusive: Never replace what has this name; where the system can, the content then has
                no other name either at any moment, so that a kill leaves nothing.
            lasting: Whether no power cut after this takes it back.

        Raises:
            FileExistsError: Something has this name, and it was to be exclusive.
            OSError: It cannot be written.
        """
        data = content.encode("utf-8") if isinstance(content, str) else content
        with self._named(plain_name(name)):
            write_in(self.descriptor, name, data, mode, group=group, exclusive=exclusive)
            if lasting:
                self.sync()

    def remove(self, name: str) -> None:
        """Remove a file or a link, itself and not what it points to."""
        with self._named(name):
            os.unlink(plain_name(name), dir_fd=self.descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a folder of this one and all that is in it; links in it go, not their targets.

        Raises:
            InputError: It is a link.
            OSError: It is missing, or cannot be removed.
        """
        self._refuse_link(name)
        with self._named(name):
            shutil.rmtree(name, dir_fd=self.descriptor)

    def move_in(self, source: "Directory", name: str) -> None:
        """Take a folder over from another one, under its name, which must be free here.

        From another file system it is copied, and appears when it is whole.

        Raises:
            FileExistsError: Something has this name here.
            InputError: There is a link in it, or something that is neither folder nor file.
            OSError: It cannot be moved.
        """
        if self.find(name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path / name))
        try:
            os.rename(name, name, src_dir_fd=source.descriptor, dst_dir_fd=self.descriptor)
        except OSError as error:
            if error.errno != errno.EXDEV:
                error.filename = str(self.path / name)
                raise
            self._copy_in(source, name)
        self.sync()

    def chown(self, user: int = -1, group: int = -1, *, mode: int | None = None) -> None:
        """Give the folder itself away, and set its permissions after; nothing in it changes.

        Args:
            user: Id of its new owner; -1: as it is.
            group: Id of its new group; -1: as it is.
            mode: Permissions, whatever the umask.
        """
        with self._named(""):
            os.fchown(self.descriptor, user, group)
            if mode is not None:
                os.fchmod(self.descriptor, mode)

    def sync(self) -> None:
        """Return once the names in the folder are on disk."""
        os.fsync(self.descriptor)

    def _copy_in(self, source: "Directory", name: str) -> None:
        temporary = random_name()
        try:
            with source.child(name) as old, self.make_child(temporary) as new:
                _copy(old, new)
            os.rename(temporary, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True, dir_fd=self.descriptor)
            raise
        source.remove_tree(name)

    def _refuse_link(self, name: str) -> None:
        found = self.find(name)
        if found is not None and found.kind == "link":
            raise InputError(
                f"{self.path / name}: is a link (of {user_name(found.status.st_uid)}), and none is "
                "followed here; remove it"
            )

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Errors of the system name the file by its whole path."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.path / name)
            error.filename2 = None
            raise


def _copy(source: Directory, target: Directory) -> None:
    """Copy what lies in a folder, with groups and permissions."""
    for entry in source.entries():
        mode, group = stat.S_IMODE(entry.status.st_mode), entry.status.st_gid
        if entry.kind == "folder":
            with source.child(entry.name) as old, target.make_child(entry.name) as new:
                _copy(old, new)
        elif entry.kind == "file":
            with source.reading(entry.name) as file:
                copy_in(file, target.descriptor, entry.name, mode, group)
        else:
            raise InputError(f"{source.path / entry.name}: expected only files and folders")
    status = os.fstat(source.descriptor)
    target.chown(group=status.st_gid, mode=stat.S_IMODE(status.st_mode))
    target.sync()
