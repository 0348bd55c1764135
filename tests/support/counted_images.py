"""Confusion counts of single images, and a score of resamples by a slow loop."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.learning.evaluation import score

Counts = NDArray[np.int64]


def images(rng: np.random.Generator, number: int, skill: float | NDArray[Any] = 2.0) -> Counts:
    """(N, 3, 3) counts of images of which some are easier than others."""
    right = np.reshape(skill + rng.gamma(2.0, 1.0, number), (-1, 1, 1)) * np.eye(3)
    return rng.poisson(20 * (0.5 + right)).astype(np.int64)


def slow(counts: Counts, draw: NDArray[np.int64]) -> float:
    """The score of what was drawn: image after image, as often as it was."""
    total = np.zeros(counts.shape[1:], np.int64)
    for image, times in zip(counts, draw, strict=True):
        for _ in range(int(times)):
            total += image
    return score(total).mIoU
