"""The threads in which models compute, and how they share the processors.

Two batches side by side on one processor each are done sooner than one after the other on both: the
processors of one batch wait for each other after every small step of a network.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, TypeVar

import torch

from fl_ppseg.system.files import available_cpus

MAX_JOBS: Final = 4
"""At the same time, however many processors there are: each needs memory of its own."""
Found = TypeVar("Found")


class Cores:
    """Computes in threads; what begins while others compute leaves them their processors."""

    def __init__(self, device: torch.device) -> None:
        """Take the threads; a device other than the CPU computes one job after the other."""
        self._cpus = available_cpus()
        self.num_jobs = min(self._cpus, MAX_JOBS) if device.type == "cpu" else 1
        self._threads = ThreadPoolExecutor(self.num_jobs, "model")
        self._inside = 0

    def __enter__(self) -> None:
        """Ready as it is made."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is in work, and end the threads."""
        self._threads.shutdown()

    async def compute(self, function: Callable[..., Found], *arguments: object) -> Found:
        """The outcome of a function, computed in one of the threads."""
        self._inside += 1
        try:
            share = max(1, self._cpus // min(self._inside, self.num_jobs))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _computed, share, function, *arguments)
        finally:
            self._inside -= 1


def _computed(share: int, function: Callable[..., Found], *arguments: object) -> Found:
    """The outcome of a function on so many processors; PyTorch counts them for each thread."""
    torch.set_num_threads(share)
    return function(*arguments)
