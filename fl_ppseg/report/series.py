"""results.jsonl -> what the curves show: loss and mIoU of each arm over the rounds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.federation.results import ClientLine, Line
from fl_ppseg.learning.intervals import paired_above
from fl_ppseg.learning.scores import counts_by_model, round_scores
from fl_ppseg.report.rows import PLAIN

Curve = dict[int, tuple[float, ...]]
"""round -> one value a seed."""


LEAST_ABOVE = 2.0
"""Points of mIoU; shares of less are noise."""


@dataclass
class Series:
    """Curves by arm, and the pixels of each class in the val clients' ground truth.

    Attributes:
        val_miou: arm -> round -> mIoU in percent, a value a seed (`round_scores` of
            `fl_ppseg.learning.scores`); rounds that were not scored are left out.
        train_loss: arm -> round -> mean over clients weighted by num_examples, a value a seed.
        above_no_image: arm other than plain -> round -> how much of what plain has above the answer
            without an image it has above it, a value a seed; rounds in which plain is less than
            `LEAST_ABOVE` above it in a seed are left out.
        val_pixels: (C,) int64 labelled pixels of each class, None without an evaluation.
    """

    val_miou: dict[str, Curve] = field(default_factory=dict)
    train_loss: dict[str, Curve] = field(default_factory=dict)
    above_no_image: dict[str, Curve] = field(default_factory=dict)
    val_pixels: NDArray[np.int64] | None = None

    def floor(self) -> float | None:
        """mIoU in percent of always answering the commonest class of the val clients."""
        if self.val_pixels is None or not self.val_pixels.any():
            return None
        common = self.val_pixels.max() / self.val_pixels.sum()
        return float(100 * common / np.count_nonzero(self.val_pixels))


def collect(results: Iterable[Line], no_image: float | None = None) -> Series:
    """Reads the lines once; a round's score is that of the summary and of the live view.

    Args:
        results: Lines of results.jsonl.
        no_image: mIoU in percent of the answer without an image; None where nobody knows it.
    """
    val: dict[tuple[str, int, int], list[ClientLine]] = defaultdict(list)
    losses: dict[tuple[str, int, int], list[tuple[float, float]]] = defaultdict(list)
    for line in results:
        key = (line["arm"], line["round"], line["seed"])
        if line["role"] == "val" and line["confusion"] is not None:
            val[key].append(line)
        if line["role"] == "train" and (loss := line.get("loss")) is not None:
            losses[key].append((loss, line["num_examples"]))
    scored = {key: scores.mIoU for key, own in val.items() if (scores := round_scores(own))}
    return Series(
        val_miou=_by_arm(scored),
        train_loss=_by_arm({key: _weighted(pairs) for key, pairs in losses.items()}),
        above_no_image=_by_arm(_above(scored, no_image)),
        val_pixels=next(map(_pixels, val.values()), None),
    )


def _above(
    scored: Mapping[tuple[str, int, int], float], no_image: float | None
) -> dict[tuple[str, int, int], float]:
    """`paired_above` of each arm and round; keys are (arm, round, seed)."""
    by_round: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for (arm, number_of_round, seed), value in scored.items():
        by_round[arm, number_of_round][seed] = value
    found = {}
    for (arm, number_of_round), own in by_round.items():
        base = by_round.get((PLAIN, number_of_round), {})
        if (
            arm == PLAIN
            or no_image is None
            or min(base.values(), default=0) < no_image + LEAST_ABOVE
        ):
            continue
        for seed, share in paired_above(own, base, no_image).items():
            found[arm, number_of_round, seed] = share
    return found


def _pixels(lines: Iterable[ClientLine]) -> NDArray[np.int64]:
    """(C,) labelled pixels of each class; the same whichever model is looked at."""
    counts = next(iter(counts_by_model(lines).values()))
    return np.asarray(counts.sum(axis=1), dtype=np.int64)


def _weighted(pairs: list[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in pairs)
    if not total:
        return fmean(loss for loss, _ in pairs)
    return sum(loss * weight for loss, weight in pairs) / total


def _by_arm(values: Mapping[tuple[str, int, int], float]) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for (arm, number_of_round, _), value in sorted(values.items(), key=lambda item: item[0]):
        curve = curves.setdefault(arm, {})
        curve[number_of_round] = (*curve.get(number_of_round, ()), value)
    return curves
