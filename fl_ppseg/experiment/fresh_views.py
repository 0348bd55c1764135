"""Fresh views in a simulation: the vaults of the owners work while rounds train.

One process, apart from those of the clients, plays all owners' vaults. It reads nothing of the run
but the numbers of its newest checkpoints, makes the views of the round that trains and of the next,
and removes all others. Nodes wait for theirs; they hold no key, and are told where no more are
made.

    <vault>/.nodes/<run>/rounds/<digest>/    a shard of a round, moved here as a whole
    <vault>/.nodes/<run>/rounds/stopped      why no views are made; absent while they are

Nothing heavy is imported here: the process starts with it.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, NamedTuple

from clients.policy.fresh_views import STOPPED, round_folder
from clients.vault.assignment import Assignment, Prepared
from clients.vault.shards.preparation import prepare_round
from fl_ppseg.config import run_layout
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError, RunError, describe
from fl_ppseg.system.files import available_cpus, make_private_folder, write_atomically
from fl_ppseg.system.workers import begin_work, end, interrupts_held, work_at_once
from strategies.rounds.draw import drawn

LOOK: Final = 0.05
"""Seconds between two looks at the run."""
SEEN: Final = 1.0
"""Seconds between two looks at whether the process lives, and whether a round waits."""
LATE: Final = 20.0
"""Seconds after which a round that waits for its views is said to."""
CLOSING: Final = 10.0
"""Seconds that it has to end once it has said why."""
_KILLED: Final = "the process that plays the owners' vaults was killed"
AHEAD: Final = 2
"""Rounds whose views lie on disk: the one that trains, and the next."""


class Turn(NamedTuple):
    """A round of an arm and seed."""

    arm: str
    seed: int
    round: int


@dataclass(frozen=True)
class ViewsPlan:
    """What is made while a run trains: picklable, contains no key."""

    run: Path
    """The run folder."""
    place: Path
    """Where the shards of rounds go."""
    config: Config
    arms: Mapping[str, ArmConfig]
    jobs: Mapping[tuple[str, int], Assignment]
    """Of the training clients, by client and seed."""
    shards: Mapping[tuple[str, int], Mapping[str, Path]]
    """What was made ahead for them, by arm."""

    def turns(self) -> list[Turn]:
        """The rounds whose views are needed next, at most `AHEAD`; none: the run is trained."""
        found: list[Turn] = []
        for seed in self.config.seeds:
            for arm in self.config.arms:
                done = newest_round(self.run, arm, seed)
                left = range(done + 1, self.config.federation.num_rounds + 1)
                found += [Turn(arm, seed, round) for round in left[: AHEAD - len(found)]]
                if len(found) == AHEAD:
                    return found
        return found

    def clients(self, turn: Turn) -> list[str]:
        """Clients whose images a round trains on, in the order of the jobs."""
        every = [client for client, seed in self.jobs if seed == turn.seed]
        if self.arms[turn.arm].training == "centralised":  # one node, with the images of all
            return every
        asked = drawn(sorted(every), self.config.federation, turn.seed, turn.round)
        return [client for client in every if client in asked]

    def folder(self, turn: Turn, client: str) -> Path:
        """Folder of a client's views of a round."""
        return round_folder(self.place, self.shards[client, turn.seed][turn.arm], turn.round)

    def job(self, turn: Turn, client: str) -> Assignment:
        """What one owner encrypts for a round."""
        job = self.jobs[client, turn.seed].of_round(turn.round)
        return replace(job, protections={turn.arm: self.arms[turn.arm]})


def views_plan(
    config: Config,
    run: Path,
    jobs: Mapping[tuple[str, int], Assignment],
    prepared: Mapping[tuple[str, int], Mapping[str, Prepared]],
) -> ViewsPlan | None:
    """What is made while a run trains; None where all views are made ahead.

    Args:
        config: The experiment.
        run: The run folder.
        jobs: What was made ahead, by client and seed.
        prepared: Where it lies.
    """
    own = {key: replace(job, public={}) for key, job in jobs.items() if job.train}
    places = [job.fresh.place for job in own.values() if job.fresh is not None]
    if not places:
        return None
    shards = {key: {arm: p.shard for arm, p in prepared[key].items()} for key in own}
    return ViewsPlan(run, places[0], config, arms_of(config), own, shards)


def newest_round(run: Path, arm: str, seed: int) -> int:
    """The last round of an arm and seed that has a checkpoint; 0: none is trained."""
    files = run_layout.rounds_in(run_layout.seed_folder(run, arm, seed), ".json")
    return (run_layout.round_of(files[-1]) or 0) if files else 0


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
        self._is_over = threading.Event()
        self._process: BaseProcess = get_context("spawn").Process(
            target=make_views, args=(plan,), name="vaults"
        )

    @property
    def failure(self) -> str | None:
        """Why no more views were made; None: they were, to the end."""
        path = self._plan.place / STOPPED
        if path.exists():  # its last words
            self._process.join(CLOSING)
        if self._process.exitcode in (None, 0):
            return None
        reason = path.read_text("utf-8").strip() if path.exists() else _KILLED
        return f"no fresh views: {reason}; resume the run to go on"

    def start(self) -> None:
        """Begin to make views."""
        (make_private_folder(self._plan.place) / STOPPED).unlink(missing_ok=True)
        with interrupts_held():
            self._process.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """End the process; what it has made stays for whoever resumes a run that is not trained."""
        self._is_over.set()
        end([self._process])
        if not self._plan.turns():
            keep_only(self._plan.place, ())
        stop_views(self._plan.place, "nothing makes them now")

    def _watch(self) -> None:
        """Say where a round waits; tell waiting nodes where the process ends before the run."""
        turns, since = self._plan.turns()[:1], time.monotonic()
        while self._process.exitcode is None:
            self._process.join(SEEN)
            if turns != (turns := self._plan.turns()[:1]):
                since = time.monotonic()
            elif time.monotonic() - since > LATE:
                self._tell_of_wait(turns)
                since = math.inf
        is_early = self._process.exitcode != 0 and not self._is_over.is_set()
        if is_early and not (self._plan.place / STOPPED).exists():
            stop_views(self._plan.place, _KILLED)

    def _tell_of_wait(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            clients = self._plan.clients(turn)
            done = sum(self._plan.folder(turn, client).exists() for client in clients)
            if done < len(clients):
                self._tell(
                    f"{turn.arm}, seed {turn.seed}: the views of round {turn.round} are still "
                    f"being made ({done} of {len(clients)} clients are done)"
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
    """Make views until the run is trained: the body of the process."""
    begin_work()
    try:
        make_ahead(plan)
    except (InputError, RunError, OSError) as error:
        reason = describe(error) if isinstance(error, OSError) else str(error)
        stop_views(plan.place, reason)
        raise SystemExit(1) from None


def make_ahead(plan: ViewsPlan) -> None:
    """Make the views of the round that trains and of the next until the run is trained.

    Raises:
        InputError: As `prepare_round`.
        RunError: A worker was killed.
        OSError: The disk is full.
    """
    seen: tuple[list[Turn], set[Path]] = [], set()
    while turns := plan.turns():
        if turns != seen[0]:
            needed = {plan.folder(turn, client) for turn in turns for client in plan.clients(turn)}
            keep_only(plan.place, needed)
            for turn in turns:
                make_turn(plan, turn, seen[1])
            seen = turns, seen[1] & needed
        time.sleep(LOOK)
    keep_only(plan.place, ())


def make_turn(plan: ViewsPlan, turn: Turn, known: set[Path]) -> None:
    """Make what a round lacks; what lies there from before is checked once.

    Args:
        plan: Of the run.
        turn: The round.
        known: Folders that were made or checked; those of this round are added.
    """
    lacking = [each for each in plan.clients(turn) if plan.folder(turn, each) not in known]
    jobs = [plan.job(turn, client) for client in lacking]
    num_workers = 1 if plan.config.device == "cpu" else max(1, available_cpus() - 1)
    if num_workers == 1 or len(jobs) < 2:  # the cores train
        for job in jobs:
            prepare_round(job)
    else:
        for _ in work_at_once(prepare_round, jobs, num_workers, "encrypting"):
            pass
    known.update(map(partial(plan.folder, turn), lacking))


def keep_only(place: Path, folders: Sequence[Path] | set[Path]) -> None:
    """Remove all shards of rounds but these."""
    names = {folder.name for folder in folders}
    with Directory.open(place, make=0o700) as rounds:
        for entry in rounds.entries():
            if entry.kind == "folder" and entry.name not in names:
                rounds.remove_tree(entry.name)
