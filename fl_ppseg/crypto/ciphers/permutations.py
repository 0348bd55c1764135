"""Unbiased random permutations by sorting random words, and subsets from permutations.

Specification, for whoever implements it again. To draw `num_rows` permutations of 0..length-1:
    1. A word has 32 bits if length <= 1024, otherwise 64; words are little-endian. Its low
       k = ceil(log2(length)) bits are overwritten by the word's position in the row (0..length-1),
       what stays above is its random part.
    2. In attempt 0 all rows, in ascending order, take `length` words each from stream 0.
    3. Each row is sorted by value; its permutation is the positions in that order.
    4. Rows in which two random parts are equal are dropped. In attempt a = 1, 2, ... they alone, in
       ascending order, take `length` words each from the start of stream a, and go on at 3.
Given distinct random parts every order is equally likely, so the permutation is uniform.
To draw a subset of `size` positions: the first `size` entries of a permutation.
"""

from collections.abc import Callable
from itertools import count
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Permutations = npt.NDArray[np.unsignedinteger[Any]]
Masks = npt.NDArray[np.uint8]
"""255 (all bits) at the positions that are chosen, 0 elsewhere."""
Stream = Callable[[int, int], bytes | bytearray]
"""(attempt, num_bytes) -> that many random bytes, the same for the same attempt."""

_MAX_LENGTH_OF_32_BITS: Final = 1024  # 22 random bits, of such rows 12 % tie; of 3072 it were 99 %
_CHUNK_ROWS: Final = 128  # 128 rows of 768 words stay in the processor's L2 cache


def draw_permutations(stream: Stream, num_rows: int, length: int) -> Permutations:
    """Return independent uniform permutations, (num_rows, length) of the smallest unsigned int.

    Args:
        stream: source of random bytes, one stream an attempt.
        num_rows: number of permutations.
        length: values that each of them permutes.
    """
    word = np.dtype("<u4" if length <= _MAX_LENGTH_OF_32_BITS else "<u8")
    permutations = np.empty((num_rows, length), smallest_integer(length))
    missing = np.arange(num_rows)
    for attempt in count():
        random_bytes = stream(attempt, missing.size * length * word.itemsize)
        words = np.frombuffer(random_bytes, word).reshape(missing.size, length)
        tied = np.empty(missing.size, np.bool_)
        for start in range(0, missing.size, _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            permutations[missing[chunk]], tied[chunk] = _sort_positions(words[chunk])
        missing = missing[tied]
        if missing.size == 0:
            break
    return permutations


def smallest_integer(length: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds the positions 0..length-1."""
    return np.min_scalar_type(length - 1)


def draw_subsets(stream: Stream, num_rows: int, length: int, size: int) -> Masks:
    """Return independent uniform subsets of exactly `size` positions, as (num_rows, length) masks.

    Args:
        stream: as for `draw_permutations`.
        num_rows: number of subsets.
        length: positions to choose from.
        size: positions to choose.
    """
    masks = np.zeros((num_rows, length), np.uint8)
    chosen = draw_permutations(stream, num_rows, length)[:, :size]
    np.put_along_axis(masks, chosen, 255, axis=1)
    return masks


def _sort_positions(words: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """(R, L) random words -> (R, L) positions in sorted order, (R,) whether the row has a tie."""
    length = words.shape[1]
    mask = words.dtype.type((1 << (length - 1).bit_length()) - 1)
    tagged = words & ~mask
    tagged |= np.arange(length, dtype=words.dtype)
    tagged.sort(axis=1)
    tied = ((tagged[:, 1:] ^ tagged[:, :-1]) <= mask).any(axis=1)
    tagged &= mask
    return tagged, tied
