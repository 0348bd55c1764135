"""Progress of the counted steps before a run: scenes drawn, views encrypted, weights fetched.

`rich` is loaded when there is something to show, and not for the help of a command.
"""

from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

PLAIN_LINES = 4  # lines per step if there is no terminal


class StepProgress:
    """A bar per step on a terminal, a few plain lines elsewhere, nothing if `quiet`."""

    def __init__(self, console: "Console", quiet: bool = False) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = console
        self._quiet = quiet
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            expand=True,
            disable=quiet or not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._quarters: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, label: str, done: int, total: int) -> None:
        """Sets the step `label` to `done` of `total`; a new label is a new step."""
        if self._quiet:
            return
        if self._console.is_terminal:
            self._update_bar(label, done, total)
        else:
            self._write_quarter(label, done, total)

    def say(self, line: str) -> None:
        """A line above the bars, whether progress is shown or not."""
        from fl_ppseg.progress.lines import say

        say(self._console, line)

    def _update_bar(self, label: str, done: int, total: int) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[label], completed=done, total=total)

    def _write_quarter(self, label: str, done: int, total: int) -> None:
        quarter = PLAIN_LINES * done // total if total else PLAIN_LINES
        if quarter > self._quarters.get(label, 0):
            self._quarters[label] = quarter
            print(f"{label} {done}/{total}", file=self._console.file, flush=True)


def steps(stream: TextIO, quiet: bool = False) -> StepProgress:
    """`with steps(sys.stderr) as s: s.update("scenes", 3, 100)`."""
    from rich.console import Console

    return StepProgress(Console(file=stream), quiet)
