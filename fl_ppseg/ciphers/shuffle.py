"""`shuffle`: all values of a block, pixels and channels together, change places.

Source: Kiya et al., Journal of Imaging 8(9) 233, 2022; Sueyoshi et al., arXiv 2507.12730, 2025.
"""

from typing import NamedTuple

import numpy as np

from fl_ppseg.ciphers.blocks import Geometry, Pixels
from fl_ppseg.ciphers.cipher import Scope, num_draws, stream_label
from fl_ppseg.ciphers.permutations import Permutations, draw_permutations
from fl_ppseg.keys import SubKey


class ShuffleParameters(NamedTuple):
    """Where each value of an encrypted block comes from: x'[l] = x[permutation[l]]."""

    permutation: Permutations
    """(1, L) for scope `common`, (N, L) for `per-block`; each row a permutation of 0..L-1."""


class Shuffle:
    """The in-block shuffle; with scope `per-block` only the values of each block survive."""

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> ShuffleParameters:
        """Draw one permutation, or one a block by ascending index, as `permutations` specifies.

        Attempt a reads the stream labelled `shuffle/<scope>/length=<L>/step=<step>/attempt=<a>`.

        Raises:
            InputError: unknown scope.
        """

        def stream(attempt: int, num_bytes: int) -> bytearray:
            return subkey.stream(stream_label("shuffle", scope, geometry, step, attempt), num_bytes)

        num_rows = num_draws(geometry, scope)
        return ShuffleParameters(draw_permutations(stream, num_rows, geometry.block_length))

    def apply(self, blocks: Pixels, parameters: ShuffleParameters) -> Pixels:
        """(N, L) uint8 -> (N, L) uint8, x'[b, l] = x[b, permutation[b, l]]."""
        return blocks[_row_index(blocks), parameters.permutation]

    def invert(self, blocks: Pixels, parameters: ShuffleParameters) -> Pixels:
        """(N, L) uint8 -> (N, L) uint8, x[b, permutation[b, l]] = x'[b, l]."""
        plain = np.empty_like(blocks)
        plain[_row_index(blocks), parameters.permutation] = blocks
        return plain


def _row_index(blocks: Pixels) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """(N, L) -> (N, 1), the index of each block."""
    return np.arange(len(blocks), dtype=np.intp)[:, None]
