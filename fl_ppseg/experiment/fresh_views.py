"""Fresh views in a simulation: the vaults of the owners work while rounds train.

One process, apart from those of the clients, runs all owners' vaults. It reads nothing of the run
but the numbers of its newest checkpoints, makes the views of the round that trains and of the next,
and removes all others. Nodes wait for theirs and hold no key. The run's own process tells them when
no more are made, and which rounds have ended: a message of one may come late.

    <vault>/.nodes/<run>/rounds/<digest>/    a shard of a round, moved here as a whole
    <vault>/.nodes/<run>/rounds/stopped      why no views are made, or that the run has ended
    <vault>/.nodes/<run>/rounds/finished.json   the finished rounds (clients.policy.fresh_views)

Nothing heavy is imported here: the process starts with it.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from clients.policy.fresh_views import FINISHED, STOPPED, record_finished
from clients.vault.shards.preparation import prepare_round
from fl_ppseg.experiment.views_plan import ArmRound, ViewsPlan
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError, RunError, describe
from fl_ppseg.system.files import available_cpus, make_private_folder, write_atomically
from fl_ppseg.system.workers import begin_work, end, interrupts_held, work_at_once

LOOK: Final = 0.05
"""Seconds between two looks at the run."""
SEEN: Final = 1.0
"""Seconds between two looks at whether the process lives, and whether a round waits."""
LATE: Final = 20.0
"""Seconds after which a round that waits for its views is said to."""
CLOSING: Final = 10.0
"""Seconds that it has to end once it has said why."""
_PROCESS: Final = "the process that runs the owners' vaults"
_ENDED: Final = "the rounds have ended"


def stop_views(place: Path, reason: str) -> None:
    """Tell nodes that wait that no more views are made."""
    write_atomically(make_private_folder(place) / STOPPED, reason + "\n", mode=0o600)


class ViewsMaker:
    """The process that makes views while a run trains."""

    def __init__(self, plan: ViewsPlan, tell: Callable[[str], None]) -> None:
        """Prepare to make views.

        Args:
            plan: Of the run.
            tell: Called with a line where a round waits for its views, from a thread.
        """
        self._plan = plan
        self._tell = tell
        self._has_ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._process: BaseProcess = get_context("spawn").Process(
            target=make_views, args=(plan,), name="vaults"
        )

    @property
    def failure(self) -> str | None:
        """Why no more views were made; None: they were, to the end."""
        path = self._plan.place / STOPPED
        reason = path.read_text("utf-8").strip() if path.exists() else ""
        if reason == _ENDED:
            return None
        if reason:  # it wrote one, and ends
            self._process.join(CLOSING)
        if self._process.exitcode is None:
            return None
        reason = reason or self._end
        return f"no fresh views: {reason}; resume the run to go on"

    def start(self) -> None:
        """Begin to make views."""
        for name in (STOPPED, FINISHED):
            (make_private_folder(self._plan.place) / name).unlink(missing_ok=True)
        with interrupts_held():
            self._process.start()
        self._watcher.start()

    def close(self) -> None:
        """Tell nodes that still wait that the rounds have ended."""
        with suppress(OSError):  # a full disk must not hide how the rounds ended
            if not (self._plan.place / STOPPED).exists():
                ended = _ENDED if self._process.exitcode is None else self._end
                stop_views(self._plan.place, ended)
        self._has_ended.set()

    def stop(self) -> None:
        """End the process; what it has made stays for whoever resumes a run that is not trained."""
        self._has_ended.set()
        end([self._process])
        self._watcher.join(CLOSING)
        (self._plan.place / FINISHED).unlink(missing_ok=True)
        if not self._plan.next_rounds():
            keep_only(self._plan.place, ())
        stop_views(self._plan.place, "nothing makes them now")

    def _watch(self) -> None:
        """Say where a round waits; tell nodes what is finished, or that the process has ended."""
        rounds, since = self._plan.next_rounds()[:1], time.monotonic()
        while self._process.exitcode is None and not self._has_ended.is_set():
            self._process.join(SEEN)
            with suppress(OSError):  # a full disk: the next look may find room
                record_finished(self._plan.place, time.monotonic_ns(), self._plan.finished())
            if rounds != (rounds := self._plan.next_rounds()[:1]):
                since = time.monotonic()
            elif time.monotonic() - since > LATE:
                self._tell_of_wait(rounds)
                since = math.inf
        if not self._has_ended.is_set() and not (self._plan.place / STOPPED).exists():
            stop_views(self._plan.place, self._end)

    @property
    def _end(self) -> str:
        """How the process ended."""
        code = self._process.exitcode or 0
        return f"{_PROCESS} " + ("was killed" if code < 0 else f"ended with {code} before the run")

    def _tell_of_wait(self, rounds: Sequence[ArmRound]) -> None:
        for arm_round in rounds:
            clients = self._plan.clients(arm_round)
            done = sum(self._plan.folder(arm_round, client).exists() for client in clients)
            if done < len(clients):
                self._tell(
                    f"{arm_round.arm}, seed {arm_round.seed}: the views of round {arm_round.round} "
                    f"are still being made ({done} of {len(clients)} clients are done)"
                )


@contextmanager
def views_made(
    plan: ViewsPlan | None, tell: Callable[[str], None] = lambda text: None
) -> Iterator[ViewsMaker | None]:
    """Fresh views are made meanwhile, where a run has any.

    Args:
        plan: What is made; None: nothing.
        tell: As in `ViewsMaker`.
    """
    if plan is None:
        yield None
        return
    maker = ViewsMaker(plan, tell)
    maker.start()
    try:
        yield maker
    finally:
        maker.stop()


def make_views(plan: ViewsPlan) -> None:
    """Make views until the process is stopped: its body."""
    begin_work()
    try:
        make_ahead(plan, threading.Event())
    except (InputError, RunError, OSError) as error:
        reason = describe(error) if isinstance(error, OSError) else str(error)
        stop_views(plan.place, reason)
        raise SystemExit(1) from None


def make_ahead(plan: ViewsPlan, stop: threading.Event) -> None:
    """Make the views of the round that trains and of the next until it is stopped.

    A run that looks trained may not be: its last checkpoint may be damaged, and the server removes
    it when it has read it.

    Args:
        plan: Of the run.
        stop: Ends it, between two looks at the run.

    Raises:
        InputError: As `prepare_round`.
        RunError: A worker was killed.
        OSError: The disk is full.
    """
    seen: tuple[list[ArmRound] | None, set[Path]] = None, set()
    while not stop.is_set():
        if (rounds := plan.next_rounds()) != seen[0]:
            needed = {
                plan.folder(arm_round, client)
                for arm_round in rounds
                for client in plan.clients(arm_round)
            }
            keep_only(plan.place, needed)
            for arm_round in rounds:
                make_round(plan, arm_round, seen[1])
            seen = rounds, seen[1] & needed
        stop.wait(LOOK)


def make_round(plan: ViewsPlan, arm_round: ArmRound, known: set[Path]) -> None:
    """Make what a round lacks; what lies there from before is checked once.

    Args:
        plan: Of the run.
        arm_round: The round.
        known: Folders that were made or checked; those of this round are added.
    """
    lacking = [
        each for each in plan.clients(arm_round) if plan.folder(arm_round, each) not in known
    ]
    jobs = [plan.job(arm_round, client) for client in lacking]
    num_workers = 1 if plan.config.device == "cpu" else max(1, available_cpus() - 1)
    if num_workers == 1 or len(jobs) < 2:  # the cores train
        for job in jobs:
            prepare_round(job)
    else:
        for _ in work_at_once(prepare_round, jobs, num_workers, "encrypting"):
            pass
    known.update(map(partial(plan.folder, arm_round), lacking))


def keep_only(place: Path, folders: Sequence[Path] | set[Path]) -> None:
    """Remove all shards of rounds but these."""
    names = {folder.name for folder in folders}
    with Directory.open(place, make=0o700) as rounds:
        for entry in rounds.entries():
            if entry.kind == "folder" and entry.name not in names:
                rounds.remove_tree(entry.name)
