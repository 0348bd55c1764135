"""Users of this machine: as whom a program runs, and with which privileges."""

import ctypes
import os
import pwd
import re
import resource
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

from fl_ppseg.system.errors import InputError

USER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}\$?")
"""Valid user names, as for useradd."""
CAP_KILL, CAP_SETGID, CAP_SETUID = 5, 6, 7
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPSET, CAPABILITIES_VERSION = {"x86_64": 126, "aarch64": 91}, 0x20080522


class Account(NamedTuple):
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def account(name: str) -> Account:
    """A user by name.

    Raises:
        InputError: The user does not exist.
    """
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise InputError(
            f"user {name!r} does not exist on this machine; add it, e.g. useradd --system {name}"
        ) from None
    return Account(name, found.pw_uid, found.pw_gid)


def as_user(user: Account | None, work: Callable[[], None]) -> None:
    """Run a function as another user, in a separate process; None: as this user, in this process.

    Args:
        user: The user; only root may name another.
        work: The function; its result is not passed back.

    Raises:
        InputError: As `work` raises it.
        OSError: The process failed in another way.
    """
    if user is None:
        work()
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_done_as(user, work, writing))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            said = pipe.read(2**16).decode("utf-8", "replace")
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said:
        raise InputError(said)
    if status:
        raise OSError(f"a process of {user.name} ended with status {status}")


def _done_as(user: Account, work: Callable[[], None], pipe: int) -> int:
    try:
        end_with_parent()
        drop_privileges(user)
        work()
        return 0
    except InputError as error:
        os.write(pipe, str(error).encode("utf-8"))
        return 2
    except KeyboardInterrupt:
        return 1
    except BaseException as error:
        os.write(pipe, f"{type(error).__name__}: {error}".encode())
        return 1


def drop_privileges(user: Account) -> None:
    """Become another user permanently."""
    os.initgroups(user.name, user.gid)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    restrict_process()


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, however that ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def restrict_process() -> None:
    """Disable core files, which may hold keys, and privileges by set-user-id programs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def drop_root_capabilities() -> None:
    """As root, drop all capabilities but those to start and stop programs as another user.

    The process then has no more access to files than any other user. If the system does not support
    it, nothing changes.
    """
    number = CAPSET.get(os.uname().machine)
    if os.geteuid() != 0 or sys.platform != "linux" or number is None:
        return
    kept = 1 << CAP_KILL | 1 << CAP_SETGID | 1 << CAP_SETUID
    for capability in range(64):
        if not kept >> capability & 1:
            _prctl(PR_CAPBSET_DROP, capability)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; twice
    ctypes.CDLL(None, use_errno=True).syscall(number, ctypes.byref(header), ctypes.byref(sets))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
