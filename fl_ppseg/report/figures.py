"""Curves and bars of a run as SVG; of many arms, wide curves and a grid of numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.pages.styles import ARM_COLOURS, INK, STYLE, ArmStyle
from fl_ppseg.report.rows import MISSING
from fl_ppseg.report.series import Curve, Series
from fl_ppseg.system.files import replacing

MANY_ARMS = 9
"""From so many arms on colours repeat: curves are wide, and numbers take the place of bars."""
WIDTH, WIDE = 5.6, 10.5  # inch; a phone shows WIDTH at about two thirds and scrolls WIDE
BAR = 0.085  # inch
CELL = 0.3  # inch
MANY_CLIENTS = 40
"""Of more training clients, no bar of each is drawn, but how their scores are spread."""
SPREAD = {"best": 100, "upper quarter": 75, "median": 50, "lower quarter": 25, "lowest": 0}
"""What is shown of many scores -> its percentile."""
ByKey = Mapping[str, float | None]
"""Scores by client or class, in percent; None where nothing was labelled."""


def plot_curves(series: Series, styles: Mapping[str, ArmStyle], directory: Path) -> list[Path]:
    """Writes scores on val clients and training loss over the rounds; empty ones are left out."""
    plots = (
        ("miou_curves.svg", "mIoU on unseen val clients, %", series.val_miou),
        ("above_curves.svg", "of plain's mIoU above no image", series.above_no_image),
        ("loss_curves.svg", "training loss, mean over clients", series.train_loss),
    )
    return [
        _plot_curves(directory / name, title, curves, styles)
        for name, title, curves in plots
        if curves
    ]


def plot_clients(
    summary: RunSummary,
    val_clients: Sequence[str],
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> list[Path]:
    """Writes bars of mIoU for each client, the unseen ones first; of many, how they are spread."""
    scores: dict[str, ByKey] = {n: arm.per_client_mIoU for n, arm in summary.arms.items()}
    clients = sorted({client for by_client in scores.values() for client in by_client})
    seen = [client for client in clients if client not in val_clients]
    groups = [(f"{client} (unseen)", client) for client in clients if client in val_clients]
    if len(seen) <= MANY_CLIENTS:
        groups += [(client, client) for client in seen]
        title = "mIoU in each client, %"
    else:
        scores = {name: {**by, **_spread(by, seen)} for name, by in scores.items()}
        groups += [(key, f"/{key}") for key in SPREAD]
        title = f"mIoU in unseen clients, and spread over the other {len(seen):,}, %"
    return _plot_groups(directory / "per_client.svg", title, groups, scores, styles)


def _spread(scores: ByKey, clients: Sequence[str]) -> dict[str, float | None]:
    """Percentiles of the scores of clients, under names that no client has."""
    found = [value for client in clients if (value := scores.get(client)) is not None]
    return {
        f"/{key}": float(np.percentile(found, share)) if found else None
        for key, share in SPREAD.items()
    }


def plot_classes(
    summary: RunSummary,
    class_names: Sequence[str],
    styles: Mapping[str, ArmStyle],
    directory: Path,
) -> list[Path]:
    """Writes bars of IoU for each class on the val clients; a class without pixels has none."""
    scores = {name: arm.per_class_iou for name, arm in summary.arms.items()}
    present = {key for by in scores.values() for key, score in by.items() if score is not None}
    groups = [(n if n in present else f"{n} (no pixels)", n) for n in class_names]
    title = "IoU of each class on unseen val clients, %"
    return _plot_groups(directory / "per_class.svg", title, groups, scores, styles)


def _plot_curves(
    path: Path, title: str, curves: Mapping[str, Curve], styles: Mapping[str, ArmStyle]
) -> Path:
    many = len(curves) >= MANY_ARMS
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 5.2) if many else (WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        for arm in (arm for arm in styles if arm in curves):
            _draw_curve(axes, arm, curves[arm], styles[arm], with_range=not many)
        axes.set_title(title, pad=10)
        axes.set_xlabel("round")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.8)
        _legend(figure, axes, len(curves))
        return save_svg(figure, path)


def _draw_curve(axes: Axes, arm: str, curve: Curve, style: ArmStyle, with_range: bool) -> None:
    """The mean over seeds, and from the least to the largest seed where there is room."""
    rounds = sorted(curve)
    means = np.array([np.mean(curve[r]) for r in rounds])
    axes.plot(
        rounds,
        means,
        color=style.colour,
        linestyle=style.line,
        linewidth=2,
        marker="o" if len(rounds) == 1 else "",
        label=_literal(arm),
    )
    if with_range and max(len(curve[r]) for r in rounds) > 1:
        low, high = ([pick(curve[r]) for r in rounds] for pick in (min, max))
        axes.fill_between(rounds, low, high, color=style.colour, alpha=0.18, linewidth=0)


def _plot_groups(
    path: Path,
    title: str,
    groups: Sequence[tuple[str, str]],
    scores: Mapping[str, ByKey],
    styles: Mapping[str, ArmStyle],
) -> list[Path]:
    """Bars, or of many arms a grid of numbers; `groups` are (label, key into the scores)."""
    known = (by_key.get(key) for by_key in scores.values() for _, key in groups)
    if all(value is None for value in known):
        return []
    with matplotlib.rc_context(STYLE):
        if len(scores) >= MANY_ARMS:
            figure = _grid(groups, scores)
        else:
            figure = _bars(groups, scores, styles)
        figure.axes[0].set_title(title, pad=10)
        return [save_svg(figure, path)]


def _bars(
    groups: Sequence[tuple[str, str]],
    scores: Mapping[str, ByKey],
    styles: Mapping[str, ArmStyle],
) -> Figure:
    """Horizontal bars, a group a row."""
    pitch = BAR * len(scores) + 0.12
    figure = Figure(figsize=(WIDTH, pitch * len(groups) + 1.1), layout="constrained")
    axes = figure.subplots()
    for position, (arm, by_key) in enumerate(scores.items()):
        lengths = [by_key.get(key) or 0.0 for _, key in groups]
        offsets = np.arange(len(groups)) * pitch + position * BAR
        axes.barh(offsets, lengths, BAR * 0.86, color=styles[arm].colour, label=_literal(arm))
    middle = (len(scores) - 1) * BAR / 2
    labels = [_literal(label) for label, _ in groups]
    axes.set_yticks(np.arange(len(groups)) * pitch + middle, labels, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(groups) * pitch - pitch + 2 * middle + BAR, -BAR)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.8)
    _legend(figure, axes, len(scores))
    return figure


def _grid(groups: Sequence[tuple[str, str]], scores: Mapping[str, ByKey]) -> Figure:
    """A row a group, a column an arm; the shade repeats the number."""
    values = np.array(
        [[by.get(key) for by in scores.values()] for _, key in groups], dtype=np.float64
    )
    figure = Figure(figsize=(WIDE, CELL * len(groups) + 2.8), layout="constrained")
    axes = figure.subplots()
    shades = [to_rgba(ARM_COLOURS[0], alpha) for alpha in (0.0, 0.6)]
    colormap = LinearSegmentedColormap.from_list("shade", shades)
    axes.pcolormesh(np.ma.masked_invalid(values), cmap=colormap, vmin=0)
    for (row, column), value in np.ndenumerate(values):
        text = MISSING if np.isnan(value) else f"{value:.0f}"
        axes.text(column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=9)
    names = [_literal(arm) for arm in scores]
    axes.set_xticks(np.arange(len(scores)) + 0.5, names, color=INK)
    axes.set_xticklabels(names, rotation=50, rotation_mode="anchor", ha="left", va="center")
    axes.set_yticks(np.arange(len(groups)) + 0.5, [label for label, _ in groups], color=INK)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    return figure


def _legend(figure: Figure, axes: Axes, num_arms: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    many = num_arms >= MANY_ARMS
    figure.legend(
        handles,
        labels,
        loc="outside right upper" if many else "outside lower left",
        ncols=1 if many else min(num_arms, 3),
        frameon=False,
        handlelength=2.4 if many else 1.2,
    )


def _literal(text: str) -> str:
    """Text that a legend does not hide for its leading underscore."""
    return f" {text}" if text.startswith("_") else text


def save_svg(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all; drawn again it has the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    return path
