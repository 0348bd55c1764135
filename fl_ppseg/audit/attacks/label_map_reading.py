"""From confusion counts of regions to a label map.

Adversary: holds the counts, knows the region of each, and has public label maps as a prior.
Method: if the count of a region has one class, all its places are of that class, with certainty. If
it has several, they are assigned to the places of greatest likelihood under the prior (an optimal
transport of the counts, by linear assignment); places outside all regions are assigned the rest of
the whole image's count. Without any count (`usual`) each place gets its most frequent class.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

Labels = npt.NDArray[np.uint8]
"""(h, w) trainIds, 255 ignored."""
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

IGNORED: Final = 255
_MOST: Final = 400
"""Most places of a linear assignment; more are assigned one class after the other."""
_DOUBT: Final = 0.02
"""Weight of the class frequencies of all places in the prior of one place."""


@dataclass(frozen=True)
class Reading:
    """What one request reveals of one image."""

    places: npt.NDArray[np.bool_] = field(repr=False)
    """(h, w), the region of the count."""
    counts: Counts
    """(C,), its labelled pixels per class."""


def prior(public_labels: Labels, num_classes: int, size: tuple[int, int]) -> Floats:
    """(n, H, W) public label maps -> (C, h, w), the frequency of each class at each place.

    Args:
        public_labels: Their trainIds.
        num_classes: C.
        size: (h, w) of the result, by nearest neighbour.
    """
    rows, columns = (
        (2 * np.arange(expected) + 1) * found // (2 * expected)
        for found, expected in zip(public_labels.shape[1:], size, strict=True)
    )
    often = np.stack([(public_labels == c).mean(axis=0) for c in range(num_classes)])
    overall = often.mean(axis=(1, 2), keepdims=True)
    likely: Floats = often[:, rows[:, None], columns] + _DOUBT * overall + 1e-6
    likely /= likely.sum(axis=0)
    return likely


def usual(likely: Floats) -> Labels:
    """(C, h, w) -> (h, w), the most frequent class of each place, without any request."""
    classes: Labels = likely.argmax(axis=0).astype(np.uint8)
    return classes


def read_map(readings: Sequence[Reading], whole: Counts, likely: Floats) -> tuple[Labels, Labels]:
    """Reconstruct the label map of an image from its counts.

    Args:
        readings: Of regions of the image; a place in several belongs to the first.
        whole: (C,), labelled pixels of the whole image per class.
        likely: (C, h, w), of `prior`.

    Returns:
        (h, w) a class for each place, and the same with 255 where it is not certain.
    """
    found = np.full(likely.shape[1:], IGNORED, np.uint8)
    certain, is_read = found.copy(), np.zeros(found.shape, bool)
    left = whole.copy()
    for reading in readings:
        counts = reading.counts
        if counts.max() == counts.sum() > 0:
            certain[reading.places] = counts.argmax()
        earlier = found[reading.places & is_read]
        places = reading.places & ~is_read
        open_counts = np.maximum(counts - np.bincount(earlier, minlength=256)[: len(counts)], 0)
        found[places] = _dealt(open_counts, likely[:, places])
        is_read |= places
        left -= np.minimum(left, np.bincount(found[places], minlength=256)[: len(left)])
    found[~is_read] = _dealt(left, likely[:, ~is_read])
    unread = found == IGNORED  # ignored pixels, or places outside all counts
    found[unread] = usual(likely)[unread]
    return found, certain


def _dealt(counts: Counts, likely: Floats) -> Labels:
    """(C,) pixels per class and (C, n) -> (n,), a class for each place, 255 where none is left."""
    dealt = np.full(likely.shape[1], IGNORED, np.uint8)
    if not len(dealt) or not counts.any():
        return dealt
    if counts.max() == counts.sum() or counts.max() >= len(dealt):
        dealt[:] = counts.argmax()
    elif len(dealt) <= _MOST:
        slots = np.repeat(np.arange(len(counts)), np.minimum(counts, len(dealt)))
        places, chosen = linear_sum_assignment(np.log(likely[slots]).T, maximize=True)
        dealt[places] = slots[chosen]
    else:
        _deal_in_turn(dealt, counts, likely)
    return dealt


def _deal_in_turn(dealt: Labels, counts: Counts, likely: Floats) -> None:
    """Assign each class its likeliest places, the rarest class first."""
    for number in np.argsort(counts, kind="stable"):
        free = np.flatnonzero(dealt == IGNORED)
        own = np.log(likely[number, free]) - np.log(likely[:, free][counts > 0].max(axis=0))
        dealt[free[np.argsort(-own, kind="stable")[: counts[number]]]] = number
