"""Runs the attacks: long ones in worker processes, several at a time, the longest first.

An attack that holds a key (an encryption oracle) cannot leave this process; such attacks are quick.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from fl_ppseg.audit.attacks.undoing import KeyGuess
from fl_ppseg.audit.jobs import Attempt, Guess, Job
from fl_ppseg.leaks.scores import Images
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.system.workers import work_at_once

LONG_SECONDS: Final = 10.0
"""Seconds; attacks that are expected to take longer run in worker processes."""
LABEL: Final = "attacking"

_Run = Callable[[], tuple[Guess, ...]]
_Timed = tuple[tuple[Guess, ...], float]


@dataclass(frozen=True, eq=False)
class Attacked:
    """An attempt and its result."""

    attempt: Attempt
    guess: Guess = field(repr=False)
    seconds: float
    """Duration of the whole job."""

    @property
    def images(self) -> Images | None:
        """The reconstructions."""
        return self.guess.reconstructed if isinstance(self.guess, KeyGuess) else self.guess


def attack(jobs: Sequence[Job], num_workers: int, progress: StepProgress) -> list[Attacked]:
    """Run all attacks.

    Args:
        jobs: In any order.
        num_workers: Processes at the same time.
        progress: Shows how many are done.

    Returns:
        Every attempt, in the order of the jobs.

    Raises:
        KeyboardInterrupt: Ctrl-C, once no worker is left.
        RunError: A worker was killed.
    """
    done: dict[int, list[Attacked]] = {}
    progress.update(LABEL, 0, len(jobs))
    for number, (guesses, seconds) in _run(jobs, num_workers):
        pairs = zip(jobs[number].attempts, guesses, strict=True)
        done[number] = [Attacked(attempt, guess, seconds) for attempt, guess in pairs]
        progress.update(LABEL, len(done), len(jobs))
    return [attacked for number in range(len(jobs)) for attacked in done[number]]


def _run(jobs: Sequence[Job], num_workers: int) -> Iterator[tuple[int, _Timed]]:
    order = sorted(range(len(jobs)), key=lambda number: -jobs[number].seconds)
    is_long = [job.seconds > LONG_SECONDS for job in jobs]
    for number in (number for number in order if not is_long[number]):
        yield number, _timed(jobs[number].run)
    long = [number for number in order if is_long[number]]
    tasks = [jobs[number].run for number in long]
    for place, timed in work_at_once(_apart, tasks, num_workers, "attacking"):
        yield long[place], timed


def _apart(run: _Run) -> _Timed:
    """A job in a process of its own: one thread each, as many at once as there are cores."""
    torch.set_num_threads(1)
    return _timed(run)


def _timed(run: _Run) -> _Timed:
    start = time.perf_counter()
    guesses = run()
    return guesses, time.perf_counter() - start
