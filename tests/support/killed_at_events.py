"""Ends a process at its n-th file event, for every n; or lets the disk be full there."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

EVENTS = {
    "open", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "fcntl.flock", "os.symlink",
}  # fmt: skip
"""Audit events of Python before a change to files; `os.write` and `os.fsync` have none."""


class Events:
    """Counts what a process is about to do to files."""

    def __init__(self, wanted: int, strike: Callable[[], None]) -> None:
        self.left, self._strike = wanted, strike

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: counts events of `EVENTS`, reading aside."""
        if event in EVENTS and not (event == "open" and not _writes(arguments)):
            self.count()

    def count(self) -> None:
        """One more event; strikes at the wanted one."""
        self.left -= 1
        if self.left == 0:
            self._strike()


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do some work in a child process that kill -9 ends at an event, half of a write done.

    Returns:
        Whether it came to that; else the work was done before.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _watch(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
            work()
            status = 0
        finally:
            os._exit(status)
    _, found = os.waitpid(child, 0)
    if os.WIFSIGNALED(found):
        return True
    assert os.waitstatus_to_exitcode(found) == 0
    return False


def _watch(number: int, strike: Callable[[], None]) -> None:
    """Strike before the n-th event of this process, in the middle of it where it is a write."""
    events = Events(number, strike)
    write, sync = os.write, os.fsync

    def writing(descriptor: int, content: bytes) -> int:
        if events.left == 1:
            write(descriptor, content[: len(content) // 2])
        events.count()
        return write(descriptor, content)

    def syncing(descriptor: int) -> None:
        events.count()
        sync(descriptor)

    os.write, os.fsync = writing, syncing  # type: ignore[assignment]
    sys.addaudithook(events)


class FullDisk:
    """A disk that is full from the n-th write, new file or new name on."""

    def __init__(self, number: int) -> None:
        self.left, self.was_met = number, False

    def full(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """In the place of a function of `os` that takes space."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left <= 0:
                self.was_met = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **options)

        return call
