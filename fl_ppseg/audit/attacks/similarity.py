"""Differentiable SSIM (Wang et al. 2004), equal to that of scikit-image."""

from typing import Final

import torch
from torch import Tensor

WINDOW: Final = 7
"""Side of the uniform window, scikit-image's default."""


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of pairs, (B, C, H, W) float in [-1, 1] of at least 7x7 -> () float.

    Window sums are products with banded matrices, five times as fast as pooling on a CPU.
    """
    a, b = a + 1, b + 1  # the measure is one of values from 0 on
    rows, columns = (window_means(side) for side in a.shape[2:])
    mean_a, mean_b, aa, bb, ab = rows @ torch.stack([a, b, a * a, b * b, a * b]) @ columns.T
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    var_a, var_b = unbiased * (aa - mean_a**2), unbiased * (bb - mean_b**2)
    covariance = unbiased * (ab - mean_a * mean_b)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    similar: Tensor = top / bottom
    return similar.mean()


def window_means(side: int) -> Tensor:
    """(side - 6, side), the matrix that takes the means of all windows along an axis."""
    starts = torch.arange(side - WINDOW + 1)[:, None]
    offset = torch.arange(side) - starts
    return ((offset >= 0) & (offset < WINDOW)).float() / WINDOW
