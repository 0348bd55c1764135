"""`ffx`: half of the values of a block pass a format-preserving Feistel network over 0..255.

Source: FFX of Ito, MaungMaung and Kiya, arXiv 2107.09362, 2021, after Bellare, Rogaway and Spies,
The FFX mode of operation for format-preserving encryption, 2010. A reconstruction: the round
functions here are tables from the random stream, not a block cipher under a password.

A value a * 16 + b of two 4-bit halves goes through (a, b) -> (b, a XOR F_i(b)), i = 0, 1, ... 35.
36 rounds are what FFX-A2 prescribes for 8 bits: the shorter the halves, the more rounds it takes to
come close to a random permutation. Each F_i is a table of 16 random halves, so the whole network is
a codebook of 256 values, the same for all chosen positions of a block.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from fl_ppseg.crypto.ciphers.arrays import gather, scatter
from fl_ppseg.crypto.ciphers.cipher import Cipher, Effect, Scope, num_draws, stream_of
from fl_ppseg.crypto.ciphers.permutations import Masks, draw_subsets
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry
from fl_ppseg.system.arrays import Pixels

NUM_ROUNDS: Final = 36

_HALF_BITS: Final = np.uint8(4)
_LOW_HALF: Final = np.uint8(15)


class FFXParameters(NamedTuple):
    """Which values are substituted, and by what: x'[l] = codebook[x[l]] where the mask is 255."""

    mask: Masks
    """(1, L) for scope `common`, (N, L) for `per-block`; 255 where substituted, else 0."""
    codebook: Pixels
    """(1, 256) or (N, 256); each row a permutation of 0..255."""
    inverse: Pixels
    """The same size; inverse[codebook[v]] = v in each row."""


class FFX(Cipher[FFXParameters]):
    """Substitution of half of the values: which are equal survives of these, the others wholly."""

    effects = Effect.SUBSTITUTES_VALUES
    form: str | None = None

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> FFXParameters:
        """Draw floor(L/2) positions and 36 round tables, or as many a block by ascending index.

        The positions come as `permutations` specifies from the streams labelled
        `ffx/positions/<scope>/length=<L>/step=<step>/attempt=<a>`; F_i(b) of a row is the low half
        of byte 16 i + b of its 576 bytes of the stream `ffx/rounds/<scope>/.../attempt=0`.

        Raises:
            InputError: unknown scope.
        """
        num_rows, length = num_draws(geometry, scope), geometry.block_length
        positions = stream_of("ffx/positions", subkey, geometry, scope, step)
        rounds = stream_of("ffx/rounds", subkey, geometry, scope, step)
        tables = np.frombuffer(rounds(0, num_rows * NUM_ROUNDS * 16), np.uint8) & _LOW_HALF
        codebook = feistel_codebook(tables.reshape(num_rows, NUM_ROUNDS, 16))
        return FFXParameters(
            mask=draw_subsets(positions, num_rows, length, length // 2),
            codebook=codebook,
            inverse=scatter(_all_values(num_rows), codebook),
        )

    def apply(self, blocks: Array, parameters: FFXParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, codebook[v] where the mask says so."""
        return _substitute(blocks, parameters.codebook, parameters.mask)

    def invert(self, blocks: Array, parameters: FFXParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, the v of codebook[v] where the mask says so."""
        return _substitute(blocks, parameters.inverse, parameters.mask)


def feistel_codebook(tables: Pixels) -> Pixels:
    """(R, rounds, 16) round functions, entries 0..15 -> (R, 256) what each value becomes."""
    num_rows, num_rounds, _ = tables.shape
    values = _all_values(num_rows)
    left, right = values >> _HALF_BITS, values & _LOW_HALF
    for i in range(num_rounds):
        left, right = right, left ^ gather(tables[:, i], right)
    return left << _HALF_BITS | right


def _all_values(num_rows: int) -> Pixels:
    """Return (num_rows, 256), each row 0..255."""
    return np.tile(np.arange(256, dtype=np.uint8), (num_rows, 1))


def _substitute(blocks: Array, codebook: Any, mask: Any) -> Array:
    """(..., N, L) -> (..., N, L), codebook[v] where the mask is 255, v where it is 0."""
    substituted: Array = gather(codebook, blocks)
    difference: Array = (blocks ^ substituted) & mask
    return blocks ^ difference
