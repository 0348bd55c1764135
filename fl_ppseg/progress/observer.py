"""Who is told of the events of a run: the base of all observers, and those without a terminal."""

import logging
import math
import time
from collections.abc import Callable
from typing import Self, TextIO

from fl_ppseg.progress.events import (
    ArmResumed,
    Event,
    Notice,
    RoundFinished,
    RunFinished,
    RunStarted,
)
from fl_ppseg.progress.state import RunProgress, duration
from fl_ppseg.system.wording import counted

Clock = Callable[[], float]

log = logging.getLogger(__name__)


class Observer:
    """Sees a run, event by event; a context manager around the run, however it ends.

    Events come from the loop of the rounds, which waits for the call.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None: ...

    def on_event(self, event: Event) -> None:
        """Called with each event as it happens."""


class SilentObserver(Observer):
    """Shows nothing; messages are still logged as warnings."""

    def on_event(self, event: Event) -> None:
        """Logs a message."""
        if isinstance(event, Notice):
            log.warning("%s", event.text)


class TrackingObserver(Observer):
    """Keeps a `RunProgress` up to date; its children decide how to show it."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.progress = RunProgress((), (), 0, 0, 0, started_at=clock())

    def on_event(self, event: Event) -> None:
        """Notes the event; a run that starts forgets what was before."""
        now = self.clock()
        if isinstance(event, RunStarted):
            self.progress = RunProgress(
                event.arms,
                event.seeds,
                event.num_rounds,
                event.num_train_clients,
                event.num_val_nodes,
                now,
            )
        else:
            self.progress.note(event, now)


class LogObserver(TrackingObserver):
    """One plain line a round, for files, pipes and CI."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.stream = stream

    def on_event(self, event: Event) -> None:
        """Writes a line for a finished round, a message, a resumed arm and the end."""
        super().on_event(event)
        match event:
            case ArmResumed(arm, seed, num_done) if num_done:
                of_seed = f" seed {seed}" if len(self.progress.seeds) > 1 else ""
                rounds = counted(self.progress.num_rounds, "round")
                self._write(f"{arm}{of_seed}: {num_done} of {rounds} done before")
            case RoundFinished():
                self._write(_round_line(self.progress, event, self.clock()))
            case Notice(text):
                self._write(f"! {text}")
            case RunFinished():
                self._write(f"done in {duration(self.clock() - self.progress.started_at)}")

    def _write(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


def _round_line(progress: RunProgress, done: RoundFinished, now: float) -> str:
    seed = f" seed {done.seed}" if len(progress.seeds) > 1 else ""
    where = f"round {done.round}/{progress.num_rounds}" if done.round else "start"
    parts = [f"{done.arm}{seed} {where}"]
    if done.train_loss is not None and math.isfinite(done.train_loss):
        parts.append(f"loss {done.train_loss:.3f}")
    if done.scores is not None:
        scores = done.scores
        parts.append(f"mIoU {scores.mIoU:.1f} aAcc {scores.aAcc:.1f} mAcc {scores.mAcc:.1f}")
    if progress.current and done.round:
        parts.append(f"{progress.current.round_seconds[-1]:.1f} s")
    left = progress.seconds_left(now)
    if left and left[1] > 0:
        parts.append(f"about {duration(left[1])} left")
    return "  ".join(parts)
