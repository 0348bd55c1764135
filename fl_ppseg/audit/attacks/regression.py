"""Linear maps of least squares from what is read of blocks to what they were."""

from collections.abc import Iterable
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional

Matrix = npt.NDArray[np.float64]
RIDGE: Final = 1e-4
"""Penalty on each weight, relative to one and the summed squares of what it multiplies."""


def ridge(batches: Iterable[tuple[Matrix, Matrix]]) -> Matrix:
    """(N, F) seen and (N, K) wanted, in batches -> (F + 1, K) weights, the last row constants.

    >>> seen = np.array([[0.0], [1.0], [2.0]])
    >>> ridge([(seen, 2 * seen + 1)]).round(2).tolist()
    [[2.0], [1.0]]
    """
    designs = ((with_one(seen), wanted) for seen, wanted in batches)
    parts = ((design.T @ design, design.T @ wanted) for design, wanted in designs)
    squares, products = reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), parts)
    penalty = RIDGE * (squares.diagonal() + 1)
    weights = np.linalg.solve(squares + np.diag(penalty), products)
    return np.asarray(weights, np.float64)


def with_one(seen: Matrix) -> Matrix:
    """(N, F) -> (N, F + 1), a column of ones behind."""
    return np.pad(seen, ((0, 0), (0, 1)), constant_values=1)


def blocks_of(images: Tensor, block_size: int) -> Matrix:
    """(B, C, H, W) -> (B N, C M²) float64, the values of each block in order (C, y, x)."""
    columns = functional.unfold(images, block_size, stride=block_size)
    blocks: Matrix = columns.transpose(1, 2).flatten(0, 1).double().numpy()
    return blocks
