"""Supervised programs: restarted when they end, stopped together."""

import fcntl
import os
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
from typing import Self

import psutil

from fl_ppseg.deployment.accounts import Account, end_with_parent, restrict_process
from fl_ppseg.deployment.logs import READ_BYTES, Log, Output
from fl_ppseg.system.errors import InputError

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
"""Time that a program has to end before it is killed."""
END_SECONDS = 0.05
"""Time between two checks whether a stopped program has ended."""
CHILDREN_SECONDS = 2.0
"""Time between two checks for dead child processes."""
SOUND_SECONDS = 60.0
"""A program that ran this long started well: its messages are shown again."""
PASSED_ON = re.compile(
    "LANG|LANGUAGE|LC_[A-Z]+|TZ|PYTHONPATH|LD_LIBRARY_PATH|SSL_CERT_(FILE|DIR)|FLWR_LOG_LEVEL|"
    "(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|NVIDIA_[A-Z_]+"
)
"""Environment variables that programs inherit. All others are left out: they may hold tokens of
root."""
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """A program to keep running."""

    name: str
    command: Sequence[str]
    log: Path
    """Its log file, in a folder of the user who starts it, whichever account it runs as."""
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    """Working directory."""
    account: Account | None = None
    """User that it runs as, which only root may choose; None: the user who starts it."""
    restart_seconds: float = 2.0
    """Pause before it is restarted."""
    explain: Callable[[str], str | None] = lambda _: None
    """Maps its last output to a message for the user; None: a general one."""
    news: tuple[str, str] | None = None
    """Text in its output, and the message that is shown when it appears."""
    astray: tuple[str, str] | None = None
    """Pattern of a line after which it is restarted, and the message that is shown."""
    also_read: tuple[str, ...] = ()
    """Names of other services whose output may hold such a line too."""
    needs_children: bool = False
    """Whether it is restarted when one of its child processes has died."""


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

    def poll(self) -> None:
        """Read the output of all services; restart those that have ended, and say why."""
        output = {running.service.name: running.read() for running in self._running}
        for running in self._running:
            others = [line for name in running.service.also_read for line in output.get(name, [])]
            running.poll(self._say, output[running.service.name], others)

    def watch(self) -> None:
        """Poll all services until interrupted."""
        while True:
            self.poll()
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop all services with their child processes, the last one first."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        while self._running:
            self._running.pop().stop()
        signal.signal(signal.SIGINT, before)


class _Running:
    """The process of a service, and the messages that were shown about it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._said: set[str] = set()
        self._due = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._awaited: tuple[str, str] | None = None
        self._counted = 0.0
        self._log = Log(service.log)
        self._start()

    def read(self) -> list[str]:
        """The lines that the process has written since the last call."""
        return [] if self._process is None else self._output.read()

    def poll(self, say: Say, lines: Sequence[str], others: Sequence[str]) -> None:
        """Restart the process when it is due, or check whether it still works.

        Args:
            say: Prints a line for the user.
            lines: New lines of its output.
            others: New lines of the services in `also_read`.
        """
        if self._process is None:
            if time.monotonic() >= self._due:
                self._start()
            return
        self._announce(lines, say)
        if (status := self._process.poll()) is not None:
            self._output.end()
            self._schedule_restart(
                self.service.explain(self._output.text()) or self._ended(status), say
            )
        elif (why := self._failure([*lines, *others])) is not None:
            self._end()
            self._schedule_restart(why, say)

    def stop(self) -> None:
        """Stop the process and close its log."""
        if self._process is not None:
            self._end()
            self._release()
        self._log.close()

    def _end(self) -> None:
        assert self._process is not None
        tree: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        end = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            self._output.read()  # else it would block on a full pipe
            time.sleep(END_SECONDS)
        self._process.kill()
        self._process.wait()
        for left in tree:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        self._output.end()

    def _announce(self, lines: Sequence[str], say: Say) -> None:
        if self._awaited is not None and any(self._awaited[0] in line for line in lines):
            self._said.clear()
            say(self._awaited[1])
            self._awaited = None

    def _schedule_restart(self, why: str, say: Say) -> None:
        """Show why the process has ended; it is restarted after a pause."""
        if time.monotonic() - self._since > SOUND_SECONDS:
            self._said.clear()
        if why not in self._said:
            self._said.add(why)
            say(why)
        self._release()
        self._due = time.monotonic() + self.service.restart_seconds

    def _release(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def _start(self) -> None:
        service = self.service
        self._since, self._awaited = time.monotonic(), service.news
        self._process = subprocess.Popen(
            service.command,
            cwd=service.folder,
            env=service.environment,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            preexec_fn=_prepare,
            user=service.account.uid if service.account else None,
            group=service.account.gid if service.account else None,
            extra_groups=_groups(service.account),
        )
        assert self._process.stdout is not None
        self._output = Output(_enlarge(self._process.stdout.fileno()), self._log)

    def _failure(self, lines: Sequence[str]) -> str | None:
        """Why a running process cannot do its work any more; None if it can."""
        service = self.service
        if service.astray is not None and any(re.search(service.astray[0], line) for line in lines):
            return service.astray[1]
        if service.needs_children and self._has_lost_a_child():
            return f"a child process of {service.name} has died; restarting it"
        return None

    def _has_lost_a_child(self) -> bool:
        if self._process is None or time.monotonic() - self._counted < CHILDREN_SECONDS:
            return False
        self._counted = time.monotonic()
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children()
            return any(child.status() == psutil.STATUS_ZOMBIE for child in children)
        return False

    def _ended(self, status: int) -> str:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"{self.service.name} ended ({how}); restarting it; its log is {self.service.log}"


def program(name: str) -> str:
    """Path of a program of this Python environment.

    Raises:
        InputError: It is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise InputError(f"{name} is not installed beside {sys.executable}; install flwr")
    return found


def environment(flower_home: Path) -> dict[str, str]:
    """Environment of Flower's programs: no telemetry, nothing installed at run time.

    Of this process's environment they inherit only the variables that `PASSED_ON` matches.

    Args:
        flower_home: Folder of Flower's files.
    """
    passed_on = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    return passed_on | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), *SYSTEM_PATH)),
        "HOME": str(flower_home),
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _groups(account: Account | None) -> list[int] | None:
    return None if account is None else os.getgrouplist(account.name, account.gid)


def _prepare() -> None:
    end_with_parent()
    restrict_process()


def _enlarge(pipe: int) -> int:
    """Enlarge a pipe, so that its writer does not wait for the next poll."""
    if sys.platform == "linux":
        with suppress(OSError):  # beyond this user's limit
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, READ_BYTES)
    return pipe
