"""Programs that run until they are told to stop: started again when they die, stopped together."""

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

from fl_ppseg.deployment.accounts import Account, end_with_parent, gain_nothing
from fl_ppseg.deployment.logs import READ_BYTES, Log, Output
from fl_ppseg.system.errors import InputError

LOOK_SECONDS = 0.2
STOP_SECONDS = 10.0
"""How long a program may take to end before it is killed."""
END_SECONDS = 0.05
"""Between two looks whether a program that was told to end has ended."""
CHILDREN_SECONDS = 2.0
"""Between two looks for children that have died."""
SOUND_SECONDS = 60.0
"""A program that ran this long had started well: what it says next is news again."""
PASSED_ON = re.compile(
    "LANG|LANGUAGE|LC_[A-Z]+|TZ|PYTHONPATH|LD_LIBRARY_PATH|SSL_CERT_(FILE|DIR)|FLWR_LOG_LEVEL|"
    "(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|NVIDIA_[A-Z_]+"
)
"""Variables that programs are given of the environment of who starts them. All others stay out:
they may hold tokens of root's."""
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """A program to keep running."""

    name: str
    command: Sequence[str]
    log: Path
    """Where its output goes: in a folder of who starts it, whoever it runs as."""
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
    also_read: tuple[str, ...] = ()
    """Names of other services in whose output such a line may stand too."""
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
        """Take in what was written; start what has died again, and say why it did."""
        heard = {running.service.name: running.listen() for running in self._running}
        for running in self._running:
            others = [line for name in running.service.also_read for line in heard.get(name, [])]
            running.look(self._say, heard[running.service.name], others)

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
        self._awaited: tuple[str, str] | None = None
        self._counted = 0.0
        self._log = Log(service.log)
        self._start()

    def listen(self) -> list[str]:
        """The lines that the process has written since the last time."""
        return [] if self._process is None else self._output.read()

    def look(self, say: Say, lines: Sequence[str], others: Sequence[str]) -> None:
        """Start the process again when it is due, or find out what has become of it.

        Args:
            say: Takes lines for a person.
            lines: Which it has written.
            others: Which those of `also_read` have written.
        """
        if self._process is None:
            if time.monotonic() >= self._due:
                self._start()
            return
        self._announce(lines, say)
        if (status := self._process.poll()) is not None:
            self._output.end()
            self._leave(self.service.explain(self._output.text()) or self._ended(status), say)
        elif (why := self._is_astray([*lines, *others])) is not None:
            self._end()
            self._leave(why, say)

    def stop(self) -> None:
        """End the process, and use its log no more."""
        if self._process is not None:
            self._end()
            self._let_go()
        self._log.close()

    def _end(self) -> None:
        assert self._process is not None
        tree: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        end = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            self._output.read()  # who writes its last lines into a full pipe would wait
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

    def _leave(self, why: str, say: Say) -> None:
        """Say why the process has ended; it is due again after a pause."""
        if time.monotonic() - self._since > SOUND_SECONDS:
            self._said.clear()
        if why not in self._said:
            self._said.add(why)
            say(why)
        self._let_go()
        self._due = time.monotonic() + self.service.restart_seconds

    def _let_go(self) -> None:
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
        self._output = Output(_wide(self._process.stdout.fileno()), self._log)

    def _is_astray(self, lines: Sequence[str]) -> str | None:
        """Why a process that runs cannot do its work any more."""
        service = self.service
        if service.astray is not None and any(re.search(service.astray[0], line) for line in lines):
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

    def _ended(self, status: int) -> str:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return (
            f"{self.service.name} ended ({how}); starting it again, its log is {self.service.log}"
        )


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

    Of the environment of who starts them they get what `PASSED_ON` names and nothing else.

    Args:
        flower_home: The folder that Flower keeps its files in.
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


def _groups(wanted: Account | None) -> list[int] | None:
    return None if wanted is None else os.getgrouplist(wanted.name, wanted.gid)


def _prepare() -> None:
    end_with_parent()
    gain_nothing()


def _wide(pipe: int) -> int:
    """A pipe that holds much, so that who writes does not wait for the next look."""
    if sys.platform == "linux":
        with suppress(OSError):  # more than this user may
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, READ_BYTES)
    return pipe
