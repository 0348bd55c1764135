"""The few operations that ciphers need of numpy arrays and torch tensors alike, bit for bit.

Tensors are used by their methods, so that importing this does not import torch. Leading axes
broadcast: parameters of shape (R, ...) serve blocks of shape (N, L) or (B, N, L).
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.data.blocks import Array

_CHUNK_VALUES: Final = 1 << 16  # with their indices of 64 bits they stay in the L2 cache


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
    if source.shape[:-1] == index.shape[:-1]:
        return _gather_rows(source, index)
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
    return _scatter_rows(values, np.broadcast_to(index, values.shape))


def invert_where(values: Array, mask: Any) -> Array:
    """(..., L) bytes -> (..., L), 255 - v where the mask is 255, v where it is 0: v XOR mask."""
    inverted: Array = values ^ mask
    return inverted


def beside(parameters: Any, like: Array) -> Any:
    """Put parameters into the library and on the device of the blocks that they will meet.

    Args:
        parameters: A numpy array, or a tuple of them, nested or not; a tensor stays as it is.
        like: The blocks.
    """
    if isinstance(like, np.ndarray):
        return parameters
    if isinstance(parameters, tuple):
        fields = [beside(field, like) for field in parameters]
        return type(parameters)(*fields) if hasattr(parameters, "_fields") else tuple(fields)
    if not isinstance(parameters, np.ndarray):
        return parameters
    import torch  # loaded before, by whoever made `like`

    return torch.from_numpy(parameters).to(like.device)


def in_memory(array: Any) -> Any:
    """A tensor in the CPU's memory as a numpy array of the same bytes, all else as it is."""
    if isinstance(array, np.ndarray) or array.device.type != "cpu":
        return array
    return array.numpy()


def empty_like(array: Any) -> Any:
    """An array or tensor of the same shape and kind, in the order of its axes, to be filled."""
    if isinstance(array, np.ndarray):
        return np.empty(array.shape, array.dtype)
    return array.new_empty(array.shape)


def _gather_rows(source: npt.NDArray[Any], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., L), (..., K) -> (..., K), row by row, chunks of rows by flat indices."""
    length, width = source.shape[-1], index.shape[-1]
    gathered = np.empty(index.shape, source.dtype)
    for rows, places in _flat_places(index.reshape(-1, width), length):
        gathered.reshape(-1, width)[rows] = source.reshape(-1, length)[rows].take(places)
    return gathered


def _scatter_rows(values: npt.NDArray[Any], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., L), (..., L) -> (..., L), row by row, chunks of rows by flat indices."""
    length = values.shape[-1]
    scattered = np.empty(values.shape, values.dtype)
    for rows, places in _flat_places(index.reshape(-1, length), length):
        scattered.reshape(-1, length)[rows].reshape(-1)[places] = values.reshape(-1, length)[rows]
    return scattered


def _flat_places(
    index: npt.NDArray[Any], length: int
) -> Iterator[tuple[slice, npt.NDArray[np.intp]]]:
    """(R, K) places in rows of `length` -> chunks of rows, and the places counted from their first.

    numpy takes by flat indices three times as fast as along an axis.
    """
    num_rows, width = index.shape
    step = max(1, _CHUNK_VALUES // width)
    starts = np.arange(step)[:, None] * length
    for start in range(0, num_rows, step):
        places = index[start : start + step]
        yield slice(start, start + step), places + starts[: len(places)]


def _aligned(array: Any, num_axes: int) -> Any:
    """Add leading axes of size 1 until there are `num_axes`."""
    return array.reshape((1,) * (num_axes - array.ndim) + tuple(array.shape))
