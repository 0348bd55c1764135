"""The way to a folder, walked by descriptor: only root and the caller can redirect it.

Every folder on the way has to belong to root or the caller, and no other user may write in it (the
sticky bit, as on `/tmp`, does: others can add names there, but neither replace nor remove ours). A
link is followed where it belongs to root or the caller and lies in such a folder. OpenSSH's
StrictModes and systemd's CHASE_SAFE ask for the same.
"""

import errno
import grp
import os
import pwd
import stat
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Final

from fl_ppseg.system.errors import InputError

MAX_LINKS: Final = 40
"""On the way to one folder, as Linux has it."""

WAY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""A folder on the way may be closed to readers (0711)."""


def open_folder(path: Path, *, owners: Collection[int] = (), make: int | None = None) -> int:
    """Open a folder for reading; see the module's docstring.

    Args:
        path: Relative ones begin at the current folder.
        owners: Ids of further users who are trusted as root and the caller are.
        make: Permissions of the folder where it is missing, whatever the umask; folders on the way
            get 0755 less the umask. None: nothing is made.

    Returns:
        Its descriptor, which the caller closes.

    Raises:
        InputError: Another user could replace it, or something on the way to it.
        OSError: It is missing, or not a folder.
    """
    trusted = trusted_users(owners)
    todo = deque(str(Path.cwd() / path).split("/"))
    where, num_links = "/", 0
    descriptor = os.open("/", WAY)
    try:
        check_folder(os.fstat(descriptor), where, trusted)
        while todo:
            name = todo.popleft()
            if name in ("", "."):
                continue
            place = str(Path(where).parent if name == ".." else Path(where) / name)
            link = _link(descriptor, name, place, trusted)
            if link is not None:
                num_links += 1
                if num_links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                todo.extendleft(reversed(link.split("/")))
                where, place = ("/", "/") if link.startswith("/") else (where, where)
                name = place if link.startswith("/") else "."
            else:
                last = not any(left not in ("", ".") for left in todo)
                _make_missing(descriptor, name, place, make, last)
            descriptor = _step(descriptor, name, place)
            check_folder(os.fstat(descriptor), place, trusted)
            where = place
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError as error:
        error.filename = str(path) if error.filename == "." else error.filename
        raise
    finally:
        os.close(descriptor)


def trusted_users(owners: Collection[int] = ()) -> frozenset[int]:
    """Ids of root, the caller, who owns `/` (root as a user namespace shows it), and others."""
    return frozenset({0, os.geteuid(), Path("/").stat().st_uid, *owners})


def check_folder(found: os.stat_result, place: str, trusted: Collection[int]) -> None:
    """Check that only trusted users can replace what lies in a folder.

    Raises:
        InputError: Others can.
    """
    if found.st_uid not in trusted:
        raise InputError(
            f"{place}: belongs to {user_name(found.st_uid)}, who could replace what lies in it; "
            f"expected a folder of {user_name(os.geteuid())} or root; use another folder, or work "
            f"as {user_name(found.st_uid)}"
        )
    if found.st_mode & stat.S_ISVTX:
        return
    if found.st_mode & stat.S_IWOTH:
        who = "anybody"
    elif found.st_mode & stat.S_IWGRP and not is_private_group(found.st_gid, trusted):
        who = f"the group {group_name(found.st_gid)}"
    else:
        return
    raise InputError(
        f"{place}: {who} may write there (mode {stat.S_IMODE(found.st_mode):04o}) and could "
        f"replace what lies in it; use another folder, or take that away: chmod go-w {place}"
    )


def check_file(found: os.stat_result, place: str, trusted: Collection[int]) -> None:
    """Check that only trusted users can have written a file.

    Raises:
        InputError: Others can.
    """
    if found.st_uid not in trusted:
        raise InputError(
            f"{place}: belongs to {user_name(found.st_uid)}; expected a file of "
            f"{user_name(os.geteuid())} or root; it is not what you wrote"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"{place}: others may write it (mode {stat.S_IMODE(found.st_mode):04o}); expected a "
            f"file of your own: chmod go-w {place}, after you have looked at what is in it"
        )


def is_private_group(group: int, trusted: Collection[int]) -> bool:
    """Whether a group has no members but trusted users: their private groups, mostly."""
    try:
        members = grp.getgrgid(group).gr_mem
    except KeyError:  # no such group is known here, as in containers
        return group in trusted
    if {_user_id(name) for name in members} - set(trusted):
        return False
    return all(user.pw_uid in trusted for user in pwd.getpwall() if user.pw_gid == group)


def user_name(number: int) -> str:
    """Name of a user for a message, or his number where he has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def group_name(number: int) -> str:
    """Name of a group for a message, or its number where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user_id(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1


def _link(folder: int, name: str, place: str, trusted: Collection[int]) -> str | None:
    """What a link says; None where there is none.

    Raises:
        InputError: It belongs to another user.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(found.st_mode):
        return None
    if found.st_uid not in trusted:
        raise InputError(
            f"{place}: is a link of {user_name(found.st_uid)}, who may have it lead anywhere; "
            "expected the folder itself; remove the link, or name the folder that you mean"
        )
    return os.readlink(name, dir_fd=folder)


def _make_missing(folder: int, name: str, place: str, make: int | None, last: bool) -> None:
    """Make a missing folder, if that is asked for."""
    if make is None:
        return
    try:
        os.mkdir(name, 0o700 if last else 0o755, dir_fd=folder)
    except FileExistsError:
        return
    except OSError as error:
        error.filename = place
        raise
    if last:
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            os.fchmod(made, make)
        finally:
            os.close(made)


def _step(folder: int, name: str, place: str) -> int:
    """Descriptor of a folder in a folder, whose own is closed."""
    try:
        found = os.open(name, WAY, dir_fd=folder)
    except OSError as error:
        error.filename = place
        raise
    os.close(folder)
    return found
