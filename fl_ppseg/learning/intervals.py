"""Statistics over seeds: deviation of a score, and ratios paired by seed with their interval.

Intervals over images or places are in `fl_ppseg.learning.bootstrap`.

Arms of one run share seeds, and so views, clients and random draws. A ratio paired by seed cancels
the effect of the seed on both arms.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Final

from scipy.special import stdtrit  # type: ignore[import-untyped]

CONFIDENCE: Final = 0.95
KINDS: Final = ("seeds", "images", "places")
"""What is resampled: training seeds, val images or places (`fl_ppseg.learning.bootstrap`)."""
FEW_PLACES: Final = 20
"""Places below which an interval over places is too narrow."""


def covers(kind: str, num_places: int | None = None) -> str:
    """Describe what an interval covers.

    >>> covers("places", 3)
    'other places; of 3 it is too narrow: of 3 it holds in about 75 % of cases, of 10 in 88 %'
    """
    if kind == "places":
        if num_places is None or num_places >= FEW_PLACES:
            return "other places"
        told = "of 3 it holds in about 75 % of cases, of 10 in 88 %"
        return f"other places; of {num_places} it is too narrow: {told}"
    if kind == "images":
        return "other photographs of the same places"
    return "other orders, views and keys of training"


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two values."""
    return stdev(values) if len(values) > 1 else None


def t_interval(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Student's confidence interval of the mean: mean ± t(n - 1) · s / √n.

    Args:
        values: One value per seed, assumed independent and normal.
        confidence: Share of such intervals that hold the true mean.

    Returns:
        Lower and upper end, or None for fewer than two values.
    """
    spread = deviation(values)
    if spread is None:
        return None
    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    half = quantile * spread / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def paired_above(
    own: Mapping[int, float | None], base: Mapping[int, float | None], floor: float | None
) -> dict[int, float]:
    """(own - floor) / (base - floor) for each seed.

    Empty if any base is not above the floor: a mean over the other seeds would be biased.

    >>> paired_above({0: 20.0, 1: 40.0}, {0: 30.0, 1: 40.0}, 10.0)
    {0: 0.5, 1: 1.0}
    >>> paired_above({0: 20.0, 1: 40.0}, {0: 10.0, 1: 40.0}, 10.0)
    {}
    """
    pairs = {
        seed: (value, reference)
        for seed, value in own.items()
        if value is not None and (reference := base.get(seed)) is not None
    }
    if floor is None or any(reference <= floor for _, reference in pairs.values()):
        return {}
    return {
        seed: (value - floor) / (reference - floor) for seed, (value, reference) in pairs.items()
    }


def paired_ratios(
    own: Mapping[int, float | None], base: Mapping[int, float | None]
) -> dict[int, float]:
    """own / base for each seed with both scores and a base other than zero.

    >>> paired_ratios({0: 20.0, 1: 30.0, 2: 1.0}, {0: 40.0, 1: 40.0})
    {0: 0.5, 1: 0.75}
    """
    return {
        seed: value / reference
        for seed, value in own.items()
        if value is not None and (reference := base.get(seed))
    }
