"""Version 1 of `negative-positive`, which exists in tests alone: it must be found out."""

from fl_ppseg.crypto.ciphers.cipher import Scope, num_draws, stream_of
from fl_ppseg.crypto.ciphers.negative_positive import NegativePositive, NegativePositiveParameters
from fl_ppseg.crypto.ciphers.permutations import draw_subsets
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry

NAME = "half-inversion"
"""What tests register it as."""


class HalfInversion(NegativePositive):
    """Inversion of exactly half of the values of a block, a key chooses which."""

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> NegativePositiveParameters:
        num_rows, length = num_draws(geometry, scope), geometry.block_length
        stream = stream_of("negative-positive", subkey, geometry, scope, step)
        return NegativePositiveParameters(draw_subsets(stream, num_rows, length, length // 2))
