"""What a run's report says of its time: where it went, in a table and as a bar for each round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.markup import escape
from rich.table import Table

from fl_ppseg.federation.profile import ALL_PARTS, RoundTime, RunProfile, TimeParts, total
from fl_ppseg.pages.inline import inline_svg
from fl_ppseg.pages.styles import ARM_COLOURS, RULE, STYLE
from fl_ppseg.report.figures import WIDE, save_svg
from fl_ppseg.report.sheets import Column, Sheet
from fl_ppseg.report.tables import bare_table

COLOURS: Final = {
    "compute": ARM_COLOURS[0],
    "data": ARM_COLOURS[2],
    "encryption": ARM_COLOURS[1],
    "wire": ARM_COLOURS[3],
    "aggregation": ARM_COLOURS[4],
    "waiting": RULE,
}
"""From the bottom of a bar to its top."""
ROW: Final = 1.15  # inch
BAR: Final = 0.8
"""Of the distance between two rounds."""
MEANINGS: Final = {
    "wall": "Seconds of wall time; the other columns add up to it.",
    "compute": "Local updates and evaluation.",
    "data": "Images and label maps: drawn, read, resized, hashed, stored.",
    "encryption": "Keys and ciphers, the owner's other work.",
    "wire": "Messages: encoded, decoded, hashed, held against policy and ledger.",
    "aggregation": "From replies to the next weights, the checkpoint, the lines of results.",
    "waiting": "All else: the start of modules, processes and engine, messages on their way, "
    "workers without work, tables and figures.",
}
"""Of the columns."""


class TimeRow(NamedTuple):
    """A stretch of time by name."""

    name: str
    parts: TimeParts


class Profiled(NamedTuple):
    """The profile of a run as its report shows it."""

    sheet: Sheet[TimeRow]
    summary: str
    """How a bar is to be read, and how far the run is from its compute alone."""
    bars: list[Markup]
    """A stacked bar for each round, in one drawing; none without rounds."""


def profiled(profile: RunProfile, directory: Path) -> Profiled:
    """Write the figure, and gather what the report says."""
    drawings = [plot_rounds(profile.rounds, directory)] if profile.rounds else []
    return Profiled(time_sheet(profile), _summary(profile), [inline_svg(p) for p in drawings])


def time_sheet(profile: RunProfile) -> Sheet[TimeRow]:
    """Where the time went: preparation, rounds, conclusion, the whole run."""
    num_rounds = len(profile.rounds)
    rows = (
        TimeRow("preparation", profile.preparation),
        TimeRow(f"{num_rounds} round{'' if num_rounds == 1 else 's'}", total(profile.rounds)),
        TimeRow("conclusion", profile.conclusion),
        TimeRow("whole run", profile.total),
    )
    columns = (
        Column[TimeRow]("seconds", "A stretch of the run.", lambda row: row.name),
        *(_column(part) for part in MEANINGS),
    )
    return Sheet(columns, rows)


def profile_table(profile: RunProfile) -> Table:
    """What a console prints at the end of a run."""
    sheet = time_sheet(profile)
    table = bare_table(_summary(profile))
    for column in sheet.columns:
        table.add_column(column.heading, justify="left" if column is sheet.columns[0] else "right")
    for cells in sheet.cells:
        table.add_row(*map(escape, cells))
    return table


def plot_rounds(rounds: Sequence[RoundTime], directory: Path) -> Path:
    """Write a stacked bar for each round, a row for each arm and seed.

    Args:
        rounds: At least one.
        directory: Where the SVG goes.
    """
    trainings: dict[tuple[str, int], list[RoundTime]] = {}
    for each in rounds:
        trainings.setdefault((each.arm, each.seed), []).append(each)
    has_seeds = len({seed for _, seed in trainings}) > 1
    with matplotlib.rc_context(STYLE):
        size = (WIDE, ROW * len(trainings) + 1.1)
        figure = Figure(figsize=size, layout="constrained")
        rows = figure.subplots(len(trainings), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, ((arm, seed), own) in zip(rows, trainings.items(), strict=True):
            _draw(axes, own)
            axes.set_title(f"{arm}, seed {seed}" if has_seeds else arm, fontsize=10, pad=4)
        rows[0].set_ylim(bottom=0)
        rows[-1].set_xlabel("round")
        rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.supylabel("seconds", fontsize=10)
        handles, labels = rows[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower left", ncols=6, frameon=False, handlelength=1.2
        )
        return save_svg(figure, directory / "time_by_round.svg")


def _draw(axes: Axes, rounds: Sequence[RoundTime]) -> None:
    """Bars of one training, each part of all rounds one shape, which is nothing between bars."""
    ordered = sorted(rounds, key=lambda each: each.round)
    middle = np.array([each.round for each in ordered], np.float64)
    edges = np.stack([middle - BAR / 2, middle + BAR / 2], axis=1).ravel()
    below = np.zeros(len(ordered))
    for part, colour in COLOURS.items():
        above = below + [each.of(part) for each in ordered]
        axes.stairs(
            _with_gaps(above), edges, baseline=_with_gaps(below), fill=True, color=colour,
            linewidth=0, label=part,
        )  # fmt: skip
        below = above
    axes.grid(axis="y", linewidth=0.8)


def _with_gaps(values: np.ndarray) -> np.ndarray:
    """(N,) -> (2N - 1,): 0 between each two."""
    return np.stack([values, np.zeros_like(values)], axis=1).ravel()[:-1]


def _column(part: str) -> Column[TimeRow]:
    return Column(part, MEANINGS[part], lambda row: f"{row.parts.of(part):.1f}")


def _summary(profile: RunProfile) -> str:
    numbers = sorted({start.num_workers for start in profile.starts})
    workers = " or ".join(map(str, numbers))
    plural = "" if numbers == [1] else "s"
    told = f"worker-seconds over {workers} worker{plural}, which add up to the wall time"
    over = profile.over_compute
    return told if over is None else f"{told}; the whole run took {over:.2f} times its compute"


assert COLOURS.keys() == {*ALL_PARTS}
