"""The few operations that ciphers need of numpy arrays and torch tensors alike, bit for bit.

Tensors are used by their methods, so that importing this does not import torch. Leading axes
broadcast: parameters of shape (R, ...) serve blocks of shape (N, L) or (B, N, L).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fl_ppseg.data.blocks import Array


def gather(source: Array, index: Any) -> Array:
    """(..., L) bytes, (..., K) -> (..., K), source[..., index[..., k]] along the last axis.

    Args:
        source: Bytes.
        index: Integers below L, of the same library.
    """
    source, index = _aligned(source, index.ndim), _aligned(index, source.ndim)
    if not isinstance(source, np.ndarray):
        lead = tuple(map(max, source.shape[:-1], index.shape[:-1]))
        return source.expand(*lead, -1).gather(-1, index.long().expand(*lead, -1))
    if index.size == index.shape[-1]:  # one row for all: three times as fast
        row: npt.NDArray[np.unsignedinteger[Any]] = index.ravel()
        return source.take(row, axis=-1)
    return np.take_along_axis(source, index, axis=-1)


def scatter(values: Array, index: Any) -> Array:
    """(..., L) bytes -> (..., L), what `gather` took by an index whose rows are permutations."""
    index = _aligned(index, values.ndim)
    if not isinstance(values, np.ndarray):
        places = index.long().expand(values.shape)
        return values.new_empty(values.shape).scatter_(-1, places, values)
    if index.size == index.shape[-1]:
        row: npt.NDArray[np.unsignedinteger[Any]] = index.ravel()
        return values.take(row.argsort(), axis=-1)
    result = np.empty_like(values)
    np.put_along_axis(result, index, values, axis=-1)
    return result


def invert_where(values: Array, mask: Any) -> Array:
    """(..., L) bytes -> (..., L), 255 - v where the mask is 255, v where it is 0: v XOR mask."""
    inverted: Array = values ^ mask
    return inverted


def stack(parameters: Sequence[Any], like: Array) -> Any:
    """Put the parameters of several draws into one along a new first axis.

    Args:
        parameters: Tuples of numpy arrays, nested or not, all built alike.
        like: The array they will meet: they go to its library and device.
    """
    first = parameters[0]
    if isinstance(first, tuple):
        fields = [stack(field, like) for field in zip(*parameters, strict=True)]
        return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)
    stacked = np.stack(parameters)
    if isinstance(like, np.ndarray):
        return stacked
    import torch  # loaded before, by whoever made `like`

    return torch.from_numpy(stacked).to(like.device)


def _aligned(array: Any, num_axes: int) -> Any:
    """Add leading axes of size 1 until there are `num_axes`."""
    return array.reshape((1,) * (num_axes - array.ndim) + tuple(array.shape))
