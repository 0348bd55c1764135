"""Fresh keys that are the same in every run of the tests: what fails once fails again.

Keys, salts and noise come from `os.urandom`. Under test each item has a stream of its own, named by
the item and by `FL_PPSEG_TEST_KEYS`. Another name gives other streams, and `system` the operating
system's bytes; with either, Hypothesis draws new examples too: so one looks for tests that pass by
luck. Processes that a test starts or forks have the operating system's bytes always.
"""

import hashlib
import itertools
import os
import threading
from collections.abc import Callable
from typing import Final

NAME: Final = os.environ.get("FL_PPSEG_TEST_KEYS", "")
"""Empty: what every run of the tests has."""
_system = os.urandom


def seed(item: str) -> None:
    """Start the stream of one test item; `os.urandom` of this process reads from it."""
    os.urandom = _system if NAME == "system" else _stream(f"{NAME}\0{item}")


def _stream(name: str) -> Callable[[int], bytes]:
    numbers, lock, process = itertools.count(), threading.Lock(), os.getpid()

    def read(size: int) -> bytes:
        if os.getpid() != process:
            return _system(size)
        with lock:
            number = next(numbers)
        return hashlib.shake_256(f"{name}\0{number}".encode()).digest(size)

    return read
