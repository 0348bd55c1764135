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

The order is that of the random parts, whatever lies below them. So values that lie there in place
of the positions come out permuted, with one sort and no permutation: `in_random_order`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from fl_ppseg.crypto.ciphers.arrays import gather
from fl_ppseg.crypto.ciphers.random_words import Stream, has_room, sort_rows, sorted_places
from fl_ppseg.data.blocks import Array

Permutations = npt.NDArray[np.unsignedinteger[Any]]
Masks = npt.NDArray[np.uint8]
"""255 (all bits) at the positions that are chosen, 0 elsewhere."""


def draw_permutations(stream: Stream, num_rows: int, length: int) -> Permutations:
    """Return independent uniform permutations, (num_rows, length) of the smallest unsigned int.

    Args:
        stream: source of random bytes, one stream an attempt.
        num_rows: number of permutations.
        length: values that each of them permutes.
    """
    positions = np.arange(length, dtype=smallest_integer(length))
    rows = np.broadcast_to(positions, (num_rows, 1, length))
    return sort_rows(stream, rows, num_bits=(length - 1).bit_length())[:, 0]


def in_random_order(stream: Stream, rows: Array) -> Array:
    """(R, C, L) uint8 -> (R, C, L) uint8, each row by its permutation of `draw_permutations`.

    The C values at a position move together: y[r, c, l] = x[r, c, permutation[r, l]].

    Args:
        stream: as for `draw_permutations`.
        rows: numpy array, or torch tensor, which is sorted on its device.
    """
    num_rows, num_channels, length = rows.shape
    if not isinstance(rows, np.ndarray):
        return gather(rows, sorted_places(stream, num_rows, length, rows)[:, None])
    num_bits = 8 * num_channels
    if has_room(length, num_bits):
        return sort_rows(stream, rows, num_bits)
    return gather(rows, draw_permutations(stream, num_rows, length)[:, None])


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
