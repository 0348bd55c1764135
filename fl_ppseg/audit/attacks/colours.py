"""The order of three channels, found by how common the resulting colours are in public images.

The score is the likelihood of all pixels under a histogram of 8x8x8 colours in each of four bands
of the image, from sky to road.
"""

from itertools import permutations
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.position_statistics import NUM_STRIPS
from fl_ppseg.audit.attacks.undoing import Images

NUM_LEVELS: Final = 8
"""Bins per channel; with 4 or 16, procedural scenes as the prior fail on photographs."""


def channel_order(images: Images, public: Images) -> tuple[int, ...]:
    """Return the order of channels, images[:, order], that makes images most like public ones.

    Args:
        images: (n, 3, H, W), correct or nearly so but for the order of their channels.
        public: (m, 3, H', W'), public images.
    """
    counts = _counts(public) + 1
    chances = np.log(counts / counts.sum(axis=1, keepdims=True))
    return max(
        permutations(range(3)),
        key=lambda order: float(np.vdot(_counts(images[:, list(order)]), chances)),
    )


def _counts(images: Images) -> npt.NDArray[np.float64]:
    """(n, 3, H, W) -> (strips, colours), the number of pixels of each colour."""
    red, green, blue = (images // (256 // NUM_LEVELS)).astype(np.intp).swapaxes(0, 1)
    height, num_colours = images.shape[2], NUM_LEVELS**3
    strip = np.arange(height)[:, None] * NUM_STRIPS // height
    codes = ((strip * NUM_LEVELS + red) * NUM_LEVELS + green) * NUM_LEVELS + blue
    counted = np.bincount(codes.ravel(), minlength=NUM_STRIPS * num_colours)
    return counted.reshape(NUM_STRIPS, num_colours).astype(np.float64)
