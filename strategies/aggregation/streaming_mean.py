"""Streaming weighted mean of client weights: one reply in memory at a time, any order of arrival.

FedAvg (McMahan et al. 2017, equation 1): w = sum_k n_k w_k / sum_k n_k. Terms n_k * w_k of fp32
weights are exact in fp64; their sum is kept as an unevaluated pair of fp64 (error-free TwoSum,
Knuth 1969; compensated summation, Ogita, Rump, Oishi 2005), about 106 bits. The pair is exact, and
the mean therefore the same bits in any order of the replies, as long as the values that the clients
give one weight differ by less than a factor of 2^40 (zeros apart; up to 2^12 replies of 2^12
examples). One reply alone is returned bit for bit.

The first of the pair takes twice the memory of fp32 weights. The second is zero unless the values
of a weight differ by a factor of about 2^18 or more, and takes memory where it is not zero: of
replies that are near each other, next to none.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from fl_ppseg.system.arrays import Arrays

BLOCK: Final = 2**15
"""Elements that are folded in at a time: what is computed between lies in a core's cache."""
SPARSE_SHARE: Final = 16
"""Errors of more than one in so many elements are kept for all elements."""


class Aggregator(Protocol):
    """Aggregates the replies of a round."""

    def add(self, arrays: Arrays, num_examples: int) -> None:
        """Add one reply; ValueError if its arrays do not match the global model."""

    def result(self) -> Arrays:
        """The aggregate in the dtypes of the global model."""


def capped(num_examples: int, rest: int, max_share: float) -> int:
    """The weight of the largest reply, cut to its share of the mean; unchanged where it is alone.

    Args:
        num_examples: Its number of examples.
        rest: The weights of all others together.
        max_share: From 0.5 on, so that no other reply can be above it.

    >>> capped(10, 5, 0.5), capped(4, 5, 0.5), capped(10**9, 6, 0.75), capped(3, 0, 0.5)
    (5, 4, 18, 3)
    """
    if not rest or max_share >= 1:
        return num_examples
    return min(num_examples, max(1, math.floor(max_share / (1 - max_share) * rest)))


class StreamingMean:
    """Mean of arrays weighted by num_examples; memory independent of the number of replies."""

    def __init__(self, reference: Mapping[str, np.ndarray], max_share: float = 1.0) -> None:
        """Start an empty mean.

        Args:
            reference: Arrays whose names, shapes and dtypes every reply must have.
            max_share: Largest share of one reply in the mean, at least 0.5; below 1 the largest
                reply is kept aside until the others' weights are known.
        """
        self._max_share = max_share
        self._largest: tuple[Arrays, int] | None = None
        self.reference = dict(reference)
        """Names, shapes and dtypes of every reply."""
        # -0.0 is the neutral element of IEEE addition: a negative zero stays one.
        self._high = {name: np.full(value.shape, -0.0) for name, value in reference.items()}
        self._low = {name: _Errors(value.size) for name, value in reference.items()}
        self.num_examples = 0

    def add(self, arrays: Arrays, num_examples: int) -> None:
        """Fold one reply in; the caller may free it afterwards.

        Raises:
            ValueError: If the reply cannot be averaged; the mean is then unchanged.
        """
        check_update(arrays, num_examples, self.reference)
        if self._max_share >= 1:
            self._fold(arrays, num_examples)
            return
        if self._largest is not None and self._largest[1] >= num_examples:
            self._fold(arrays, num_examples)
            return
        smaller, self._largest = self._largest, (arrays, num_examples)
        if smaller is not None:
            self._fold(*smaller)

    def _fold(self, arrays: Arrays, num_examples: int) -> None:
        for name, value in arrays.items():
            values, sums = value.reshape(-1), self._high[name].reshape(-1)
            lost = []
            for begin in range(0, values.size, BLOCK):
                block = slice(begin, begin + BLOCK)
                term = values[block].astype(np.float64)
                term *= num_examples
                sums[block], error = _two_sum(sums[block], term)
                places = np.flatnonzero(error)
                if places.size:
                    lost.append((places + begin, error[places]))
            self._low[name].add(lost)
        self.num_examples += num_examples

    def result(self) -> Arrays:
        """The mean in the dtypes of the reference.

        Raises:
            ValueError: If nothing was added.
        """
        if self._largest is not None:
            (arrays, num_examples), self._largest = self._largest, None
            self._fold(arrays, capped(num_examples, self.num_examples, self._max_share))
        if not self.num_examples:
            raise ValueError("expected at least one reply, got none")
        return {
            name: np.asarray(self._sum(name) / self.num_examples, dtype=value.dtype)
            for name, value in self.reference.items()
        }

    def _sum(self, name: str) -> np.ndarray:
        total = np.array(self._high[name])
        low = self._low[name].dense().reshape(total.shape)
        np.add(total, low, out=total, where=low != 0)
        return total


class _Errors:
    """What rounding has lost of the sums of a tensor: the elements that are not zero.

    Each element's errors are added in the order in which they come, as in an array of all.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._num_kept = 0
        self._dense: np.ndarray | None = None

    def add(self, lost: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Add the errors of one reply: (places, values), each place once."""
        if not lost:
            return
        places, values = (np.concatenate(parts) for parts in zip(*lost, strict=True))
        if self._dense is not None:
            self._dense[places] += values
            return
        self._parts.append((places, values))
        self._num_kept += places.size
        if self._num_kept * SPARSE_SHARE > self._size:
            self._dense, self._parts = self.dense(), []

    def dense(self) -> np.ndarray:
        """The errors of all elements, (size,) float64."""
        if self._dense is not None:
            return self._dense
        errors = np.zeros(self._size)
        for places, values in self._parts:
            errors[places] += values
        return errors


def check_update(
    arrays: Mapping[str, np.ndarray], num_examples: int, reference: Mapping[str, np.ndarray]
) -> None:
    """Refuse an update whose arrays do not match the global model.

    Raises:
        ValueError: For other names, shapes or dtypes, NaN or infinity, or no examples.
    """
    if num_examples <= 0:
        raise ValueError(f"expected num_examples above 0, got {num_examples}")
    if arrays.keys() != reference.keys():
        raise ValueError("other array names than the global model's")
    for name, value in arrays.items():
        if (value.shape, value.dtype) != (reference[name].shape, reference[name].dtype):
            raise ValueError(f"{name} has another shape or dtype than the global model's")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity")


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a + b as (rounded sum, exact error)."""
    total = a + b
    b_part = total - a
    error = (a - (total - b_part)) + (b - b_part)
    return total, error
