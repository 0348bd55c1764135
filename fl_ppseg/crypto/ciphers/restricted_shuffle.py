"""`restricted-shuffle`: of the values of a block only some change places, a key chooses which.

Source: Horio et al., 2024, and Aso et al., 2024, where 500 or 576 of 768 values stay; here a
reconstruction from that description.
"""

from fractions import Fraction
from typing import Final

import numpy as np

from fl_ppseg.crypto.ciphers.cipher import Effect, Scope, num_draws, stream_of
from fl_ppseg.crypto.ciphers.permutations import draw_permutations
from fl_ppseg.crypto.ciphers.shuffle import Permuting, ShuffleParameters
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.system.errors import InputError

DEFAULT_FIXED: Final = Fraction(2, 3)  # 512 of 768; the literature has 0.65 and 0.75


class RestrictedShuffle(Permuting):
    """The in-block shuffle of a part of the values; the others survive in place.

    Args:
        fixed: Share of the values that stay, N_fix = floor(fixed * L).

    Raises:
        InputError: `fixed` is not in 0..1.
    """

    effects = Effect.MOVES_VALUES
    form: str | None = None

    def __init__(self, fixed: Fraction = DEFAULT_FIXED) -> None:
        if not 0 <= fixed <= 1:
            raise InputError(
                f"expected a share of fixed values from 0 to 1, got {fixed}; give e.g. 2/3"
            )
        self.fixed = fixed

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> ShuffleParameters:
        """Draw permutations that leave N_fix positions of each row where they are.

        Of a permutation of 0..L-1, drawn as `permutations` specifies, the first L - N_fix entries
        are the positions that move: in ascending order they take the values of the positions in
        the order drawn. The streams are labelled
        `restricted-shuffle/fixed=<N_fix>/<scope>/length=<L>/step=<step>/attempt=<a>`.

        Raises:
            InputError: unknown scope.
        """
        num_rows, length = num_draws(geometry, scope), geometry.block_length
        num_fixed = int(self.fixed * length)
        label = f"restricted-shuffle/fixed={num_fixed}"
        stream = stream_of(label, subkey, geometry, scope, step)
        sources = draw_permutations(stream, num_rows, length)[:, : length - num_fixed]
        permutation = np.tile(np.arange(length, dtype=sources.dtype), (num_rows, 1))
        np.put_along_axis(permutation, np.sort(sources), sources, axis=1)
        return ShuffleParameters(permutation)
