"""The events of a run, and the two observers that need no terminal."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal, Self, TextIO

from fl_ppseg.progress.state import RunProgress, ScoresLike, duration
from fl_ppseg.system.wording import counted

Phase = Literal["train", "evaluate"]
Clock = Callable[[], float]

log = logging.getLogger(__name__)


class RunObserver:
    """Events of a run; the calls are cheap and never fail a run. Here they do nothing."""

    def run_started(
        self,
        arms: Sequence[str],
        seeds: Sequence[int],
        num_rounds: int,
        num_train_clients: int,
        num_val_nodes: int,
    ) -> None:
        """Names the arms and seeds in the order in which they will run."""

    def arm_resumed(
        self, arm: str, seed: int, num_done: int, losses: Sequence[float], mious: Sequence[float]
    ) -> None:
        """Tells of the rounds of this arm and seed that were finished before this start."""

    def arm_started(self, arm: str, seed: int) -> None:
        """Tells that the rounds of this arm and seed come next."""

    def round_started(self, round: int) -> None:
        """Counts from 1; 0: the weights that training starts from are scored."""

    def replied(
        self, city: str, phase: Phase, num_done: int, num_expected: int, loss: float | None
    ) -> None:
        """Tells that one node has answered."""

    def round_finished(
        self, round: int, train_loss: float | None, scores: ScoresLike | None
    ) -> None:
        """`scores` over the val cities, None in rounds that are not evaluated."""

    def arm_finished(self, arm: str, seed: int) -> None:
        """Tells that this arm and seed are done."""

    def message(self, text: str) -> None:
        """A line that the user must see, such as a rejected reply."""

    def run_finished(self) -> None:
        """Tells that no event follows."""


class SilentObserver(RunObserver):
    """Shows nothing; messages are still logged as warnings."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None: ...

    def message(self, text: str) -> None:
        """Logs the line."""
        log.warning("%s", text)


class TrackingObserver(SilentObserver):
    """Keeps a `RunProgress` up to date; its children decide how to show it."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.progress = RunProgress((), (), 0, 0, 0, started_at=clock())

    def run_started(
        self,
        arms: Sequence[str],
        seeds: Sequence[int],
        num_rounds: int,
        num_train_clients: int,
        num_val_nodes: int,
    ) -> None:
        """Forgets what was before."""
        self.progress = RunProgress(
            tuple(arms), tuple(seeds), num_rounds, num_train_clients, num_val_nodes, self.clock()
        )

    def arm_resumed(
        self, arm: str, seed: int, num_done: int, losses: Sequence[float], mious: Sequence[float]
    ) -> None:
        """Notes what was done before."""
        self.progress.resume_arm(arm, seed, num_done, losses, mious)

    def arm_started(self, arm: str, seed: int) -> None:
        """Makes the arm the one under way."""
        self.progress.start_arm(arm, seed, self.clock())

    def round_started(self, round: int) -> None:
        """Clears the replies of the round before."""
        self.progress.start_round(round)

    def replied(
        self, city: str, phase: Phase, num_done: int, num_expected: int, loss: float | None
    ) -> None:
        """Counts the reply."""
        self.progress.reply(city, phase, num_done, num_expected)

    def round_finished(
        self, round: int, train_loss: float | None, scores: ScoresLike | None
    ) -> None:
        """Notes time, loss and mIoU."""
        self.progress.finish_round(round, train_loss, scores, self.clock())

    def arm_finished(self, arm: str, seed: int) -> None:
        """Marks the arm as done."""
        self.progress.finish_arm(arm, seed)


class LogObserver(TrackingObserver):
    """One plain line a round, for files, pipes and CI."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.stream = stream

    def arm_resumed(
        self, arm: str, seed: int, num_done: int, losses: Sequence[float], mious: Sequence[float]
    ) -> None:
        """Writes how far the arm had come."""
        super().arm_resumed(arm, seed, num_done, losses, mious)
        of_seed = f" seed {seed}" if len(self.progress.seeds) > 1 else ""
        rounds = counted(self.progress.num_rounds, "round")
        self._write(f"{arm}{of_seed}: {num_done} of {rounds} done before")

    def round_finished(
        self, round: int, train_loss: float | None, scores: ScoresLike | None
    ) -> None:
        """Writes the round's line."""
        super().round_finished(round, train_loss, scores)
        self._write(_round_line(self.progress, round, train_loss, scores, self.clock()))

    def message(self, text: str) -> None:
        """Writes the line, marked."""
        self._write(f"! {text}")

    def run_finished(self) -> None:
        """Writes how long the whole took."""
        self._write(f"done in {duration(self.clock() - self.progress.started_at)}")

    def _write(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


def _round_line(
    progress: RunProgress,
    number: int,
    train_loss: float | None,
    scores: ScoresLike | None,
    now: float,
) -> str:
    job = progress.current
    name = job.arm if job else ""
    seed = f" seed {job.seed}" if job and len(progress.seeds) > 1 else ""
    where = f"round {number}/{progress.num_rounds}" if number else "start"
    parts = [f"{name}{seed} {where}"]
    if train_loss is not None and math.isfinite(train_loss):
        parts.append(f"loss {train_loss:.3f}")
    if scores is not None:
        parts.append(f"mIoU {scores.mIoU:.1f} aAcc {scores.aAcc:.1f} mAcc {scores.mAcc:.1f}")
    if job and number:
        parts.append(f"{job.round_seconds[-1]:.1f} s")
    left = progress.seconds_left(now)
    if left and left[1] > 0:
        parts.append(f"about {duration(left[1])} left")
    return "  ".join(parts)
