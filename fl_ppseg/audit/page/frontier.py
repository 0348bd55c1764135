"""The privacy-utility frontier: what an arm leaks against what it keeps of plain's mIoU.

Upper left is better: little leaked, much kept. An arm is on the Pareto frontier of an adversary if
no other arm leaks as little and keeps as much, one of them strictly. An attack that scores below a
blind guess, or returns no image, counts as a blind guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fl_ppseg.leaks.cells import Cell, column
from fl_ppseg.leaks.table import ADVERSARIES, Adversary, LeakTable
from fl_ppseg.leaks.words import NAMES
from fl_ppseg.pages.styles import INK, MUTED, PAPER, STYLE, ArmStyle
from fl_ppseg.report.figures import save_svg

LABEL: Final = 0.19  # inch from a name to the next one
NAME_SIZE: Final = 8.0  # points
NAME_WIDTH: Final = 0.6 * NAME_SIZE / 72  # inch a character, bold
AXES_WIDTH: Final = 2.1  # inch
LEAST_HEIGHT: Final = 2.2  # inch, of the axes
DASHES: Final = ((1, 2), (4, 2))
"""Of the lines that mark the ends of the scale."""
LEFT, BELOW, ABOVE, GAP = 0.55, 0.55, 0.45, 0.15  # inch around the axes; GAP is before the names


class Point(NamedTuple):
    """An arm and one adversary."""

    arm: str
    leak: float
    """SSIM of the best attack, at least that of a blind guess."""
    ratio: float
    """mIoU of the arm over that of `plain`."""


@dataclass(frozen=True)
class Frontier:
    """The arms against one adversary.

    Attributes:
        adversary: Who attacks.
        points: Arms with a ratio that were attacked, in the order of the audit.
        optimal: Those that no other beats, by rising leak.
        left_out: Arms that were attacked and have no ratio.
    """

    adversary: Adversary
    points: tuple[Point, ...]
    optimal: tuple[Point, ...]
    left_out: tuple[str, ...]


def frontiers(table: LeakTable) -> tuple[Frontier, ...]:
    """One frontier per adversary that attacked an arm with a ratio."""
    found = (_frontier(table, adversary) for adversary in ADVERSARIES)
    return tuple(frontier for frontier in found if frontier.points)


def pareto(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that no other dominates, by rising leak; lower leak and higher ratio are better.

    >>> pareto([Point("a", 0.2, 0.8), Point("b", 0.9, 1.0), Point("c", 0.9, 0.8)])[-1].arm
    'b'
    """
    best = [p for p in points if not any(_beats(other, p) for other in points)]
    return tuple(sorted(best, key=lambda point: (point.leak, point.ratio)))


def plot_frontiers(
    found: Sequence[Frontier],
    marks: Mapping[str, float],
    styles: Mapping[str, ArmStyle],
    directory: Path,
    spent: str = "",
) -> list[Path]:
    """Write one figure per adversary.

    Args:
        found: What to draw.
        marks: SSIM of a blind guess and of the answer alone, by name; each is marked by a line.
        styles: Styles of the arms.
        directory: Folder of the figures.
        spent: Effort of the audit, for the titles.
    """
    return [_plot(frontier, marks, styles, directory, spent) for frontier in found]


def _frontier(table: LeakTable, adversary: Adversary) -> Frontier:
    cells = column(table, adversary)
    points = tuple(
        Point(cell.arm.arm, _leak(cell, table.nothing.ssim), cell.arm.ratio_to_plain)
        for cell in cells
        if cell.arm.ratio_to_plain is not None
    )
    left_out = tuple(cell.arm.arm for cell in cells if cell.arm.ratio_to_plain is None)
    return Frontier(adversary, points, pareto(points), left_out)


def _leak(cell: Cell, blind: float) -> float:
    best = cell.best
    return blind if best is None or best.scores is None else max(blind, best.scores.ssim)


def _beats(a: Point, b: Point) -> bool:
    return a.leak <= b.leak and a.ratio >= b.ratio and (a.leak, a.ratio) != (b.leak, b.ratio)


def _plot(
    frontier: Frontier,
    marks: Mapping[str, float],
    styles: Mapping[str, ArmStyle],
    directory: Path,
    spent: str,
) -> Path:
    height = max(LEAST_HEIGHT, LABEL * len(frontier.points))
    longest = max(len(point.arm) for point in frontier.points)
    size = LEFT + AXES_WIDTH + GAP + longest * NAME_WIDTH, BELOW + height + ABOVE
    place = (LEFT / size[0], BELOW / size[1], AXES_WIDTH / size[0], height / size[1])
    with matplotlib.rc_context(STYLE | {"font.size": 9.0}):
        figure = Figure(figsize=size)
        axes = figure.add_axes(place)
        _draw_scale(axes, frontier, marks)
        _draw_front(axes, frontier.optimal)
        _draw_points(axes, frontier, styles)
        _draw_names(axes, frontier, styles, LABEL / height)
        who = f"before the {NAMES[frontier.adversary]}"
        axes.set_title(f"{who}\n{spent}" if spent else who, pad=8, fontsize=9)
        return save_svg(figure, directory / f"frontier_{frontier.adversary}.svg")


def _draw_scale(axes: Axes, frontier: Frontier, marks: Mapping[str, float]) -> None:
    low = min(0.0, *(point.leak for point in frontier.points))
    high = max(1.0, *(point.ratio for point in frontier.points))
    axes.set_xlim(low - 0.02, 1.04)
    axes.set_ylim(0, high * 1.06)
    axes.set_xlabel("SSIM of the best attack")
    axes.set_ylabel("mIoU, share of plain's")
    axes.grid(linewidth=0.8)
    for row, ((name, ssim), dashes) in enumerate(zip(marks.items(), DASHES, strict=True)):
        axes.axvline(ssim, color=MUTED, linewidth=1, linestyle=(0, dashes))
        above = (3, 4 + 10 * row)  # points
        axes.annotate(name, (ssim, 0), above, textcoords="offset points", fontsize=8, color=MUTED)


def _draw_front(axes: Axes, optimal: Sequence[Point]) -> None:
    """Draw the frontier as a staircase."""
    leaks, ratios = [p.leak for p in optimal], [p.ratio for p in optimal]
    axes.step(leaks, ratios, where="post", color=INK, linewidth=1.2, zorder=2)


def _draw_points(axes: Axes, frontier: Frontier, styles: Mapping[str, ArmStyle]) -> None:
    for point in frontier.points:
        colour, is_best = styles[point.arm].colour, point in frontier.optimal
        axes.plot(
            point.leak, point.ratio, "o", markersize=7, zorder=4 + is_best, color=colour,
            markerfacecolor=colour if is_best else PAPER, markeredgewidth=1.6, clip_on=False,
        )  # fmt: skip


def _draw_names(axes: Axes, frontier: Frontier, styles: Mapping[str, ArmStyle], gap: float) -> None:
    """Draw names in a column beside the axes, each with a line to its dot, without overlap."""
    ordered = sorted(frontier.points, key=lambda point: (point.ratio, -point.leak))
    preferred = [point.ratio / axes.get_ylim()[1] for point in ordered]
    for point, place in zip(ordered, spread(preferred, gap), strict=True):
        is_best = point in frontier.optimal
        axes.annotate(
            point.arm,
            (point.leak, point.ratio),
            (1 + GAP / AXES_WIDTH, place),
            textcoords="axes fraction",
            va="center",
            fontsize=NAME_SIZE,
            fontweight="bold" if is_best else "normal",
            color=INK if is_best else MUTED,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": styles[point.arm].colour,
                "linewidth": 0.7,
                "alpha": 0.6,
                "shrinkA": 2,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def spread(preferred: Sequence[float], gap: float) -> list[float]:
    """Places in rising order, near the given ones, `gap` apart, within 0 to 1 if possible.

    Args:
        preferred: Preferred places in rising order.
        gap: Least distance.

    >>> spread([0.1, 0.5, 0.5], 0.25)
    [0.1, 0.5, 0.75]
    """
    places: list[float] = []
    for place in preferred:
        places.append(max(place, places[-1] + gap) if places else place)
    ceiling = 1.0
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places
