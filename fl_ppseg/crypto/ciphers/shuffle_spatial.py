"""`shuffle-spatial`: the pixels of a block change places, each with its RGB triple whole."""

import numpy as np

from fl_ppseg.crypto.ciphers.cipher import Effect, Scope, num_draws, stream_of
from fl_ppseg.crypto.ciphers.permutations import (
    draw_permutations,
    in_random_order,
    smallest_integer,
)
from fl_ppseg.crypto.ciphers.shuffle import Permuting, ShuffleParameters
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry


class ShuffleSpatial(Permuting):
    """The in-block shuffle of pixels; with scope `per-block` only each block's pixels survive."""

    effects = Effect.MOVES_PIXELS
    form: str | None = "pixels"

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> ShuffleParameters:
        """Draw permutations of the P = M² pixels, and do the same to each channel c.

        permutation[c P + p] = c P + q[p] with q drawn as `permutations` specifies from the streams
        labelled `shuffle-spatial/<scope>/length=<L>/step=<step>/attempt=<a>`.

        Raises:
            InputError: unknown scope.
        """
        num_rows, num_pixels = num_draws(geometry, scope), geometry.block_size**2
        stream = stream_of("shuffle-spatial", subkey, geometry, scope, step)
        pixels = draw_permutations(stream, num_rows, num_pixels)
        places = np.arange(geometry.block_length, dtype=smallest_integer(geometry.block_length))
        starts = places[::num_pixels, None]
        # R P -> R C P -> R L
        return ShuffleParameters((starts + pixels[:, None]).reshape(num_rows, -1))

    def encrypt(
        self, blocks: Array, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> Array:
        """(N, L) uint8 -> (N, L) uint8, as `apply`; per block by the sort that would draw."""
        if scope != "per-block":
            return super().encrypt(blocks, subkey, geometry, scope, step)
        stream = stream_of("shuffle-spatial", subkey, geometry, scope, step)
        pixels = blocks.reshape(len(blocks), geometry.channels, -1)  # N L -> N C P
        return in_random_order(stream, pixels).reshape(len(blocks), -1)
