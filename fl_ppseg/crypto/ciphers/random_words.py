"""Rows of values sorted by random words, as `permutations` specifies it, in numpy and on a device.

Values lie in the low bits of the words, random parts above them. One sort of whole words, which
numpy does with the processor's vector instructions, carries the values along; to sort and to take
by the order found would be several times as slow. A few rows at a time, whose words stay in cache.
"""

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fl_ppseg.crypto.ciphers.arrays import beside
from fl_ppseg.data.blocks import Array

Rows = npt.NDArray[np.unsignedinteger[Any]]
"""(R, C, L) values, of which the C at a position move together."""
Words = npt.NDArray[np.unsignedinteger[Any]]
"""(R, L) of 32 or 64 bits."""

_MAX_LENGTH_OF_32_BITS: Final = (
    1024  # 22 random bits: 12 % of such rows tie, of 3072 values 99 % would
)
_CHUNK_WORDS: Final = 1 << 17  # half as many cost more calls, twice as many leave the L2 cache
_ROWS: Final = 16  # as many rows or a multiple begin and end where a stream can be read


class Stream(Protocol):
    """Random bytes, the same for the same attempt."""

    def __call__(self, attempt: int, num_bytes: int, start: int = 0) -> bytearray:
        """Return `num_bytes` bytes of stream `attempt` from byte `start`, a multiple of 64."""


def has_room(length: int, num_bits: int) -> bool:
    """Whether `sort_rows` takes values of so many bits in rows of this length."""
    return num_bits <= (32 if length <= _MAX_LENGTH_OF_32_BITS else _position_bits(length))


def sort_rows(stream: Stream, rows: Rows, num_bits: int, attempt: int = 0) -> Rows:
    """(R, C, L) -> (R, C, L), each row in the order of its random words.

    Args:
        stream: source of random bytes, one stream an attempt.
        rows: values; those at a position together below 2**num_bits, 8 bits for each but the last.
        num_bits: as many as `has_room` allows.
        attempt: the stream to begin with; rows that tie go on with the next.
    """
    num_rows, _, length = rows.shape
    word = _word(length)
    row_bytes = length * word.itemsize
    step = max(1, _CHUNK_WORDS // (_ROWS * length)) * _ROWS
    ordered, tied = np.empty(rows.shape, rows.dtype), np.empty(num_rows, np.bool_)
    for start in range(0, num_rows, step):
        chunk = slice(start, start + step)
        values = rows[chunk]
        random_bytes = stream(attempt, len(values) * row_bytes, start * row_bytes)
        words = np.frombuffer(random_bytes, word).reshape(len(values), length)
        tied[chunk] = _sort(words, values, num_bits, ordered[chunk])
    if tied.any():
        ordered[tied] = sort_rows(stream, rows[tied], num_bits, attempt + 1)
    return ordered


def sorted_places(stream: Stream, num_rows: int, length: int, like: Array, attempt: int = 0) -> Any:
    """Where the values of sorted rows come from: (num_rows, length) int64, sorted beside a tensor.

    Args:
        stream: as for `sort_rows`.
        num_rows: rows to sort.
        length: of a row.
        like: a tensor on the device that sorts.
        attempt: as for `sort_rows`.
    """
    word = _word(length)
    random_bytes = stream(attempt, num_rows * length * word.itemsize)
    signed = np.frombuffer(random_bytes, word.str.replace("u", "i")).reshape(num_rows, length)
    words = beside(signed, like)
    words ^= np.iinfo(signed.dtype).min  # in the order of unsigned words
    words >>= _position_bits(length)
    ordered, places = words.sort(dim=-1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(dim=-1)
    num_tied = int(tied.sum())
    if num_tied:
        places[tied] = sorted_places(stream, num_tied, length, like, attempt + 1)
    return places


def _sort(words: Words, values: Rows, num_bits: int, ordered: Rows) -> npt.NDArray[np.bool_]:
    """Put values (R, C, L) into `ordered` by random words (R, L); (R,) whether two of a row tie.

    The words are overwritten.
    """
    low_bits = _position_bits(words.shape[1])
    if num_bits <= low_bits:
        words &= ~_mask(words, low_bits)
    else:  # below the whole word, whose low bits decide nothing there either
        words = np.left_shift(words, np.uint64(num_bits), dtype=np.uint64)
        low_bits += num_bits
    words |= _joined(values)
    words.sort(axis=1)
    tied: npt.NDArray[np.bool_] = _least_differences(words) <= _mask(words, low_bits)
    if num_bits < 8 * values.itemsize * values.shape[1]:  # else it is cut off when they part
        words &= _mask(words, num_bits)
    _part(words, ordered)
    return tied


def _joined(values: Rows) -> Words:
    """(R, C, L) -> (R, L), the C values at a position as one, the first in the low bits."""
    *others, last = values.swapaxes(0, 1)
    joined: Words = last.astype(np.uint32) if others else last
    for channel in reversed(others):
        joined <<= np.uint32(8)
        joined |= channel
    return joined


def _part(joined: Words, values: Rows) -> None:
    """(R, L) into (R, C, L), the inverse of `_joined`; what is joined is overwritten."""
    *others, last = values.swapaxes(0, 1)
    for channel in others:
        channel[...] = joined  # the low bits
        joined >>= joined.dtype.type(8)
    last[...] = joined


def _least_differences(words: Words) -> Words:
    """(R, L) -> (R,), the least exclusive or of two neighbours in a row; all bits if L is 1.

    One pass over all words, then the pairs that lie in two rows are put out of the way: row by row
    it takes twice as long.
    """
    differences = np.empty_like(words)
    flat = words.reshape(-1)
    np.bitwise_xor(flat[1:], flat[:-1], out=differences.reshape(-1)[:-1])
    differences[:, -1] = ~words.dtype.type(0)
    least: Words = differences.min(axis=1)
    return least


def _word(length: int) -> np.dtype[Any]:
    """The type of the words that sort rows of this length."""
    return np.dtype("<u4" if length <= _MAX_LENGTH_OF_32_BITS else "<u8")


def _position_bits(length: int) -> int:
    """Bits of a position in a row, k."""
    return (length - 1).bit_length()


def _mask(words: Words, num_bits: int) -> Any:
    """A word of the same type whose low bits are set, and no other."""
    return words.dtype.type((1 << num_bits) - 1)
