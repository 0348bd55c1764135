"""The leak matrix of the page: arm x adversary, every number written, coloured by SSIM."""

from collections.abc import Mapping

from fl_ppseg.leaks.cells import Cell, row, thumbnail
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import ADVERSARIES, UNCHECKED, ArmLeaks, LabelFinding, LeakTable
from fl_ppseg.leaks.words import NAMES, share, sight
from fl_ppseg.report.inline import swatch
from fl_ppseg.report.markup import text
from fl_ppseg.report.rows import MISSING, fixed
from fl_ppseg.report.styles import ArmStyle

DEEPEST = 0.55
"""Opacity of the colour of an image restored whole; text stays readable on it."""
BASES = ("as it is", "thumbnail", "survivor network")
LABELS = "label maps of an active coordinator"


def matrix_html(table: LeakTable, styles: Mapping[str, ArmStyle]) -> str:
    """A row an arm: the three scores to compare with, then a cell an adversary."""
    heads = "".join(
        f'<th scope="col">{text(name)}</th>'
        for name in ("arm", *BASES, *(NAMES[adversary] for adversary in ADVERSARIES), LABELS)
    )
    rows = "".join(_row(arm, table, styles.get(arm.arm)) for arm in table.arms)
    return (
        f'<div class="wide"><table class="leaks"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def shade(scores: Scores, table: LeakTable) -> float:
    """Opacity of a cell: 0 for a blind guess or worse, the deepest for the image itself."""
    blind = min(table.nothing.ssim, 0.99)
    return DEEPEST * min(1.0, max(0.0, (scores.ssim - blind) / (1 - blind)))


def _row(arm: ArmLeaks, table: LeakTable, style: ArmStyle | None) -> str:
    compared = zip(BASES, (arm.ciphertext, thumbnail(arm), arm.survivors), strict=True)
    bases = "".join(_base(name, scores) for name, scores in compared)
    cells = "".join(_cell(cell, table) for cell in row(arm))
    ratio = "" if arm.ratio_to_plain is None else f"{arm.ratio_to_plain:.3f} of plain's mIoU"
    return (
        f'<tr><th scope="row">{swatch(style)}{text(arm.arm)}<small>{ratio}</small></th>'
        f"{bases}{cells}{_labels(arm)}</tr>"
    )


def _labels(arm: ArmLeaks) -> str:
    """What an active coordinator reads of label maps of nodes as they are; deeper is more right."""
    nodes = [found for found in arm.labels if found.model != UNCHECKED]
    answered = [found for found in nodes if found.right is not None]
    if not answered:
        why = "no request was answered" if arm.labels else "not attacked"
        return f'<td data-label="{LABELS}"><b>{MISSING}</b><span>{why}</span></td>'
    kinds = dict.fromkeys(found.maps for found in answered)
    best = [max((f for f in answered if f.maps == kind), key=_right) for kind in kinds]
    shown = "".join(_read_of(found) for found in best)
    depth = DEEPEST * max(map(_gained, best))
    return f'<td data-label="{LABELS}" style="--v:{depth:.3f}">{shown}</td>'


def _read_of(found: LabelFinding) -> str:
    """The best reading of one kind of label maps."""
    return (
        f"<b>{100 * _right(found):.1f} %</b>"
        f"<span>of {found.maps} pixels right; without a request {100 * found.without:.1f} %</span>"
        f"<small>{text(found.attack)}, {text(found.model)}</small>"
        f"<small>{found.num_requests} requests</small>"
    )


def _right(found: LabelFinding) -> float:
    return found.right or 0.0


def _gained(found: LabelFinding) -> float:
    """Share that is right of what needs a request."""
    return max(0.0, (_right(found) - found.without) / max(1 - found.without, 1e-9))


def _base(name: str, scores: Scores | None) -> str:
    value = fixed(None if scores is None else scores.ssim, 3)
    task = "" if scores is None or scores.miou is None else f"<small>mIoU {scores.miou:.1f}</small>"
    return f'<td class="base" data-label="{name}">{value}{task}</td>'


def _cell(cell: Cell, table: LeakTable) -> str:
    best, label = cell.best, NAMES[cell.adversary]
    if best is None or best.scores is None:
        why = "no picture" if cell.reached else "not attacked"
        body = f"<b>{MISSING}</b><span>{why}</span>{_key(cell)}"
        return f'<td data-label="{label}">{body}</td>'
    scores = best.scores
    return (
        f'<td data-label="{label}" style="--v:{shade(scores, table):.3f}">'
        f"<b>{scores.ssim:.3f}</b><span>{sight(scores, table).short}</span>"
        f"<small>{text(best.attack)}</small>"
        f"<small>{scores.psnr:.1f} dB · corr. {scores.correlation:.2f}</small>"
        f"{_recognised(cell, table)}{_key(cell)}</td>"
    )


def _recognised(cell: Cell, table: LeakTable) -> str:
    """mIoU of the guess, of that on the images themselves; the thumbnail's has its column."""
    best = cell.best
    if best is None or best.scores is None or best.scores.miou is None:
        return ""
    of = "" if table.plain_miou is None else f" of {table.plain_miou:.1f}"
    return f"<small>mIoU {best.scores.miou:.1f}{of}</small>"


def _key(cell: Cell) -> str:
    return "" if cell.key is None else f"<small>key found: {share(cell.key)}</small>"
