"""Ridge regression from sums over batches, in numpy.

The weights W that minimise |X W - Y|² + sum_i p_i |W_i|² are (XᵀX + diag(p))⁻¹ XᵀY. Each penalty
p_i is relative to the squares of what it multiplies, so that no unit has to be chosen.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
RIDGE: Final = 1e-4
"""Penalty on each weight, relative to the squares of what it multiplies."""


class Sums(NamedTuple):
    """Sufficient statistics of a regression."""

    squares: Matrix
    """(F, F), XᵀX."""
    products: Matrix
    """(F, K), XᵀY."""
    power: Matrix
    """(K,), squares of Y."""


class Fit(NamedTuple):
    """The result of a regression."""

    weights: Matrix
    """(F + 1, K), the last row constants."""
    sums: Sums
    """Sums over the examples."""

    @property
    def explained(self) -> float:
        """R² over all columns of Y together: residual and total sum of squares, from the sums."""
        squares, products, power = self.sums
        fitted = 2 * (self.weights * products).sum(axis=0)
        fitted -= (self.weights * (squares @ self.weights)).sum(axis=0)
        total = power - np.square(products[-1]) / squares[-1, -1]  # the last row of X is ones
        return float(1 - (power - fitted).sum() / total.sum())


def ridge(batches: Iterable[tuple[Matrix, Matrix]]) -> Matrix:
    """(N, F) seen and (N, K) targets, in batches -> (F + 1, K) weights, the last row constants.

    >>> seen = np.array([[0.0], [1.0], [2.0]])
    >>> ridge([(seen, 2 * seen + 1)]).round(2).tolist()
    [[2.0], [1.0]]
    """
    return fit(batches).weights


def fit(batches: Iterable[tuple[Matrix, Matrix]]) -> Fit:
    """As `ridge`, with the sums for R²."""
    sums = _sums((with_one(seen), targets) for seen, targets in batches)
    return Fit(_solved(sums, RIDGE * (sums.squares.diagonal() + 1)), sums)  # + 1: a column of zeros


def linear_map(seen: Matrix, targets: Matrix) -> Matrix:
    """(..., F) and (..., K), both about 0 -> (F, K) weights: no constants, one penalty for all.

    >>> linear_map(np.array([[-1.0], [1.0]]), np.array([[-2.0], [2.0]])).round(2).tolist()
    [[2.0]]
    """
    rows = [values.reshape(-1, values.shape[-1]) for values in (seen, targets)]
    sums = _sums([(rows[0], rows[1])])
    width = len(sums.squares)
    return _solved(sums, np.full(width, RIDGE * np.trace(sums.squares) / width))


def with_one(seen: Matrix) -> Matrix:
    """(N, F) -> (N, F + 1), with a last column of ones."""
    return np.pad(seen, ((0, 0), (0, 1)), constant_values=1)


def _sums(batches: Iterable[tuple[Matrix, Matrix]]) -> Sums:
    parts = (Sums(x.T @ x, x.T @ y, np.square(y).sum(axis=0)) for x, y in batches)
    return reduce(lambda a, b: Sums(*(one + other for one, other in zip(a, b, strict=True))), parts)


def _solved(sums: Sums, penalty: Matrix) -> Matrix:
    weights = np.linalg.solve(sums.squares + np.diag(penalty), sums.products)
    return np.asarray(weights, np.float64)
