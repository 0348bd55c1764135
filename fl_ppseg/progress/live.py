"""The live view of a run in a terminal: rounds, clients coming in, time left, arms side by side."""

import math
import time
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fl_ppseg.progress.events import Event, Notice
from fl_ppseg.progress.observer import (
    Clock,
    LogObserver,
    Observer,
    SilentObserver,
    TrackingObserver,
)
from fl_ppseg.progress.state import (
    ASCII_LEVELS,
    LEVELS,
    JobProgress,
    RunProgress,
    duration,
)
from fl_ppseg.progress.state import sparkline as draw
from fl_ppseg.system.wording import counted

FRAME_LINES = 13  # all of the view but the rows of the arms
WIDE = 72
CLIENT_LINES = 2
PHASES = {"train": "training", "evaluate": "scoring"}


class LiveView(TrackingObserver):
    """A context manager; leaves the last picture and a usable terminal however the run ends."""

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.console = console or Console()
        self._live = Live(
            self, console=self.console, refresh_per_second=4, vertical_overflow="crop"
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.progress.stopped = error is not None
        self._live.stop()

    def on_event(self, event: Event) -> None:
        """Prints a message above the view, where it stays; the view shows all else."""
        super().on_event(event)
        if isinstance(event, Notice):
            self.console.print(f"[bold yellow]![/] {escape(event.text)}", highlight=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield picture(
            self.progress,
            now=self.clock(),
            width=options.max_width,
            height=console.height,
            ascii_only=options.ascii_only,
        )


def choose_view(quiet: bool, stream: TextIO) -> Observer:
    """Live view on a terminal, plain lines elsewhere, nothing if `quiet`; use it in a `with`."""
    if quiet:
        return SilentObserver()
    console = Console(file=stream)
    return LiveView(console) if console.is_terminal else LogObserver(stream)


def picture(
    progress: RunProgress, now: float, width: int, height: int, ascii_only: bool = False
) -> RenderableType:
    """The whole view for a terminal of `width` x `height` characters, one line to spare."""
    inside = max(width - 4, 8)
    levels = ASCII_LEVELS if ascii_only else LEVELS
    table = _arms(progress, inside, max(height - FRAME_LINES - 1, 1), levels)
    body = Group(_headline(progress), Text(), _bars(progress, now, inside), Text(), table)
    elapsed = f"[dim]{duration(now - progress.started_at)} elapsed[/]"
    return Panel(
        body,
        title="[bold]fl_ppseg[/]",
        title_align="left",
        subtitle=f"{elapsed} · {_remaining(progress, now)}",
        subtitle_align="right",
        border_style="red" if progress.stopped else "cyan",
        width=width,
    )


def _headline(progress: RunProgress) -> Text:
    job = progress.current
    if job is None:
        return Text("starting the clients …", style="dim", no_wrap=True, overflow="ellipsis")
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(job.arm, style="bold")
    line.append(f"  arm {_position(progress, job)} of {len(progress.arms)}")
    if len(progress.seeds) > 1:
        line.append(f"  seed {job.seed}")
    clients = counted(progress.num_train_clients, "client")
    val = counted(progress.num_val_nodes, "unseen val client")
    line.append(f"  {clients}, {val}", style="dim")
    return line


def _position(progress: RunProgress, job: JobProgress) -> int:
    return progress.arms.index(job.arm) + 1 if job.arm in progress.arms else len(progress.arms)


def _bars(progress: RunProgress, now: float, width: int) -> RenderableType:
    job = progress.current
    num_rounds = job.num_rounds_done if job else 0
    left = progress.seconds_left(now)
    arm_left = f"arm: {duration(left[0])} left" if left else "measuring …"
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=7, no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(width=7, no_wrap=True, justify="right")
    grid.add_column(width=18 if width >= WIDE else 0, no_wrap=True, style="dim")
    total = progress.num_rounds
    grid.add_row("rounds", _bar(num_rounds, total, "cyan"), f"{num_rounds}/{total}", arm_left)
    done, expected = progress.num_done, progress.num_expected
    at_work = f"round {progress.round} {PHASES.get(progress.phase, progress.phase)}"
    phase = at_work if progress.round else "scoring the start"
    colour = "green" if progress.phase == "train" else "magenta"
    grid.add_row("clients", _bar(done, expected, colour), f"{done}/{expected}", phase)
    return Group(grid, _client_names(progress.clients, width))


def _bar(done: int, total: int, colour: str) -> ProgressBar:
    return ProgressBar(
        max(total, 1), done, complete_style=colour, finished_style=colour, style="bright_black"
    )


def _client_names(clients: list[str], width: int) -> Text:
    """The newest names that fit on two lines, padded to two so that nothing jumps."""
    lines: list[str] = [""]
    for client in reversed(clients):
        if len(lines[-1]) + len(client) + 1 > width:
            if len(lines) == CLIENT_LINES:
                break
            lines.append("")
        lines[-1] += f" {client}" if lines[-1] else client
    lines += [""] * (CLIENT_LINES - len(lines))
    return Text("\n".join(line[:width] for line in lines), style="green", no_wrap=True)


def _arms(progress: RunProgress, width: int, max_rows: int, levels: str) -> Table:
    spark = min(width // 6, 20) if width >= WIDE else 0
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("arm", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("round", justify="right", width=7, no_wrap=True)
    table.add_column("train loss" if spark else "loss", width=6 + spark, no_wrap=True)
    table.add_column("mIoU so far" if spark else "mIoU", width=5 + spark, no_wrap=True)
    for arm in _visible(progress, max_rows):
        table.add_row(*_arm_cells(progress, arm, spark, levels), style=_arm_style(progress, arm))
    return table


def _visible(progress: RunProgress, max_rows: int) -> tuple[str, ...]:
    """As many arms as fit, the one under way among them."""
    job = progress.current
    here = _position(progress, job) if job else 1
    start = max(min(here - max_rows // 2 - 1, len(progress.arms) - max_rows), 0)
    return progress.arms[start : start + max_rows]


def _arm_style(progress: RunProgress, arm: str) -> str:
    return "bold" if progress.current and progress.current.arm == arm else ""


def _arm_cells(progress: RunProgress, arm: str, spark: int, levels: str) -> tuple[Text, ...]:
    jobs = [job for job in progress.jobs.values() if job.arm == arm]
    started = [job for job in jobs if job.started_at is not None or job.num_before]
    if not started:
        return Text(arm), Text("waiting", style="dim"), Text(), Text()
    job = started[-1]
    done = all(job.finished for job in jobs)
    rounds = Text("done" if done else f"{job.num_rounds_done}/{job.num_rounds}")
    latest = [job.mious[-1] for job in started if job.mious]
    miou = sum(latest) / len(latest) if latest else math.nan
    loss = job.losses[-1] if job.losses else math.nan
    return (
        Text(arm),
        rounds,
        _trend(job.losses, f"{loss:5.2f}", spark - 1, levels, "yellow"),
        _trend(job.mious, f"{miou:4.1f}", spark - 1, levels, "cyan"),
    )


def _trend(values: list[float], number: str, width: int, levels: str, colour: str) -> Text:
    if not values:
        return Text("–", style="dim")
    finite = [value for value in values if math.isfinite(value)]
    line = draw(finite, width, levels)
    return Text.assemble(number, " " if line else "", (line, colour))


def _remaining(progress: RunProgress, now: float) -> str:
    if progress.stopped:
        return "[red]stopped[/]"
    if progress.jobs and all(job.finished for job in progress.jobs.values()):
        return "[green]done[/]"
    left = progress.seconds_left(now)
    return f"about {duration(left[1])} left" if left else "measuring the first round"
