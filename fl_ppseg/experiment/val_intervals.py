"""From counts of each val image to the intervals of a summary, over images and over places.

They are of the newest weights of each seed, where the scores of a summary are means over the last
rounds; `newest_mIoU` is that of the same weights. Statistics are those of
`fl_ppseg.federation.summary`, taken within each resample: seed by seed, then the mean over seeds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from fl_ppseg.experiment.val_counts import NO_IMAGE, ValCounts
from fl_ppseg.federation.run_summary import ImageIntervals, ValImages
from fl_ppseg.learning.bootstrap import (
    RESAMPLES,
    SEED,
    Draws,
    Kind,
    Values,
    draws_of,
    percentile_interval,
    resampled,
)
from fl_ppseg.report.rows import PLAIN

OfSeeds = Mapping[int, Values]
"""Seed -> (B,) mIoU of each resample."""
KINDS: Final[tuple[Kind, ...]] = ("images", "places")
NAMES: Final = ("mIoU", "gain", "ratio", "of_plain_above_no_image")


def val_intervals(
    counts: ValCounts, arms: Sequence[str], seeds: Sequence[int]
) -> tuple[ValImages, dict[str, ImageIntervals]]:
    """The parameters of the resampling, and the intervals of each arm.

    Args:
        counts: Of each val image.
        arms: Arms of the run; one without counts has no entries.
        seeds: Seeds of the run.

    Returns:
        What was drawn, and by arm the intervals of each of `NAMES`: None if there are too few
        images or places, plain or the start is missing, or a resample has no such value.
    """
    sizes = tuple(counts.clients.values())
    about = ValImages(num_images=sum(sizes), num_places=len(sizes), resamples=RESAMPLES, seed=SEED)
    once = np.ones((1, sum(sizes)), np.int64)
    newest = {
        arm: float(_mean(own)[0])
        for arm in arms
        if (own := _of_seeds(counts, arm, seeds, "newest", once))
    }
    draws = draws_of(sizes)
    found = {
        kind: _statistics(counts, tuple(newest), seeds, draws[kind])
        for kind in KINDS
        if kind in draws
    }
    return about, {
        arm: ImageIntervals(
            newest_mIoU=value,
            **{
                f"{name}_ci95_{kind}": _ends(found[kind][arm][name]) if kind in found else None
                for kind in KINDS
                for name in NAMES
            },
        )
        for arm, value in newest.items()
    }


def _statistics(
    counts: ValCounts, arms: Sequence[str], seeds: Sequence[int], draws: Draws
) -> dict[str, dict[str, Values | None]]:
    """Arm -> name -> (B,) value of each resample."""
    newest = {arm: _of_seeds(counts, arm, seeds, "newest", draws) for arm in arms}
    without = counts.tables.get(NO_IMAGE)
    floor = None if without is None else resampled(without, draws)
    plain = newest.get(PLAIN, {})
    return {
        arm: {
            "mIoU": _mean(own),
            "gain": _gain(own, _of_seeds(counts, arm, seeds, "start", draws)),
            "ratio": _ratio(own, plain),
            "of_plain_above_no_image": _above(own, plain, floor),
        }
        for arm, own in newest.items()
    }


def _of_seeds(
    counts: ValCounts, arm: str, seeds: Sequence[int], which: str, draws: Draws
) -> dict[int, Values]:
    tables = {seed: counts.of(arm, seed, which) for seed in seeds}
    return {seed: resampled(table, draws) for seed, table in tables.items() if table is not None}


def _mean(own: OfSeeds) -> Values:
    found: Values = np.mean(list(own.values()), axis=0)
    return found


def _gain(own: OfSeeds, start: OfSeeds) -> Values | None:
    return _over_seeds(own[seed] - start[seed] for seed in own.keys() & start.keys())


def _ratio(own: OfSeeds, plain: OfSeeds) -> Values | None:
    with np.errstate(divide="ignore", invalid="ignore"):  # infinite: then no interval is given
        return _over_seeds(own[seed] / plain[seed] for seed in own.keys() & plain.keys())


def _above(own: OfSeeds, plain: OfSeeds, floor: Values | None) -> Values | None:
    """None unless plain is above the answer without an image in every seed and resample.

    A ratio is unbounded if its denominator may be 0.
    """
    pairs = [(own[seed], plain[seed]) for seed in own.keys() & plain.keys()]
    if floor is None or not all((base > floor).all() for _, base in pairs):
        return None
    return _over_seeds((value - floor) / (base - floor) for value, base in pairs)


def _over_seeds(values: Iterable[Values]) -> Values | None:
    found = dict(enumerate(values))
    return _mean(found) if found else None


def _ends(values: Values | None) -> tuple[float, float] | None:
    return None if values is None else percentile_interval(values)
