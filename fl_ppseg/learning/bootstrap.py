"""Intervals of scores over other val images, or other places: the paired percentile bootstrap.

Val images are resampled with replacement, their counts are summed, and the sum is scored; the
interval holds the middle 95 % of `RESAMPLES` such scores. All arms, seeds and the answer without an
image are scored on the same resamples: a ratio or a difference of two is taken per resample, which
cancels the effect of easy or hard images on both. Source: Efron & Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 8 (data with a structure) and 13 (percentile
intervals).

Each interval covers only what it resamples:

- *images*: each client keeps its number of images, drawn from its own. Covers other photographs of
  the same places. A client of one image adds nothing to its width, and of few images it is a little
  too narrow (by sqrt((n - 1) / n) for n images of a client).
- *places*: clients are drawn, then images of each (which counts the spread of images within a
  client twice; of 20 images per client that is little). Covers other places, and of few places too
  seldom: of three each single client is drawn alone with a chance of 1/27, so that the ends are
  about the worst and the best of them. In simulations it covered the truth in 75 % of cases for 3
  places, 81 % for 4, 88 % for 8 and 10, 93 % for 20. For fewer than three none is given.
- An interval over seeds (`fl_ppseg.learning.intervals`) covers other orders, views and keys of
  training.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.learning.evaluation import mean_iou
from fl_ppseg.learning.intervals import CONFIDENCE

Kind = Literal["images", "places"]
"""What is resampled."""
Draws = NDArray[np.int64]
"""(B, N): how often each of N images is in each of B resamples, images client by client."""
Values = NDArray[np.float64]

RESAMPLES: Final = 2_000
SEED: Final = 0
"""Seed of the resamples: the same in every run with as many images."""
MIN_PLACES: Final = 3
MEMORY: Final = 2**26
"""Most bytes of summed counts in memory at a time."""


def draws_of(sizes: Sequence[int], number: int = RESAMPLES, seed: int = SEED) -> dict[Kind, Draws]:
    """Draw the resamples of each kind that clients of these sizes allow.

    Args:
        sizes: Images of each client.
        number: B, resamples of each kind.
        seed: Of the draws.

    Returns:
        `images` if a client has two images, `places` if there are `MIN_PLACES` clients.
    """
    found: dict[Kind, Draws] = {}
    if max(sizes, default=0) > 1:
        once = np.ones((number, len(sizes)), np.int64)
        found["images"] = _images(once, sizes, np.random.default_rng(seed))
    if len(sizes) >= MIN_PLACES:
        rng = np.random.default_rng(seed)
        clients = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), number)
        found["places"] = _images(clients, sizes, rng)
    return found


def _images(clients: Draws, sizes: Sequence[int], rng: np.random.Generator) -> Draws:
    """Images of each client, as many as it has, as often as the client was drawn: (B, clients)."""
    parts = [
        rng.multinomial(times * size, np.full(size, 1 / size))
        for times, size in zip(clients.T, sizes, strict=True)
        if size
    ]
    return np.concatenate(parts, axis=1)


def resampled(counts: NDArray[np.integer], draws: Draws) -> Values:
    """(M, N, C, C) counts of N images by M models -> (B,) mIoU in percent of each resample.

    Counts are summed over a resample, then scored; of several models it is the mean of their
    scores. NaN where no pixel of a resample is labelled.
    """
    found: Values = np.mean([_scores(of_model, draws) for of_model in counts], axis=0)
    return found


def _scores(counts: NDArray[np.integer], draws: Draws) -> Values:
    num_classes = counts.shape[-1]
    flat = counts.reshape(len(counts), -1).astype(np.float64)  # sums below 2^53 are exact
    at_once = max(1, MEMORY // (8 * num_classes**2))
    return np.concatenate(
        [
            mean_iou((part.astype(np.float64) @ flat).reshape(-1, num_classes, num_classes))
            for part in np.split(draws, range(at_once, len(draws), at_once))
        ]
    )


def percentile_interval(
    values: Values, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """The ends of the middle share of resampled values; None if any of them is not finite."""
    if not np.isfinite(values).all():
        return None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def intervals(
    counts: NDArray[np.integer], sizes: Sequence[int]
) -> Mapping[Kind, tuple[float, float] | None]:
    """95 % intervals of the mIoU of (M, N, C, C) counts, by what is drawn; see `draws_of`."""
    return {
        kind: percentile_interval(resampled(counts, draws))
        for kind, draws in draws_of(sizes).items()
    }
