"""Nearest-neighbour scaling of values that cannot be mixed, e.g. label maps."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)


def nearest(values: NDArray[Value], size: tuple[int, int]) -> NDArray[Value]:
    """(..., h, w) -> (..., H, W): of each place the value in which its middle lies.

    Args:
        values: Of any kind.
        size: (H, W).

    >>> nearest(np.array([[1, 2]]), (1, 4)).tolist(), nearest(np.arange(6)[None], (1, 2)).tolist()
    ([[1, 1, 2, 2]], [[1, 4]])
    """
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns]
