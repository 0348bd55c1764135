"""Curves and bars of a run as SVG; one colour an arm throughout, safe for colour-blind eyes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fl_ppseg.files import replacing
from fl_ppseg.report.rows import number
from fl_ppseg.report.series import Curve, Series

INK, MUTED, RULE, PAPER = "#1c2024", "#60646c", "#dfe1e6", "#fffffe"
ARM_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
"""Okabe and Ito's palette without yellow (too pale on white), and a violet."""
WIDTH = 5.6  # inch; a phone shows it at about two thirds
BAR = 0.085  # inch
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "fl_ppseg",
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
}


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour an arm: `plain` is ink, the others take the palette in their order."""
    others = [arm for arm in arms if arm != "plain"]
    colours = {arm: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(others)}
    return {arm: colours.get(arm, INK) for arm in arms}


def plot_curves(series: Series, colours: Mapping[str, str], directory: Path) -> list[Path]:
    """Writes mIoU on the val cities and training loss over the rounds; empty ones are left out."""
    plots = (
        ("miou_curves.svg", "mIoU on unseen val cities, %", series.val_miou),
        ("loss_curves.svg", "training loss, mean over clients", series.train_loss),
    )
    return [
        _plot_curves(directory / name, title, curves, colours)
        for name, title, curves in plots
        if curves
    ]


def plot_cities(
    summary: Mapping[str, Any],
    val_cities: Sequence[str],
    colours: Mapping[str, str],
    directory: Path,
) -> list[Path]:
    """Writes bars of mIoU for each city, the unseen ones first."""
    scores = {arm: values.get("per_city_mIoU") or {} for arm, values in _arms(summary)}
    cities = sorted({city for by_city in scores.values() for city in by_city})
    seen = [city for city in cities if city not in val_cities]
    groups = [(f"{city} (unseen)", city) for city in cities if city in val_cities]
    groups += [(city, city) for city in seen]
    return _plot_bars(directory / "per_city.svg", "mIoU in each city, %", groups, scores, colours)


def plot_classes(
    summary: Mapping[str, Any],
    class_names: Sequence[str],
    colours: Mapping[str, str],
    directory: Path,
) -> list[Path]:
    """Writes bars of IoU for each class on the val cities; a class without pixels has none."""
    scores = {arm: values.get("per_class_iou") or {} for arm, values in _arms(summary)}
    present = {key for by in scores.values() for key, v in by.items() if number(v) is not None}
    groups = [(n if n in present else f"{n} (no pixels)", n) for n in class_names]
    title = "IoU of each class on unseen val cities, %"
    return _plot_bars(directory / "per_class.svg", title, groups, scores, colours)


def _arms(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(arm, values or {}) for arm, values in summary["arms"].items()]


def _plot_curves(
    path: Path, title: str, curves: Mapping[str, Curve], colours: Mapping[str, str]
) -> Path:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        for arm in (arm for arm in colours if arm in curves):
            _draw_curve(axes, arm, curves[arm], colours[arm])
        axes.set_title(title, pad=10)
        axes.set_xlabel("round")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.8)
        _legend(figure, axes, len(curves))
        return _save(figure, path)


def _draw_curve(axes: Axes, arm: str, curve: Curve, colour: str) -> None:
    rounds = sorted(curve)
    means = np.array([np.mean(curve[r]) for r in rounds])
    single = "o" if len(rounds) == 1 else ""
    axes.plot(rounds, means, color=colour, linewidth=2, marker=single, label=_literal(arm))
    if max(len(curve[r]) for r in rounds) > 1:
        low, high = ([pick(curve[r]) for r in rounds] for pick in (min, max))
        axes.fill_between(rounds, low, high, color=colour, alpha=0.18, linewidth=0)


def _plot_bars(
    path: Path,
    title: str,
    groups: Sequence[tuple[str, str]],
    scores: Mapping[str, Mapping[str, Any]],
    colours: Mapping[str, str],
) -> list[Path]:
    """Horizontal bars, a group a row; `groups` are (label, key into the scores)."""
    if not any(
        number(by_key.get(key)) is not None for by_key in scores.values() for _, key in groups
    ):
        return []
    pitch = BAR * len(scores) + 0.12
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, pitch * len(groups) + 1.1), layout="constrained")
        axes = figure.subplots()
        for position, (arm, by_key) in enumerate(scores.items()):
            lengths = [number(by_key.get(key)) or 0.0 for _, key in groups]
            offsets = np.arange(len(groups)) * pitch + position * BAR
            axes.barh(offsets, lengths, BAR * 0.86, color=colours[arm], label=_literal(arm))
        middle = (len(scores) - 1) * BAR / 2
        labels = [_literal(label) for label, _ in groups]
        axes.set_yticks(np.arange(len(groups)) * pitch + middle, labels, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(groups) * pitch - pitch + 2 * middle + BAR, -BAR)
        axes.spines["left"].set_visible(False)
        axes.set_title(title, pad=10)
        axes.grid(axis="x", linewidth=0.8)
        _legend(figure, axes, len(scores))
        return [_save(figure, path)]


def _legend(figure: Figure, axes: Axes, num_arms: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = min(num_arms, 3)
    figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, frameon=False, handlelength=1.2
    )


def _literal(text: str) -> str:
    """Text that a legend does not hide for its leading underscore."""
    return f" {text}" if text.startswith("_") else text


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    return path
