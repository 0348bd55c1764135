"""Label update: training label maps out of updates of weights made to tell them.

Adversary: a coordinator that hands out weights of `label_weights` in every round that the node
answers, and has label maps of other streets; no key, no image of the client's.
Method: each update tells the class counts of the places over the images of its first step. Which
those are follows from the seed, which is public. The rounds draw others each time: of what the
sums tell, the likeliest map of each image is worked out, most frequent classes of each place first.
Must win: to the pixel where images are alone in a step. Must not: a client of no more images than a
batch holds is told as a sum alone, and without an answer it gets what needs none.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from fl_ppseg.audit.attacks.label_map_reading import Floats, Labels
from fl_ppseg.learning.training import order_of, seed_of

_ERROR: Final = 0.01
"""Variance of a sum's error, in units of a label's own."""
_SURE: Final = 0.9
"""Share from which a class leaves no doubt."""
_UNSURE: Final = 255


def first_batch(
    seed: int, round: int, city: str, num_images: int, batch_size: int
) -> npt.NDArray[np.float64]:
    """(n,), 1 for the images that the first step of a round sees, else 0."""
    order, _ = order_of(
        np.random.Generator(np.random.Philox(seed_of(seed, round, [city]))), num_images, 1
    )
    chosen = np.zeros(num_images)
    chosen[order[:batch_size]] = 1
    return chosen


def label_update(
    sums: Sequence[Floats],
    batches: Sequence[npt.NDArray[np.float64]],
    likely: Floats,
    size: tuple[int, int],
) -> tuple[Labels, Labels]:
    """Label maps of the images that these sums are of.

    Args:
        sums: (C, h, w) each, mean shares of the classes over the images of a batch.
        batches: (n,) each, which images these are.
        likely: (C, h, w), how often a place is of a class in other streets.
        size: (H, W) of the maps wanted.

    Returns:
        (n, H, W), a class for each place, and the same with 255 where it is not certain.
    """
    mixed = np.stack(batches)
    told = np.stack([batch.sum() * each for batch, each in zip(mixed, sums, strict=True)])
    usual = np.broadcast_to(likely, (mixed.shape[1], *likely.shape))
    unmix = mixed.T @ np.linalg.inv(mixed @ mixed.T + _ERROR * np.eye(len(mixed)))
    missed = told - np.tensordot(mixed, usual, 1)
    shares = torch.from_numpy(usual + np.tensordot(unmix, missed, 1))
    fine = functional.interpolate(shares, size=size, mode="bilinear").numpy()
    maps: Labels = fine.argmax(axis=1).astype(np.uint8)
    second, first = np.sort(fine, axis=1)[:, -2:].swapaxes(0, 1)
    is_sure = (first > _SURE) & (second < 1 - _SURE)
    return maps, np.where(is_sure, maps, np.uint8(_UNSURE))
