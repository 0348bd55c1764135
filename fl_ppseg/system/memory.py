"""Peak memory of this process and all its children together; freed memory, handed back."""

import ctypes
import threading
from contextlib import suppress
from typing import Self

import psutil

PERIOD_SECONDS = 2.0


class PeakMemory:
    """Watches the process tree from a thread; shared pages are counted once where the OS tells."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        tree = psutil.Process()
        stopped = False
        while not stopped:
            self.mb = max(self.mb, sum(map(_resident_mb, [tree, *_children(tree)])))
            stopped = self._stop.wait(PERIOD_SECONDS)


def hand_back() -> None:
    """Hand memory that was freed back to the system, where the C library would keep it (glibc).

    Arrays of up to 32 MiB lie between others on its heap, of which it returns the end alone.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(process.children(recursive=True))
    return []


def _resident_mb(process: psutil.Process) -> float:
    """Proportional set size where there is one, else resident set size; 0 for a process gone."""
    with suppress(psutil.Error):
        info = process.memory_full_info()
        return float(getattr(info, "pss", info.rss)) / 2**20
    return 0.0
