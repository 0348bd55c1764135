"""`shuffle`: all values of a block, pixels and channels together, change places.

Source: Kiya et al., Journal of Imaging 8(9) 233, 2022; Sueyoshi et al., arXiv 2507.12730, 2025.
"""

from typing import NamedTuple, Protocol

from fl_ppseg.crypto.ciphers.arrays import gather, scatter
from fl_ppseg.crypto.ciphers.cipher import Cipher, Effect, Scope, num_draws, stream_of
from fl_ppseg.crypto.ciphers.permutations import (
    Permutations,
    draw_permutations,
    in_random_order,
)
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry


class ShuffleParameters(NamedTuple):
    """Where each value of an encrypted block comes from: x'[l] = x[permutation[l]]."""

    permutation: Permutations
    """(1, L) for scope `common`, (N, L) for `per-block`; each row a permutation of 0..L-1."""


class Permuting(Cipher[ShuffleParameters], Protocol):
    """A cipher whose parameters are permutations of the values of a block."""

    def apply(self, blocks: Array, parameters: ShuffleParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, x'[b, l] = x[b, permutation[b, l]]."""
        return gather(blocks, parameters.permutation)

    def invert(self, blocks: Array, parameters: ShuffleParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, x[b, permutation[b, l]] = x'[b, l]."""
        return scatter(blocks, parameters.permutation)


class Shuffle(Permuting):
    """The in-block shuffle; with scope `per-block` only the values of each block survive."""

    effects = Effect.MOVES_VALUES
    form: str | None = "values"

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> ShuffleParameters:
        """Draw one permutation, or one a block by ascending index, as `permutations` specifies.

        Attempt a reads the stream labelled `shuffle/<scope>/length=<L>/step=<step>/attempt=<a>`.

        Raises:
            InputError: unknown scope.
        """
        num_rows = num_draws(geometry, scope)
        stream = stream_of("shuffle", subkey, geometry, scope, step)
        return ShuffleParameters(draw_permutations(stream, num_rows, geometry.block_length))

    def encrypt(
        self, blocks: Array, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> Array:
        """(N, L) uint8 -> (N, L) uint8, as `apply`; per block by the sort that would draw."""
        if scope != "per-block":
            return super().encrypt(blocks, subkey, geometry, scope, step)
        stream = stream_of("shuffle", subkey, geometry, scope, step)
        return in_random_order(stream, blocks[:, None])[:, 0]
