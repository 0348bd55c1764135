"""`negative-positive`: v -> 255 - v wherever an independent unbiased bit of the key says so.

With x = (2v - 255)/255 it is an exact change of sign. Source: NP of Ito, MaungMaung and Kiya,
arXiv 2107.09362, 2021, who invert exactly half of the values. That was version 1 here, and it told
of the image: an inversion of exactly n values changes the number of bright values (v > 127) of a
block by an even or odd number, as n is, so that its parity was the image's; and of a block that
lies on one side of mid-grey always exactly half came out bright. This is version 2.
"""

from typing import NamedTuple

import numpy as np

from fl_ppseg.crypto.ciphers.arrays import invert_where
from fl_ppseg.crypto.ciphers.cipher import Cipher, Effect, Scope, num_draws, stream_of
from fl_ppseg.crypto.ciphers.permutations import Masks
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry


class NegativePositiveParameters(NamedTuple):
    """Which values are inverted: x'[l] = x[l] XOR mask[l], for 255 - v is v XOR 255."""

    mask: Masks
    """(1, L) for scope `common`, (N, L) for `per-block`; 255 where inverted, else 0."""


class NegativePositive(Cipher[NegativePositiveParameters]):
    """Inversion of each value or not, evenly: places and |2v - 255| survive, and nothing else."""

    effects = Effect.INVERTS_VALUES
    form: str | None = "placed-magnitudes"

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> NegativePositiveParameters:
        """Draw a bit a value, of one block or of each by ascending index.

        A row takes the next ceil(L/8) bytes of the stream labelled
        `negative-positive/v2/<scope>/length=<L>/step=<step>/attempt=0`. Value l of the block is
        inverted where bit l mod 8 of byte floor(l/8) is 1; bit 0 is the least significant. Bits
        beyond L are left over.

        Raises:
            InputError: unknown scope.
        """
        num_rows, length = num_draws(geometry, scope), geometry.block_length
        stream = stream_of("negative-positive/v2", subkey, geometry, scope, step)
        num_bytes = -(-length // 8)
        drawn = np.frombuffer(stream(0, num_rows * num_bytes), np.uint8)
        bits = np.unpackbits(drawn.reshape(num_rows, num_bytes), 1, length, bitorder="little")
        return NegativePositiveParameters(bits * np.uint8(255))

    def apply(self, blocks: Array, parameters: NegativePositiveParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, 255 - v where the mask says so."""
        return invert_where(blocks, parameters.mask)

    def invert(self, blocks: Array, parameters: NegativePositiveParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, as `apply`: twice inverted is as it was."""
        return self.apply(blocks, parameters)
