"""The blocks of an image, recovered from sums over them by a Gaussian process.

The gradient of a layer that all blocks pass through is a sum over them, S = G^T X + noise, with the
rows g_n of G known and the rows x_n of X unknown. The prior is that near blocks resemble each
other: the columns of X are independent draws from a Gaussian process over the grid, and the result
is its posterior mean (Rasmussen and Williams 2006, equations 2.23 and 2.30).
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from fl_ppseg.audit.attacks.gradients import Floats, Gradient
from fl_ppseg.data.blocks import Geometry

_SHARED: Final = 0.3
"""Share of the prior variance that all blocks of an image have in common."""
_REACH: Final = 1.5
"""Length scale in blocks: distance at which the rest of the correlation has fallen to 1/e."""


def resemblance(geometry: Geometry) -> Floats:
    """(N, N), prior correlation of two blocks of the grid, by their distance."""
    row, column = np.divmod(np.arange(geometry.num_blocks), geometry.grid_w)
    distance = np.hypot(row[:, None] - row, column[:, None] - column)
    falling: Floats = np.exp(-distance / _REACH)
    return _SHARED + (1 - _SHARED) * falling


def most_plausible(
    factors: Floats, sums: Floats, prior: Floats, noises: Iterable[Floats]
) -> Floats:
    """The posterior mean under the noise variance of maximum likelihood.

    Args:
        factors: G, (N, R).
        sums: S, (R, C).
        prior: (N, N), covariance of each column of X.
        noises: Variances of the sums to choose from, (R, C) each.

    Returns:
        X, (N, C).
    """
    found = (_posterior(factors, sums, prior, noise) for noise in noises)
    return max(found, key=lambda each: each[0])[1]


def error_of_sums(factors: Gradient, sums: Gradient, squares: Floats) -> Floats:
    """(R, C), variance of the sums that follows from the errors of the sums and of the factors.

    Args:
        factors: G, (N, R).
        sums: S, (R, C).
        squares: (N, C), expected squares of X.
    """
    return sums.deviation**2 + (factors.deviation**2).T @ squares


def _posterior(factors: Floats, sums: Floats, prior: Floats, noise: Floats) -> tuple[float, Floats]:
    """Log evidence up to a constant, and posterior mean."""
    resembling = prior @ factors
    signal = factors.T @ resembling
    scale = np.sqrt(np.diag(signal).mean() + noise.mean())
    covariance = np.broadcast_to(signal / scale**2, (noise.shape[1], *signal.shape)).copy()
    rows = np.arange(len(signal))
    covariance[:, rows, rows] += noise.T / scale**2
    right = sums.T / scale
    lower = np.linalg.cholesky(covariance)
    solved = np.linalg.solve(covariance, right[..., None])[..., 0]
    logs = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum()
    evidence = -0.5 * float((right * solved).sum()) - float(logs) - right.size * np.log(scale)
    return evidence, resembling @ solved.T / scale
