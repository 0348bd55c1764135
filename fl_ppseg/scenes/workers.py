"""Several processes that write scenes; an interruption lets each end its batch, then ends them."""

import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from fl_ppseg.errors import RunError
from fl_ppseg.scenes.files import SceneFiles, write_scenes

PATIENCE = 0.2
"""Seconds between two looks for Ctrl-C."""


def write_in_turn(batches: Sequence[list[SceneFiles]]) -> Iterator[int]:
    """Write all batches in this process; yields the size of each."""
    return map(write_scenes, batches)


def write_at_once(batches: Sequence[list[SceneFiles]], workers: int) -> Iterator[int]:
    """Write all batches in spawned processes; yields sizes as batches end, in any order.

    Raises:
        KeyboardInterrupt: Ctrl-C, once no worker is left.
        RunError: a worker was killed.
    """
    with _interrupts_noted() as interrupted:
        pool = ProcessPoolExecutor(
            max_workers=min(workers, len(batches)),
            mp_context=get_context("spawn"),
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),
        )
        try:
            pending = {pool.submit(write_scenes, batch) for batch in batches}
            while pending and not interrupted.is_set():
                done, pending = wait(pending, PATIENCE, FIRST_COMPLETED)
                yield from [task.result() for task in done]
        except BrokenProcessPool as problem:
            raise RunError("a worker was killed while it drew: try fewer workers") from problem
        finally:
            pool.shutdown(cancel_futures=True)
    if interrupted.is_set():
        raise KeyboardInterrupt


@contextmanager
def _interrupts_noted() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of striking anywhere, even while a process is being started.

    Python takes signals in the main thread only; in any other thread nothing changes.
    """
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.set())
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
