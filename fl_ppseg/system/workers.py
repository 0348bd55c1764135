"""A pool of processes that work on a list of tasks and end together.

A worker ignores Ctrl-C: its parent notes it, and then stops the workers, each of which cleans up
behind its task first. Nothing heavy is imported here: workers start with it.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import TypeVar

from fl_ppseg.system.errors import RunError

Task = TypeVar("Task")
Result = TypeVar("Result")

PATIENCE = 0.2
"""Seconds between two looks for Ctrl-C."""
CLEANING_UP = 30.0
"""Seconds that workers have to clean up behind their tasks when they are stopped."""


def work_at_once(
    work: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int, doing: str
) -> Iterator[tuple[int, Result]]:
    """Run all tasks in spawned processes.

    Args:
        work: A function of a module, which workers import.
        tasks: Picklable, begun in this order.
        num_workers: Processes at most.
        doing: What a worker does, for the message if one is killed, e.g. `encrypting`.

    Yields:
        The number of a task and its result, as tasks end.

    Raises:
        KeyboardInterrupt: Ctrl-C, once no worker is left.
        RunError: A worker was killed.
    """
    others = set(active_children())
    with _interrupts_noted() as interrupted:
        pool = ProcessPoolExecutor(
            max(1, min(num_workers, len(tasks))),
            mp_context=get_context("spawn"),
            initializer=begin_work,
        )
        pending: dict[Future[Result], int] = {}
        try:
            with interrupts_held():
                pending = {pool.submit(_do, work, task): k for k, task in enumerate(tasks)}
            while pending and not interrupted.is_set():
                for future in wait(pending, PATIENCE, FIRST_COMPLETED).done:
                    yield pending[future], future.result()
                    del pending[future]
        except BrokenProcessPool:
            raise RunError(
                f"a worker process was killed while {doing}; free some memory, or use fewer workers"
            ) from None
        finally:
            end(set(active_children()) - others if pending else set())
            pool.shutdown(cancel_futures=True)
    if interrupted.is_set():
        raise KeyboardInterrupt


def end(pool: Collection[BaseProcess]) -> None:
    """Stop workers: by a request, after which each cleans up, and those that missed it by force.

    Python drops an exception that is raised in a callback of the garbage collector, and the pool
    one that is raised before a task begins: such a worker would wait for tasks without end.
    """
    for worker in pool:
        worker.terminate()
    deadline = time.monotonic() + CLEANING_UP
    for worker in pool:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def begin_work() -> None:
    """In a worker: ignore Ctrl-C, which the parent handles; it stops the task by a request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End with the parent: a killed parent does not wait, and may have been started again."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request would disturb the cleaning up
    sys.exit(1)


def _do(work: Callable[[Task], Result], task: Task) -> Result:
    try:
        return work(task)
    except SystemExit:
        os._exit(1)  # the pool would take it for a result and give this worker the next task


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits; processes that are started meanwhile hear nothing of it until they ignore it.

    Else it would strike those that have begun to import and do not ignore it yet.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
