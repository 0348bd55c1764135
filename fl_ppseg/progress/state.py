"""How far a run has come: measured round times, losses and scores of each arm, time left."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fl_ppseg.progress.events import (
    ArmFinished,
    ArmResumed,
    ArmStarted,
    Event,
    Replied,
    RoundFinished,
    RoundStarted,
)

LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-=+*#@"


@dataclass
class JobProgress:
    """One arm with one seed. `round_seconds[0]` holds the setting-up too, so it stands apart.

    `mious` begin with the start's, where that was scored; it counts as no round.
    """

    arm: str
    seed: int
    num_rounds: int
    started_at: float | None = None
    finished: bool = False
    num_before: int = 0
    """Rounds that an earlier start has done, whose times are not known."""
    round_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    mious: list[float] = field(default_factory=list)

    @property
    def num_rounds_done(self) -> int:
        """Rounds that have ended."""
        return self.num_before + len(self.round_seconds)

    def note(self, done: RoundFinished) -> None:
        """Append the loss and mIoU of a round, where it has them."""
        if done.train_loss is not None:
            self.losses.append(done.train_loss)
        if done.scores is not None:
            self.mious.append(done.scores.mIoU)

    def round_began_at(self) -> float:
        """Clock time at which the round now under way began."""
        return (self.started_at or 0.0) + sum(self.round_seconds)


@dataclass
class RunProgress:
    """All jobs (arm x seed) of a run in the order in which they run; times in seconds."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    num_rounds: int
    num_train_clients: int
    num_val_nodes: int
    started_at: float
    jobs: dict[tuple[str, int], JobProgress] = field(init=False)
    current: JobProgress | None = None
    round: int = 0
    phase: str = "train"
    num_done: int = 0
    num_expected: int = 0
    clients: list[str] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        self.jobs = {
            (arm, seed): JobProgress(arm, seed, self.num_rounds)
            for arm in self.arms
            for seed in self.seeds
        }

    def note(self, event: Event, now: float) -> None:
        """Take an event into account that happened at clock time `now`."""
        match event:
            case ArmResumed():
                self._resume_arm(event)
            case ArmStarted(arm, seed):
                self.current = self._job(arm, seed)
                self.current.started_at = now
                self._start_round(0)
            case RoundStarted():
                self._start_round(event.round)
            case Replied():
                if event.phase != self.phase:
                    self._start_phase(event.phase, event.num_expected)
                self.num_done, self.num_expected = event.num_done, event.num_expected
                self.clients.append(event.client)
            case RoundFinished():
                self._finish_round(event, now)
            case ArmFinished(arm, seed):
                self._job(arm, seed).finished = True

    def _job(self, arm: str, seed: int) -> JobProgress:
        return self.jobs.setdefault((arm, seed), JobProgress(arm, seed, self.num_rounds))

    def _resume_arm(self, event: ArmResumed) -> None:
        job = self._job(event.arm, event.seed)
        job.num_before, job.losses, job.mious = event.num_done, [], []
        job.finished = event.num_done >= job.num_rounds
        for done in event.rounds:
            job.note(done)

    def _start_round(self, number: int) -> None:
        self.round = number
        self._start_phase("train", self.num_train_clients)

    def _finish_round(self, done: RoundFinished, now: float) -> None:
        job = self.current
        if job is None:
            return
        self.round = done.round
        if done.round:
            job.round_seconds.append(now - job.round_began_at())
        job.note(done)

    def seconds_left(self, now: float) -> tuple[float, float] | None:
        """(arm, whole run) seconds still to go; None before one round has been measured."""
        firsts = [job.round_seconds[0] for job in self.jobs.values() if job.round_seconds]
        if self.current is None or not firsts:
            return None
        first = sum(firsts) / len(firsts)
        own = self.current.round_seconds[1:]
        every = [s for job in self.jobs.values() for s in job.round_seconds[1:]]
        later = _mean(own) or _mean(every) or first
        waiting = [j for j in self.jobs.values() if j.started_at is None and not j.finished]
        rounds = sum(job.num_rounds - job.num_before for job in waiting)
        arm = _job_seconds_left(self.current, first, later, now)
        return arm, arm + len(waiting) * first + (rounds - len(waiting)) * later

    def _start_phase(self, phase: str, num_expected: int) -> None:
        self.phase, self.num_done, self.num_expected, self.clients = phase, 0, num_expected, []


def sparkline(values: Sequence[float], width: int, levels: str = LEVELS) -> str:
    """Draws values as bars from the lowest to the highest of them, at most `width` characters.

    >>> sparkline([0, 1, 2, 3], width=8)
    '▁▃▆█'
    >>> sparkline([5, 5], width=8)
    '▁▁'
    """
    if not values or width < 1:
        return ""
    num = min(len(values), width)
    shown = [values[(i + 1) * len(values) // num - 1] for i in range(num)]
    low, span = min(shown), (max(shown) - min(shown)) or 1.0
    return "".join(levels[round((v - low) / span * (len(levels) - 1))] for v in shown)


def duration(seconds: float) -> str:
    """Seconds -> `0:07`, `12:05` or `1:02:03`.

    >>> duration(3723.4)
    '1:02:03'
    """
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _job_seconds_left(job: JobProgress, first: float, later: float, now: float) -> float:
    rounds_left = max(job.num_rounds - job.num_rounds_done, 0)
    if job.finished or not rounds_left:
        return 0.0
    under_way = later if job.round_seconds else first
    spent = now - job.round_began_at()
    return max(under_way - spent, 0.0) + (rounds_left - 1) * later


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
