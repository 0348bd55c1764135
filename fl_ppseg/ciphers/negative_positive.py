"""`negative-positive`: v -> 255 - v at half of the positions of a block, a key chooses which.

With x = (2v - 255)/255 it is an exact change of sign. Source: NP of Ito, MaungMaung and Kiya,
arXiv 2107.09362, 2021.
"""

from typing import NamedTuple

from fl_ppseg.blocks import Array, Geometry
from fl_ppseg.ciphers.arrays import invert_where
from fl_ppseg.ciphers.cipher import Effect, Scope, num_draws, stream_of
from fl_ppseg.ciphers.permutations import Masks, draw_subsets
from fl_ppseg.keys import SubKey


class NegativePositiveParameters(NamedTuple):
    """Which values are inverted: x'[l] = x[l] XOR mask[l], for 255 - v is v XOR 255."""

    mask: Masks
    """(1, L) for scope `common`, (N, L) for `per-block`; 255 where inverted, else 0."""


class NegativePositive:
    """Inversion of half of the values: their places and |2v - 255| survive."""

    effects = Effect.INVERTS_VALUES

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> NegativePositiveParameters:
        """Draw floor(L/2) positions, or as many a block, as `permutations` specifies.

        The streams are labelled `negative-positive/<scope>/length=<L>/step=<step>/attempt=<a>`.

        Raises:
            InputError: unknown scope.
        """
        num_rows, length = num_draws(geometry, scope), geometry.block_length
        stream = stream_of("negative-positive", subkey, geometry, scope, step)
        return NegativePositiveParameters(draw_subsets(stream, num_rows, length, length // 2))

    def apply(self, blocks: Array, parameters: NegativePositiveParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, 255 - v where the mask says so."""
        return invert_where(blocks, parameters.mask)

    def invert(self, blocks: Array, parameters: NegativePositiveParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, as `apply`: twice inverted is as it was."""
        return self.apply(blocks, parameters)
