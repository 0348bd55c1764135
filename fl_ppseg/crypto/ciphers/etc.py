"""`etc`: the four sub-blocks of a block are scrambled, turned, inverted and their colours permuted.

Source: the Encryption-then-Compression line (Kurihara et al. 2015; Chuman, Sirichotedumrong and
Kiya 2019), whose steps it takes inside each block of a ViT; a reconstruction.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fl_ppseg.crypto.ciphers.arrays import gather, invert_where, scatter
from fl_ppseg.crypto.ciphers.cipher import Cipher, Effect, Scope, num_draws, stream_of
from fl_ppseg.crypto.ciphers.forms import SUB_BLOCKS
from fl_ppseg.crypto.ciphers.permutations import (
    Masks,
    Permutations,
    draw_permutations,
    smallest_integer,
)
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

_INVERTED: Final = np.array([0, 255], np.uint8)


class EtcParameters(NamedTuple):
    """What happens to each value of a block: x'[l] = x[permutation[l]] XOR mask[l]."""

    permutation: Permutations
    """(1, L) for scope `common`, (N, L) for `per-block`; each row a permutation of 0..L-1."""
    mask: Masks
    """(1, L) or (N, L); 255 where inverted, else 0."""


class Etc(Cipher[EtcParameters]):
    """Encryption-then-Compression inside the block, on sub-blocks of half its side.

    Each sub-block survives up to its turn, its order of colours and whether it is inverted: not
    where a value lies, but which values lie beside each other, are of one pixel or of one channel.
    """

    effects = Effect.MOVES_PIXELS | Effect.PERMUTES_CHANNELS | Effect.INVERTS_VALUES
    form: str | None = SUB_BLOCKS

    def draw(
        self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> EtcParameters:
        """Draw what each sub-block k = 2 row + column of an encrypted block is made of.

        With S = M/2, value (c, y, x) of sub-block k is value (colours[k][c], v, u) of sub-block
        scramble[k], where (v, u) = (y, x); swapped if turns[k] has bit 2; then v -> S - 1 - v if it
        has bit 1, u -> S - 1 - u if bit 0. If it has bit 3, the value is inverted. The streams:

            etc/scramble/<scope>/length=<L>/step=<step>/attempt=<a>   permutations of 4, one a block
            etc/colours/...                     permutations of the channels, one a sub-block
            etc/turns/.../attempt=0             a byte a sub-block, its low 4 bits

        Raises:
            InputError: unknown scope, or a block with an odd side.
        """
        size, num_rows = geometry.block_size, num_draws(geometry, scope)
        if size % 2:
            raise InputError(
                f"cipher etc needs blocks with an even side, got {size}x{size} pixels (it "
                f"splits them "
                "into four); choose another cipher or patch size"
            )
        scramble, colours, turns = (
            stream_of(f"etc/{part}", subkey, geometry, scope, step)
            for part in ("scramble", "colours", "turns")
        )
        bits = np.frombuffer(turns(0, num_rows * 4), np.uint8).reshape(num_rows, 4)
        return EtcParameters(
            _permutation(
                draw_permutations(scramble, num_rows, 4),
                draw_permutations(colours, num_rows * 4, geometry.channels),
                bits & np.uint8(7),
                geometry,
            ),
            _spread(_INVERTED[bits >> 3 & 1][:, :, None, None, None], geometry),
        )

    def apply(self, blocks: Array, parameters: EtcParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, moved, then inverted where the mask says so."""
        return invert_where(gather(blocks, parameters.permutation), parameters.mask)

    def invert(self, blocks: Array, parameters: EtcParameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, inverted again, then moved back."""
        return scatter(invert_where(blocks, parameters.mask), parameters.permutation)


def _permutation(
    scramble: Permutations, colours: Permutations, turns: Pixels, geometry: Geometry
) -> Permutations:
    """(R, 4), (4 R, C), (R, 4) -> (R, L), the place in the block that each value comes from.

    A place is a sum of three: where its channel starts, its sub-block, and the way inside that.
    """
    size, half = geometry.block_size, geometry.block_size // 2
    places = np.arange(geometry.block_length, dtype=smallest_integer(geometry.block_length))
    places = places.reshape(-1, size, size)  # C M M
    starts = places[:, 0, 0][colours].reshape(-1, 4, geometry.channels, 1, 1)
    corners = places[0, ::half, ::half].reshape(4)[scramble].reshape(-1, 4, 1, 1, 1)
    inside = np.stack([_turned(places[0, :half, :half], turn) for turn in range(8)])
    return _spread(starts + corners + inside[turns][:, :, None], geometry)


def _turned(square: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """(S, S) -> (S, S), one of the 8 flips and rotations."""
    flipped = square[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]
    return flipped.T if turn & 4 else flipped


def _spread(parts: npt.NDArray[Any], geometry: Geometry) -> npt.NDArray[Any]:
    """Anything that broadcasts to (R, 4, C, S, S), by sub-blocks -> (R, L), in order (C, y, x)."""
    half, channels = geometry.block_size // 2, geometry.channels
    num_rows = len(parts)
    whole = np.broadcast_to(parts, (num_rows, 4, channels, half, half))
    # R (ky kx) C y x -> R C ky y kx x -> R L
    grid = whole.reshape(num_rows, 2, 2, channels, half, half).transpose(0, 3, 1, 4, 2, 5)
    return grid.reshape(num_rows, geometry.block_length)
