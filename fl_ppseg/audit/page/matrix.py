"""The leak matrix of the page: arm x adversary, every number written, coloured by SSIM."""

from typing import Final, NamedTuple

from fl_ppseg.leaks.cells import Cell, row, thumbnail
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import UNCHECKED, ArmLeaks, LabelFinding, LeakTable
from fl_ppseg.leaks.words import NAMES, above, share, sight
from fl_ppseg.report.rows import MISSING, fixed

DEEPEST: Final = 0.55
"""Opacity of the colour of an exact reconstruction; text stays readable on it."""
BASES: Final = ("as it is", "thumbnail", "survivor network")
NOTHING: Final = "nothing"
ANSWER: Final = "answer alone"
ITSELF: Final = "image itself"
DIRECT: Final = "weights segment directly"
LABELS: Final = "label maps of an active coordinator"


class Reading(NamedTuple):
    """A number of the matrix, its meaning, and details of the attack."""

    number: str
    words: str
    details: tuple[str, ...] = ()


class MatrixCell(NamedTuple):
    """A cell: its numbers, and the depth of its colour from 0 to 1."""

    label: str
    """The heading of its column, which a phone shows in the cell."""
    readings: tuple[Reading, ...]
    depth: float = 0.0
    is_base: bool = False
    """Whether it is a baseline, which needs no attack."""


class MatrixRow(NamedTuple):
    """An arm of the matrix."""

    arm: str
    ratio: str
    """Ratio of its mIoU to plain's, as text."""
    direct: str
    """What its weights segment of its ciphertexts, as text."""
    cells: tuple[MatrixCell, ...]


def matrix(table: LeakTable) -> list[MatrixRow]:
    """One row per arm: three baselines, one cell per adversary, and label maps."""
    return [_row(arm, table) for arm in table.arms]


def shade(scores: Scores, table: LeakTable) -> float:
    """Opacity of a cell: 0 for a blind guess or worse, the deepest for the image itself."""
    blind = min(table.nothing.ssim, 0.99)
    return DEEPEST * min(1.0, max(0.0, (scores.ssim - blind) / (1 - blind)))


def ends(table: LeakTable) -> list[tuple[str, str]]:
    """What all scores of the matrix lie between, as names and scores."""
    given = ((NOTHING, table.nothing), (ANSWER, table.answer))
    shown = [(name, _end(f"{scores.ssim:.3f}", scores.miou)) for name, scores in given]
    return [*shown, (ITSELF, _end("1", table.plain_miou))]


def _end(ssim: str, miou: float | None) -> str:
    return f"SSIM {ssim}" if miou is None else f"SSIM {ssim} · mIoU {miou:.1f}"


def _row(arm: ArmLeaks, table: LeakTable) -> MatrixRow:
    compared = zip(BASES, (arm.ciphertext, thumbnail(arm), arm.survivors), strict=True)
    bases = (_base(name, scores) for name, scores in compared)
    cells = (_cell(cell, table) for cell in row(arm))
    ratio = "" if arm.ratio_to_plain is None else f"{arm.ratio_to_plain:.3f} of plain's mIoU"
    return MatrixRow(arm.arm, ratio, _direct(arm, table), (*bases, *cells, _labels(arm)))


def _direct(arm: ArmLeaks, table: LeakTable) -> str:
    of = "" if table.plain_miou is None else f" of {table.plain_miou:.1f}"
    given = (("trained", arm.direct.miou), ("public start", arm.direct.start))
    known = [f"{name} {miou:.1f}" for name, miou in given if miou is not None]
    return f"{DIRECT}: mIoU {', '.join(known)}{of}" if known else f"{DIRECT}: {MISSING}"


def _labels(arm: ArmLeaks) -> MatrixCell:
    """What an active coordinator recovers of label maps; deeper colour is more right pixels."""
    nodes = [found for found in arm.labels if found.model != UNCHECKED]
    answered = [found for found in nodes if found.right is not None]
    if not answered:
        why = "no request was answered" if arm.labels else "not attacked"
        return MatrixCell(LABELS, (Reading(MISSING, why),))
    kinds = dict.fromkeys(found.maps for found in answered)
    best = [max((f for f in answered if f.maps == kind), key=_right) for kind in kinds]
    depth = DEEPEST * max(map(_gained, best))
    return MatrixCell(LABELS, tuple(map(_read_of, best)), depth)


def _read_of(found: LabelFinding) -> Reading:
    """The best reading of one kind of label maps."""
    return Reading(
        f"{100 * _right(found):.1f} %",
        f"of {found.maps} pixels right; without a request {100 * found.without:.1f} %",
        (f"{found.attack}, {found.model}", f"{found.num_requests} requests"),
    )


def _right(found: LabelFinding) -> float:
    return found.right or 0.0


def _gained(found: LabelFinding) -> float:
    """Share that is right of those pixels that the prior has wrong."""
    return max(0.0, (_right(found) - found.without) / max(1 - found.without, 1e-9))


def _base(name: str, scores: Scores | None) -> MatrixCell:
    number = fixed(None if scores is None else scores.ssim, 3)
    task = () if scores is None or scores.miou is None else (f"mIoU {scores.miou:.1f}",)
    return MatrixCell(name, (Reading(number, "", task),), is_base=True)


def _cell(cell: Cell, table: LeakTable) -> MatrixCell:
    best, label = cell.best, NAMES[cell.adversary]
    key = () if cell.key is None else (f"key found: {share(cell.key)}",)
    if best is None or best.scores is None:
        why = "no picture" if cell.reached else "not attacked"
        return MatrixCell(label, (Reading(MISSING, why, key),))
    scores = best.scores
    of = "" if table.plain_miou is None else f" of {table.plain_miou:.1f}"
    task = () if scores.miou is None else (f"mIoU {scores.miou:.1f}{of}",)
    likeness = f"{scores.psnr:.1f} dB · corr. {scores.correlation:.2f}"
    details = (above(best, 3), best.attack, likeness, *task, *key)
    shown = Reading(f"{scores.ssim:.3f}", sight(scores, table).short, details)
    return MatrixCell(label, (shown,), shade(scores, table))
