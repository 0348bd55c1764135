"""One run of a federation, and the fault that goes on beside it."""

import time
from collections.abc import Callable, Generator

from benchmarks.faults.federation import COORDINATOR, LOOK_SECONDS, Federation
from benchmarks.faults.outcome import Outcome, read
from benchmarks.faults.programs import Program, python
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.progress.events import Event, RoundStarted
from fl_ppseg.progress.observer import Observer
from fl_ppseg.progress.recorded import replay

RUN_SECONDS = 1800.0
Steps = Generator[None, None, None]
"""What a fault does, a step at each look."""


class Trial:
    """A run that is under way, as a fault sees it."""

    def __init__(self, federation: Federation, folder: RunFolder) -> None:
        self.federation = federation
        self.folder = folder
        self.notes: list[str] = []
        """What is to stand in the table besides."""
        run = python(
            "strategies.coordinator", "run", "--home", federation.home, "--run", folder.path
        )
        self._command = federation.network.on(COORDINATOR, run)

    def carry_out(self, fault: Callable[["Trial"], Steps]) -> Outcome:
        """Run to the end, with a fault that goes on step by step meanwhile."""
        begin = time.monotonic()
        output = self.federation.folder / "logs" / f"run-{self.folder.path.name}.txt"
        program = Program(self._command, output)
        steps = fault(self)
        try:
            while program.process.poll() is None and time.monotonic() - begin < RUN_SECONDS:
                self.federation.look()
                next(steps, None)
                time.sleep(LOOK_SECONDS)
        finally:
            steps.close()
            status = program.wait(1)
        return read(self.folder, status, time.monotonic() - begin, program.said())

    def round(self) -> int:
        """The round that is under way; 0 before the first."""
        view = _Rounds()
        replay(self.folder.progress, view)
        return view.round

    def middle_of(self, round: int, seconds: float) -> Steps:
        """Wait until some seconds into a round."""
        while self.round() < round:
            yield
        yield from pause(seconds)


def pause(seconds: float) -> Steps:
    """Wait."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


class _Rounds(Observer):
    """Remembers the newest round."""

    round = 0

    def on_event(self, event: Event) -> None:
        if isinstance(event, RoundStarted):
            self.round = event.round
