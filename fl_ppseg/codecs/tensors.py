"""Codecs of the change of one tensor: to fewer bytes and back.

A new codec is a class here with the methods of `TensorCodec`, and a line in
`fl_ppseg.codecs.update`. What arrives is hostile: shapes and dtypes are checked against `layout`
before `decode`, which checks the values.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fl_ppseg.system.arrays import Arrays

Change = npt.NDArray[np.float64]
LEVELS: Final = 127
"""Levels of int8 on either side of 0."""
MAX_CHANGE: Final = 1e8
"""Of a weight; those of honest training are below 1."""
MAX_SCALE: Final = MAX_CHANGE / 100
"""Of a level."""


class CodecError(ValueError):
    """Parts of a tensor that no codec made."""


class Layout(NamedTuple):
    """What an array must look like."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def num_bytes(layouts: Iterable[Layout]) -> int:
    """Bytes of arrays of these layouts."""
    return sum(math.prod(each.shape) * each.dtype.itemsize for each in layouts)


class TensorCodec(Protocol):
    """A codec of one tensor."""

    def layout(self, shape: tuple[int, ...]) -> Mapping[str, Layout]:
        """The parts of a tensor of this shape, by the end of their name."""

    def encode(self, change: Change) -> Arrays:
        """The parts of a change."""

    def decode(self, parts: Arrays, shape: tuple[int, ...]) -> Change:
        """The change that the parts tell; they have the layout.

        Raises:
            CodecError: A value is not one that `encode` makes.
        """


class BFloat16:
    """8 of the 24 bits of a float: a relative error below 2^-7; 2 bytes a weight."""

    def layout(self, shape: tuple[int, ...]) -> Mapping[str, Layout]:
        """One part: the upper half of each float32."""
        return {"bf16": Layout(shape, np.dtype(np.uint16))}

    def encode(self, change: Change) -> Arrays:
        """Cut the lower half off, so that no change gets larger."""
        bits = change.astype(np.float32).view(np.uint32)
        return {"bf16": np.asarray(bits >> 16, np.uint16)}

    def decode(self, parts: Arrays, shape: tuple[int, ...]) -> Change:
        """As `TensorCodec.decode`."""
        change = (parts["bf16"].astype(np.uint32) << 16).view(np.float32)
        if not (np.abs(change) <= MAX_CHANGE).all():
            raise CodecError(f"expected changes of at most {MAX_CHANGE:.0e}")
        return change.astype(np.float64)


class Int8:
    """Whole numbers of -127..127 times a scale for each output channel; 1 byte a weight.

    The scale of a channel is the largest change in it over 127. Tensors of one axis or none (norms,
    biases) have one scale.
    """

    def layout(self, shape: tuple[int, ...]) -> Mapping[str, Layout]:
        """The levels and the scales."""
        return {
            "int8": Layout(shape, np.dtype(np.int8)),
            "scale": Layout(_channels(shape), np.dtype(np.float32)),
        }

    def encode(self, change: Change) -> Arrays:
        """Round to the nearest step."""
        scale = _scales(np.abs(change), _channels(change.shape))
        return {"int8": _in_steps(change, scale), "scale": scale}

    def decode(self, parts: Arrays, shape: tuple[int, ...]) -> Change:
        """As `TensorCodec.decode`."""
        return _from_steps(parts["int8"], parts["scale"])


@dataclass(frozen=True)
class TopK:
    """The largest changes of a tensor in steps of `Int8`, and where they are; all others are 0.

    5 bytes for each that is kept.
    """

    share: float
    """Of the changes that are kept, in (0, 1]; at least one of a tensor is."""

    def layout(self, shape: tuple[int, ...]) -> Mapping[str, Layout]:
        """Indices into the flattened tensor, ascending; the levels and their scale."""
        kept = (self._kept(math.prod(shape)),)
        return {
            "index": Layout(kept, np.dtype(np.uint32)),
            "int8": Layout(kept, np.dtype(np.int8)),
            "scale": Layout((), np.dtype(np.float32)),
        }

    def encode(self, change: Change) -> Arrays:
        """Keep the largest; of equal ones the first."""
        flat = change.ravel()
        order = np.argsort(-np.abs(flat), kind="stable")[: self._kept(flat.size)]
        index = np.sort(order).astype(np.uint32)
        scale = _scales(np.abs(flat[index]), ())
        return {"index": index, "int8": _in_steps(flat[index], scale), "scale": scale}

    def decode(self, parts: Arrays, shape: tuple[int, ...]) -> Change:
        """As `TensorCodec.decode`."""
        size, index = math.prod(shape), parts["index"].astype(np.int64)
        if index.size and (index[-1] >= size or (np.diff(index) <= 0).any()):
            raise CodecError("expected ascending indices within the tensor")
        change = np.zeros(size)
        change[index] = _from_steps(parts["int8"], parts["scale"])
        return change.reshape(shape)

    def _kept(self, size: int) -> int:
        return min(size, math.ceil(self.share * size))


def _channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0],) if len(shape) > 1 else ()


def _scales(sizes: Change, channels: tuple[int, ...]) -> npt.NDArray[np.float32]:
    largest = sizes.reshape(*channels, -1).max(axis=-1, initial=0.0)
    return np.asarray(largest / LEVELS, np.float32)


def _in_steps(change: Change, scale: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    step = _along(scale.astype(np.float64), change.ndim)
    steps = np.divide(change, step, out=np.zeros_like(change), where=step > 0)
    # a scale is rounded to float32, and the largest change may lie a hair above 127 of its steps
    return np.asarray(np.clip(np.rint(steps), -LEVELS, LEVELS), np.int8)


def _from_steps(steps: npt.NDArray[np.int8], scale: npt.NDArray[np.float32]) -> Change:
    if not ((scale >= 0) & (scale <= MAX_SCALE)).all():
        raise CodecError(f"expected scales of 0 to {MAX_SCALE:.0e}")
    if (steps == -LEVELS - 1).any():
        raise CodecError(f"expected levels of -{LEVELS} to {LEVELS}")
    return np.asarray(steps * _along(scale.astype(np.float64), steps.ndim))


def _along(scale: Change, ndim: int) -> Change:
    """Scales of channels (or one) against a tensor of `ndim` axes."""
    return scale.reshape((*scale.shape, *(1,) * (ndim - scale.ndim)))
