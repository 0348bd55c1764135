"""Label update: training label maps recovered from updates of crafted weights.

Adversary: an active coordinator that sends weights of `label_weights` in every round that the node
answers, and has public label maps as a prior; no key, no image of the client.
Method: each update reveals the class counts of each place, summed over the images of its first
step. Which images those are follows from the seed, which is public, and differs between rounds.
The label maps are the solution of these linear equations nearest to the prior (least squares).
Must succeed: to the pixel if each step has one image. Must fail: for a client with no more images
than a batch only the sum is known, and without an answer it returns the prior.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from fl_ppseg.audit.attacks.label_map_reading import Floats, Labels
from fl_ppseg.learning.batches import order_of
from fl_ppseg.learning.training import seed_of

_ERROR: Final = 0.01
"""Variance of a sum's error, in units of the prior variance of a label."""
_SURE: Final = 0.9
"""Share above which a class counts as certain."""
_UNSURE: Final = 255


def first_batch(
    seed: int, round: int, client: str, num_images: int, batch_size: int
) -> npt.NDArray[np.float64]:
    """(n,), 1 for the images of the first step of a round, else 0."""
    order, _ = order_of(
        np.random.Generator(np.random.Philox(seed_of(seed, round, [client]))), num_images, 1
    )
    chosen = np.zeros(num_images)
    chosen[order[:batch_size]] = 1
    return chosen


def label_update(
    sums: Sequence[Floats],
    batches: Sequence[npt.NDArray[np.float64]],
    likely: Floats,
    size: tuple[int, int],
    num_wanted: int | None = None,
) -> tuple[Labels, Labels]:
    """Reconstruct the label maps of images from sums over batches of them.

    Args:
        sums: (C, h, w) each, mean shares of the classes over the images of a batch.
        batches: (n,) each, the weight of each image in the sum: 1 for those of a client's batch,
            else 0.
        likely: (C, h, w), the prior: frequency of each class at each place.
        size: (H, W) of the result.
        num_wanted: Images that are wanted, the first of the n; None: all.

    Returns:
        (num_wanted, H, W), a class for each place, and the same with 255 where it is not certain.
    """
    mixed = np.stack(batches)
    told = np.stack([batch.sum() * each for batch, each in zip(mixed, sums, strict=True)])
    usual = np.broadcast_to(likely, (mixed.shape[1], *likely.shape))
    unmix = mixed.T @ np.linalg.inv(mixed @ mixed.T + _ERROR * np.eye(len(mixed)))
    missed = told - np.tensordot(mixed, usual, 1)
    wanted = slice(num_wanted)
    shares = torch.from_numpy(usual[wanted] + np.tensordot(unmix[wanted], missed, 1))
    fine = functional.interpolate(shares, size=size, mode="bilinear").numpy()
    maps: Labels = fine.argmax(axis=1).astype(np.uint8)
    second, first = np.sort(fine, axis=1)[:, -2:].swapaxes(0, 1)
    is_sure = (first > _SURE) & (second < 1 - _SURE)
    return maps, np.where(is_sure, maps, np.uint8(_UNSURE))
