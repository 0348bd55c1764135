"""What the numbers say in plain words, never more than they say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fl_ppseg.report.arms import ArmText, arm_texts
from fl_ppseg.report.rows import ArmRow, arm_rows

PLAIN = "plain"
WEAK_MIOU = 20.0  # percent; below it a ratio to plain says little
NEAR_TIE = 1.0  # points of mIoU below which one seed tells nothing


def headline(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The first sentence of the report. Percentages are rounded down, so none is claimed too high.

    Without a plain arm it gives scores only; without any score it says so.
    """
    rows = [row for row in arm_rows(summary) if not row.failed]
    texts = arm_texts(list(summary["arms"]), config)
    encrypted = [row for row in rows if texts[row.arm].encrypted]
    compared = sorted((row for row in encrypted if row.ratio is not None), key=_ratio, reverse=True)
    if compared:
        return _kept(compared, texts)
    best = max(encrypted or rows, key=_miou, default=None)
    if best is None:
        return "No arm of this run reached a score"
    subject = texts[best.arm].subject
    return f"{subject} reach {_miou(best):.1f} mIoU on cities never seen in training"


def findings(
    summary: Mapping[str, Any], config: Mapping[str, Any], floor: float | None = None
) -> tuple[str, ...]:
    """One sentence a finding, then what limits them.

    Args:
        summary: As in summary.json.
        config: The run's config.
        floor: mIoU in percent of always answering the commonest class; None if unknown.
    """
    rows = arm_rows(summary)
    texts = arm_texts([row.arm for row in rows], config)
    plain = next((row for row in rows if row.arm == PLAIN and not row.failed), None)
    told = [_told(row, plain, texts[row.arm]) for row in rows if row is not plain]
    return tuple([*told, *_cautions(rows, plain, floor)])


def _kept(rows: Sequence[ArmRow], texts: Mapping[str, ArmText]) -> str:
    best, *others = rows
    verb = "reach" if _ratio(best) >= 1 else "keep"
    text = f"{texts[best.arm].subject} {verb} {_percent(best)}\u00a0%"
    if len(others) == 1:
        second = texts[others[0].arm].subject
        text += f" and {second[:1].lower()}{second[1:]} {_percent(others[0])}\u00a0%"
    text += " of the mIoU of plain training on cities never seen"
    if len(others) > 1:
        low, high = _percent(others[-1]), _percent(others[0])
        text += f"; the other encrypted arms {f'{low} to ' if low != high else ''}{high}\u00a0%"
    return text


def _told(row: ArmRow, plain: ArmRow | None, text: ArmText) -> str:
    if row.failed:
        return f"{text.subject} gave no score{f': {row.error}' if row.error else ''}."
    reached = f"{text.subject}: {row.mIoU.text()} mIoU on unseen cities"
    if row.own_mIoU.mean is not None:
        reached += f" ({row.own_mIoU.text()} on held-out images of the training cities)"
    if plain is None:
        return f"{reached}."
    gap = _miou(row) - _miou(plain)
    side = "above" if gap >= 0 else "below"
    against = f"{abs(gap):.1f} points {side} plain images ({plain.mIoU.text()})"
    return f"{reached}, {against}{_doubt(row, plain)}."


def _doubt(row: ArmRow, plain: ArmRow) -> str:
    """Says when a difference is no larger than what chance would give."""
    gap = abs(_miou(row) - _miou(plain))
    if row.mIoU.spread is not None and plain.mIoU.spread is not None:
        noise = math.hypot(row.mIoU.spread, plain.mIoU.spread)
        return f"; within the spread over seeds (±{noise:.1f})" if gap <= noise else ""
    return "; too close to call with one seed" if gap < NEAR_TIE else ""


def _cautions(rows: Sequence[ArmRow], plain: ArmRow | None, floor: float | None) -> list[str]:
    told = []
    finished = [row for row in rows if not row.failed]
    if plain is None and finished:
        told.append("Without a finished plain arm this run cannot tell what encryption costs.")
    if plain is not None and _miou(plain) < WEAK_MIOU:
        told.append(f"Plain training itself reaches only {_miou(plain):.1f}: ratios say little.")
    if floor is not None:
        told.append(f"Always answering the commonest class would score {floor:.1f} mIoU.")
    if any(row.num_seeds == 1 for row in finished):
        told.append("One seed: differences of a few points may be chance.")
    return told


def _percent(row: ArmRow) -> int:
    return math.floor(100 * _ratio(row) + 1e-9)


def _ratio(row: ArmRow) -> float:
    return row.ratio or 0.0


def _miou(row: ArmRow) -> float:
    return row.mIoU.mean or 0.0
