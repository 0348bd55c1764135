"""The score of a round from its lines of results, for all tables.

Counts are summed over clients before they are scored. If every client has its own model
(`local-only`), each model is scored so, and the round's score is the mean over the models.
"""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.learning.evaluation import Scores, score

Counts = NDArray[np.int64]

MEAN_OF: Final = (
    "mIoU: as cityscapesScripts has it, the mean over the classes that are true or predicted at "
    "some labelled pixel of what is scored; a class that is predicted and nowhere true counts as 0"
)
"""What the mean is over; shown with every table."""


def round_scores(lines: Iterable[Mapping[str, Any]]) -> Scores | None:
    """Scores of one round of one arm and seed: pooled over clients, then mean over models.

    Args:
        lines: Lines of results.jsonl of one role; those without counts are left out.

    Returns:
        Scores in percent, or None if no line holds counts.
    """
    each = [score(counts) for counts in counts_by_model(lines).values()]
    if not each:
        return None
    aacc, miou, macc = (
        mean(getattr(entry, key) for entry in each) for key in ("aAcc", "mIoU", "mAcc")
    )
    per_class = zip(*(entry.per_class_iou for entry in each), strict=True)
    return Scores(_number(aacc), _number(miou), _number(macc), tuple(map(mean, per_class)))


def pooled_scores(lines: Iterable[Mapping[str, Any]]) -> Scores | None:
    """Scores of the sum of the counts of all lines, of one or several models.

    For held-out images: each is scored once, by the model that its client uses, so that arms with
    one model and arms with many are scored on the same images.
    """
    counts = list(counts_by_model(lines).values())
    return score(np.sum(counts, axis=0)) if counts else None


def counts_by_model(lines: Iterable[Mapping[str, Any]]) -> dict[str, Counts]:
    """Model ("" if all clients share one) -> (C, C) int64 counts, summed over clients."""
    sums: dict[str, Counts] = {}
    for line in lines:
        if line.get("confusion") is not None:
            counts = np.asarray(line["confusion"], dtype=np.int64)
            model = str(line.get("model") or "")
            sums[model] = sums[model] + counts if model in sums else counts
    return sums


def mean(values: Iterable[float | None]) -> float | None:
    """Mean without None and NaN values; None if no value is left."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    return fmean(known) if known else None


def _number(value: float | None) -> float:
    return np.nan if value is None else value
