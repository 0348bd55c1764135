"""A change as the product of two thin factors, in 4 bits a number.

The update of a matrix of weights by a few steps is close to one of low rank, since each image adds
few directions. PowerSGD (Vogels et al. 2019, algorithm 1) finds them by power iteration. Factors
are decoded and multiplied before anything is averaged, so the mean is that of the updates
themselves (the mean of factors would be something else), and error feedback brings the rest later.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.codecs.tensors import (
    MAX_CHANGE,
    MAX_SCALE,
    Change,
    CodecError,
    Int8,
    Layout,
)
from fl_ppseg.system.arrays import Arrays

NIBBLE_LEVELS: Final = 7
"""Levels on either side of 0, of 4 bits."""
ITERATIONS: Final = 2
"""Of the power iteration: one finds less, and more find hardly more (docs/trials.md)."""
_SEED: Final = 0
"""Of the matrix that it starts from: the same change gives the same code."""
_EXCESS: Final = NIBBLE_LEVELS + 1
"""Added to a level, so that 4 bits hold it; 0 is none."""


@dataclass(frozen=True)
class LowRank:
    """Of a matrix (m, n) factors (m, r) and (n, r), r (m + n) / 2 bytes; of the others `Int8`.

    Convolutions are matrices of output channel against all else. A tensor is factored if both of
    its sides are above 2 r, which biases, norms and class heads are not: its factors then take at
    most half the bytes of `Int8`.
    """

    rank: int
    """r, at least 1."""

    def layout(self, shape: tuple[int, ...]) -> Mapping[str, Layout]:
        """Levels of the factors, two in a byte, row after row, and a scale for each column."""
        sides = self._sides(shape)
        if sides is None:
            return Int8().layout(shape)
        found = {}
        for part, side in zip(("left", "right"), sides, strict=True):
            found[part] = Layout((math.ceil(side * self.rank / 2),), np.dtype(np.uint8))
            found[part + "-scale"] = Layout((self.rank,), np.dtype(np.float32))
        return found

    def encode(self, change: Change) -> Arrays:
        """Find the right factor, and the left one that fits best to it as it is coded.

        A product may be larger than what it stands for: it is scaled down to the largest change.
        """
        sides = self._sides(change.shape)
        if sides is None:
            return Int8().encode(change)
        matrix = change.reshape(sides)
        right, right_scale = _in_levels(_directions(matrix, self.rank))
        factor = right * right_scale.astype(np.float64)
        left, left_scale = _in_levels(matrix @ np.linalg.pinv(factor).T)
        largest = np.abs(matrix).max()
        reached = np.abs((left * left_scale.astype(np.float64)) @ factor.T).max()
        if reached > largest:
            left_scale = np.asarray(left_scale * (largest / reached), np.float32)
        return {
            "left": _packed(left),
            "left-scale": left_scale,
            "right": _packed(right),
            "right-scale": right_scale,
        }

    def decode(self, parts: Arrays, shape: tuple[int, ...]) -> Change:
        """As `TensorCodec.decode`."""
        sides = self._sides(shape)
        if sides is None:
            return Int8().decode(parts, shape)
        left, right = (
            _factor(parts[part], parts[part + "-scale"], side)
            for part, side in zip(("left", "right"), sides, strict=True)
        )
        change = left @ right.T
        if not np.abs(change).max() <= MAX_CHANGE:
            raise CodecError(f"expected changes of at most {MAX_CHANGE:.0e}")
        return np.asarray(change.reshape(shape))

    def _sides(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Rows and columns of the matrix that a tensor is; None if it is not factored."""
        axes = list(shape)
        while len(axes) > 2 and axes[0] == 1:  # a position embedding
            axes.pop(0)
        if len(axes) < 2:
            return None
        sides = axes[0], math.prod(axes[1:])
        return sides if min(sides) > 2 * self.rank else None


def _directions(matrix: Change, rank: int) -> Change:
    """(n, r) orthonormal directions in which a matrix (m, n) is large, by power iteration."""
    found = np.random.default_rng(_SEED).standard_normal((matrix.shape[1], rank))
    for _ in range(ITERATIONS):
        found = matrix.T @ np.linalg.qr(matrix @ found)[0]
    return np.linalg.qr(found)[0]


def _in_levels(factor: Change) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Levels of a factor (side, r), and the scale of each column."""
    scale = np.asarray(np.abs(factor).max(axis=0) / NIBBLE_LEVELS, np.float32)
    step = scale.astype(np.float64)
    levels = np.divide(factor, step, out=np.zeros_like(factor), where=step > 0)
    return np.asarray(np.clip(np.rint(levels), -NIBBLE_LEVELS, NIBBLE_LEVELS), np.int8), scale


def _packed(levels: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Two levels in a byte, the first in the upper half; an odd one out is followed by level 0."""
    flat = np.asarray(levels.ravel() + _EXCESS, np.uint8)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(_EXCESS))
    return np.asarray(flat[0::2] << 4 | flat[1::2], np.uint8)


def _factor(
    packed: npt.NDArray[np.uint8], scale: npt.NDArray[np.float32], side: int
) -> npt.NDArray[np.float64]:
    """A factor (side, r) out of its parts."""
    if not ((scale >= 0) & (scale <= MAX_SCALE)).all():
        raise CodecError(f"expected scales of 0 to {MAX_SCALE:.0e}")
    halves = np.stack([packed >> 4, packed & 15], axis=-1).ravel()
    if not halves.all():
        raise CodecError(f"expected levels of -{NIBBLE_LEVELS} to {NIBBLE_LEVELS}")
    levels = halves[: side * scale.size].astype(np.float64) - _EXCESS
    return np.asarray(levels.reshape(side, -1) * scale.astype(np.float64))
