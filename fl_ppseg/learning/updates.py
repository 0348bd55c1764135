"""Updates of local training: difference, norm and clipping over all weights together."""

import math
from collections.abc import Mapping

import numpy as np

from fl_ppseg.system.arrays import Arrays


def difference(arrays: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]) -> Arrays:
    """`arrays` - `start` in float64, without integer counters."""
    return {
        name: value.astype(np.float64) - start[name]
        for name, value in arrays.items()
        if np.issubdtype(value.dtype, np.floating)
    }


def norm(update: Mapping[str, np.ndarray]) -> float:
    """Euclidean norm over all tensors together.

    >>> norm({"w": np.array([3.0]), "b": np.array([[4.0]])})
    5.0
    """
    return math.sqrt(math.fsum(float(np.vdot(value, value)) for value in update.values()))


def squared_distances(
    arrays: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Squared Euclidean distance of each tensor, one in float64 at a time; counters left out.

    >>> squared_distances({"w": np.array([3.0, 1.0])}, {"w": np.array([0.0, 1.0])})
    {'w': 9.0}
    """
    return {
        name: float(np.vdot(change, change))
        for name in arrays
        for change in difference({name: arrays[name]}, start).values()
    }


def squared_norms(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Squared Euclidean norm of each tensor, one in float64 at a time; counters left out."""
    return squared_distances(
        arrays, {name: np.zeros((), value.dtype) for name, value in arrays.items()}
    )


def clipped(update: Arrays, limit: float) -> Arrays:
    """The update scaled down to a norm of at most `limit` (McMahan et al. 2018)."""
    length = norm(update)
    if length <= limit:
        return update
    return {name: value * (limit / length) for name, value in update.items()}


def moved(start: Mapping[str, np.ndarray], update: Mapping[str, np.ndarray]) -> Arrays:
    """`start` + `update` in the dtypes of `start`; tensors not in the update are unchanged."""
    return {
        name: np.asarray(value + update[name], value.dtype) if name in update else value
        for name, value in start.items()
    }
