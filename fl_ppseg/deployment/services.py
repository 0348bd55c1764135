"""Programs that run until they are told to stop: started again when they die, stopped together."""

import ctypes
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import psutil

from fl_ppseg.errors import InputError

LOOK_SECONDS = 0.2
STOP_SECONDS = 10.0
"""How long a program may take to end before it is killed."""
CHILDREN_SECONDS = 2.0
"""Between two looks for children that have died."""
SOUND_SECONDS = 60.0
"""A program that ran this long had started well: what it says next is news again."""
LOG_BYTES = 20 * 2**20
"""Size at which a log is begun anew; the one before is kept."""
PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


class Account(NamedTuple):
    """A user of this machine."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Service:
    """A program to keep running."""

    name: str
    command: Sequence[str]
    log: Path
    """Where its output goes."""
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    """Where it runs."""
    account: Account | None = None
    """Who it runs as, which only root may choose; none: who starts it."""
    restart_seconds: float = 2.0
    """Pause before it is started again."""
    explain: Callable[[str], str | None] = lambda _: None
    """From what it wrote before it died to a line for a person."""
    news: tuple[str, str] | None = None
    """Words in its output, and what they mean to a person."""
    astray: tuple[str, str] | None = None
    """Pattern of a line after which it is ended and started again, and what a person is told."""
    also_read: tuple[Path, ...] = ()
    """Logs of other programs in which such a line may stand too."""
    needs_children: bool = False
    """Whether it is started again when a process that it has started itself has died."""


class Supervisor:
    """Keeps services running in the order in which they were started; use it in a `with`."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._running: list[_Running] = []

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, service: Service) -> None:
        """Start a service."""
        self._running.append(_Running(service))

    def look(self) -> None:
        """Start what has died again, and say why it did."""
        for running in self._running:
            running.look(self._say)

    def watch(self) -> None:
        """Look after all services until interrupted."""
        while True:
            self.look()
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End all services, the last one first, with all that they started."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        while self._running:
            self._running.pop().stop()
        signal.signal(signal.SIGINT, before)


class _Running:
    """A service's process, and what was said of it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._said: set[str] = set()
        self._due = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._awaited = service.news
        self._counted = 0.0
        self._start()

    def look(self, say: Say) -> None:
        _turn(self.service.log)
        if self._process is None:
            if time.monotonic() >= self._due:
                self._start()
        elif (status := self._process.poll()) is None:
            self._announce(say)
            if (why := self._is_astray()) is not None:
                self.stop()
                self._leave(why, say)
        else:
            self._leave(self.service.explain(self._written()) or self._ended(status), say)

    def stop(self) -> None:
        if self._process is None:
            return
        tree: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._process.kill()
        self._process.wait()
        for left in tree:
            with suppress(psutil.NoSuchProcess):
                left.kill()

    def _announce(self, say: Say) -> None:
        if self._awaited is not None and self._awaited[0] in self._written():
            self._said.clear()
            say(self._awaited[1])
            self._awaited = None

    def _leave(self, why: str, say: Say) -> None:
        """Say why the process has ended; it is due again after a pause."""
        if time.monotonic() - self._since > SOUND_SECONDS:
            self._said.clear()
        self._once(why, say)
        self._process = None
        self._due = time.monotonic() + self.service.restart_seconds

    def _once(self, line: str, say: Say) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)

    def _start(self) -> None:
        service = self.service
        service.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._since, self._awaited = time.monotonic(), service.news
        self._seen = {log: _size(log) for log in (service.log, *service.also_read)}
        with service.log.open("ab") as log:
            self._offset = log.tell()
            self._process = subprocess.Popen(
                service.command,
                cwd=service.folder,
                env=service.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
                user=service.account.uid if service.account else None,
                group=service.account.gid if service.account else None,
                extra_groups=_groups(service.account),
            )

    def _written(self) -> str:
        with self.service.log.open("rb") as log:
            log.seek(self._offset)
            return log.read().decode("utf-8", "replace")

    def _is_astray(self) -> str | None:
        """Why a process that runs cannot do its work any more."""
        service = self.service
        if service.astray is not None and self._has_written(service.astray[0]):
            return service.astray[1]
        if service.needs_children and self._has_lost_a_child():
            return f"a part of {service.name} has died; starting it again"
        return None

    def _has_lost_a_child(self) -> bool:
        if self._process is None or time.monotonic() - self._counted < CHILDREN_SECONDS:
            return False
        self._counted = time.monotonic()
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children()
            return any(child.status() == psutil.STATUS_ZOMBIE for child in children)
        return False

    def _has_written(self, pattern: str) -> bool:
        """Whether a pattern is found in the whole lines that are new in the logs."""
        return any([re.search(pattern.encode(), self._news(log)) for log in self._seen])

    def _news(self, path: Path) -> bytes:
        if (size := _size(path)) <= self._seen[path]:
            self._seen[path] = size  # smaller: begun anew
            return b""
        with path.open("rb") as log:
            log.seek(self._seen[path])
            whole, newline, _ = log.read().rpartition(b"\n")
        self._seen[path] += len(whole + newline)
        return whole

    def _ended(self, status: int) -> str:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return (
            f"{self.service.name} ended ({how}); starting it again, its log is {self.service.log}"
        )


def account(name: str) -> Account:
    """A user by name.

    Raises:
        InputError: There is no such user.
    """
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise InputError(
            f"no user {name!r} on this machine; make one, e.g. useradd --system {name}"
        ) from None
    return Account(name, found.pw_uid, found.pw_gid)


def program(name: str) -> str:
    """Where a program of this Python environment lies.

    Raises:
        InputError: It is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise InputError(f"{name} is not installed beside {sys.executable}; install flwr")
    return found


def environment(flower_home: Path) -> dict[str, str]:
    """What Flower's programs are started with: no telemetry, nothing installed at run time.

    Args:
        flower_home: The folder that Flower keeps its files in.
    """
    return os.environ | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "HOME": str(flower_home),
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _groups(wanted: Account | None) -> list[int] | None:
    return None if wanted is None else os.getgrouplist(wanted.name, wanted.gid)


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _turn(log: Path) -> None:
    """Keep a log small; who writes it appends, and goes on in the emptied file."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
