"""Spans: which part of a run a thread works for, and from when to when, noted where it is done.

    with span("compute"):
        ...

Spans nest: an inner one interrupts the outer one, so no moment of a thread counts twice. They are
noted while a command records them (`recorded_spans`), by all processes that it starts: each thread
appends to a file of its own in a temporary folder of the command, named by an environment variable
that processes inherit. Otherwise a span is one shared object that does nothing and reads no clock.

Needs the standard library alone: workers of every kind start with it.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, NamedTuple, TypeVar, cast, get_args

Part = Literal["data", "encryption", "compute", "wire", "aggregation"]
"""data: images and label maps are drawn, read, resized, hashed and stored. encryption: what an
owner does besides, keys and ciphers. compute: local updates and evaluation. wire: messages are
encoded, decoded, hashed, and held against policy and ledger. aggregation: from replies to the next
checkpoint and the lines of results."""
PARTS: Final[tuple[Part, ...]] = get_args(Part)
FOLDER: Final = "FL_PPSEG_SPANS"
"""Environment variable: the folder that spans are noted in."""

T = TypeVar("T")


class Span(NamedTuple):
    """A part that a thread worked for without an interruption."""

    part: Part
    begin: int
    """Nanoseconds of the monotonic clock, which all processes of a machine share."""
    end: int


class _Thread(threading.local):
    """What a thread is at."""

    def __init__(self) -> None:
        self.open: list[Part] = []
        self.since = 0
        self.noted: list[str] = []


class _Recorder:
    """Notes the spans of this process in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = _Thread()

    def begin(self, part: Part) -> None:
        self._pass_to(time.monotonic_ns())
        self._thread.open.append(part)

    def end(self) -> None:
        self._pass_to(time.monotonic_ns())
        self._thread.open.pop()
        if not self._thread.open:
            self._write()

    def _pass_to(self, now: int) -> None:
        """Note what was done since the last change."""
        thread = self._thread
        if thread.open:
            thread.noted.append(f"{thread.open[-1]} {thread.since} {now}\n")
        thread.since = now

    def _write(self) -> None:
        content, self._thread.noted = "".join(self._thread.noted), []
        path = self._folder / f"{os.getpid()}-{threading.get_ident()}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with suppress(OSError):  # the command ended before this worker, or a full disk: no answer
            # of a node may depend on what is noted of it
            descriptor = os.open(path, flags, 0o600)
            try:
                os.write(descriptor, content.encode("ascii"))
            finally:
                os.close(descriptor)


class _Open(AbstractContextManager[None]):
    """A span that is recorded."""

    def __init__(self, recorder: _Recorder, part: Part) -> None:
        self._recorder = recorder
        self._part: Part = part

    def __enter__(self) -> None:
        self._recorder.begin(self._part)

    def __exit__(self, *_: object) -> None:
        self._recorder.end()


class Spans:
    """Reads what was noted in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        """Bytes of each file that were read."""

    def new(self) -> list[Span]:
        """The spans that were noted since the last call, each whole."""
        found = []
        for path in sorted(self._folder.iterdir()):
            with path.open("rb") as file:
                file.seek(self._read.get(path.name, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path.name] = self._read.get(path.name, 0) + len(whole + newline)
            found += [_span(line) for line in whole.decode("ascii").splitlines()]
        return found


_NOTHING: Final[AbstractContextManager[None]] = nullcontext()
_recorder = _Recorder(Path(os.environ[FOLDER])) if FOLDER in os.environ else None


def span(part: Part) -> AbstractContextManager[None]:
    """Around the work for a part."""
    return _NOTHING if _recorder is None else _Open(_recorder, part)


def within(part: Part, items: Iterable[T]) -> Iterable[T]:
    """The items; each is made within a span, and used outside of it."""
    return items if _recorder is None else _each(part, iter(items))


@contextmanager
def recorded_spans() -> Iterator[Spans]:
    """Record the spans of this process and of those that it starts meanwhile."""
    global _recorder
    before = _recorder
    with TemporaryDirectory(prefix="fl_ppseg-spans-") as folder:
        os.environ[FOLDER], _recorder = folder, _Recorder(Path(folder))
        try:
            yield Spans(Path(folder))
        finally:
            _recorder = before
            os.environ.pop(FOLDER, None)


def begin_of_process() -> int:
    """When this process began, in nanoseconds of the monotonic clock, to about a hundredth second.

    Where the system does not say: now.
    """
    now = time.monotonic_ns()
    try:
        fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # seconds since the machine started
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, AttributeError, ValueError):
        return now
    return now - int(max(0.0, age) * 1e9)


def _each(part: Part, items: Iterator[T]) -> Iterator[T]:
    end = object()
    while True:
        with span(part):
            item = next(items, end)
        if item is end:
            return
        yield cast(T, item)


def _span(line: str) -> Span:
    part, begin, end = line.split()
    return Span(cast(Part, part), int(begin), int(end))
