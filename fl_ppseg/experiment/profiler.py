"""Measures where the time of a run goes, round by round, while it happens (`--profile`)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_ppseg.config.sections import Config
from fl_ppseg.federation.profile import (
    RoundTime,
    RunProfile,
    StartTime,
    TimeParts,
    load_profile,
    save_profile,
    shared_out,
)
from fl_ppseg.progress.events import Event, RoundFinished, RoundStarted
from fl_ppseg.progress.observer import Observer
from fl_ppseg.system.files import available_cpus
from fl_ppseg.system.spans import Span, Spans, recorded_spans


class Profiler(Observer):
    """Cuts the wall time at the end of each round, and shares it out over the spans in it.

    What was measured is in the run folder at the end of each round.
    """

    def __init__(self, run: Path, config: Config, spans: Spans, began: int) -> None:
        """Go on with the profile of the run, if there is one.

        Args:
            run: The run folder.
            config: Of the run.
            spans: Of this process and those that it starts.
            began: When the command began, in nanoseconds of the monotonic clock.

        Raises:
            InputError: The profile is damaged.
        """
        self.profile = load_profile(run) or RunProfile()
        self._run = run
        self._engine = config.engine
        self._num_workers = _num_workers(config)
        self._read = spans
        self._spans: list[Span] = []
        self._cut = began
        self._start: StartTime | None = None

    def on_event(self, event: Event) -> None:
        """Ends the preparation where the first round starts, and each round where it ends."""
        match event:
            case RoundStarted() if self._start is None:
                self._end_preparation()
            case RoundFinished(arm, seed, round):
                parts = self._end_stretch()
                done = RoundTime(**parts.model_dump(), arm=arm, seed=seed, round=round)
                self.profile = self.profile.including(done)
                save_profile(self._run, self.profile)

    def conclude(self) -> RunProfile:
        """All that is behind the last round now belongs to the conclusion.

        Returns:
            The profile up to now, which is in the run folder; a later call adds what came since.
        """
        start = self._start or self._end_preparation()
        parts = self._until(time.monotonic_ns())
        self._set_start(start.model_copy(update={"conclusion": parts}))
        save_profile(self._run, self.profile)
        return self.profile

    def _end_preparation(self) -> StartTime:
        start = StartTime(
            engine=self._engine, num_workers=self._num_workers, preparation=self._end_stretch()
        )
        self.profile = self.profile.model_copy(update={"starts": (*self.profile.starts, start)})
        self._set_start(start)
        return start

    def _set_start(self, start: StartTime) -> None:
        self._start = start
        starts = (*self.profile.starts[:-1], start)
        self.profile = self.profile.model_copy(update={"starts": starts})

    def _end_stretch(self) -> TimeParts:
        now = time.monotonic_ns()
        parts = self._until(now)
        self._cut = now
        self._spans = [span for span in self._spans if span.end > now]
        return parts

    def _until(self, now: int) -> TimeParts:
        self._spans += self._read.new()
        return shared_out(self._spans, self._cut, now, self._num_workers)


@contextmanager
def profiling(run: Path, config: Config, began: int) -> Iterator[Profiler]:
    """Record the spans of a run; arguments as for `Profiler`."""
    with recorded_spans() as spans:
        yield Profiler(run, config, spans, began)


def _num_workers(config: Config) -> int:
    """Local updates and evaluations that the engine runs at the same time."""
    return 1 if config.engine == "in-process" else config.num_workers or available_cpus()
