"""An adversary's estimate of a key, and how to decrypt with it.

It has the form of the cipher itself: x'[l] = sign[l] x[index[l]] with x = (2v - 255)/255. If the
cipher substitutes values, a codebook takes the place of the sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks

Images = npt.NDArray[np.uint8]
"""(n, 3, H, W) uint8."""
Moves = Literal["nothing", "pixels", "values"]

IDENTITY: Final = np.arange(256, dtype=np.uint8)
INVERSION: Final = (255 - IDENTITY).astype(np.uint8)


@dataclass(frozen=True)
class Algorithm:
    """What a cipher may do to a block under some key; public."""

    moves: Moves = "values"
    """What is permuted: pixels with their three values, or single values."""
    inverts: bool = False
    """Whether values are inverted, v -> 255 - v, at places that the key chooses."""
    substitutes: bool = False
    """Whether values are substituted at such places, by a codebook that the key chooses."""


@dataclass(frozen=True, eq=False, repr=False)  # it may be a key: printing it shows nothing
class Undoing:
    """An estimate of a key: R = 1 row for all blocks, or R = N, one row per block."""

    index: npt.NDArray[np.intp]
    """(R, L) source of each value of an encrypted block; each row a permutation."""
    which: npt.NDArray[np.intp]
    """(R, L) the row of `maps` that decrypts each value."""
    maps: npt.NDArray[np.uint8]
    """(R, K, 256) encrypted -> plain value; 0 is the identity, 1 is 255 - v, others codebooks."""

    @classmethod
    def signed(cls, index: npt.NDArray[np.intp], sign: npt.NDArray[np.int8]) -> "Undoing":
        """From an order and signs, both (L,) or (R, L), without substitution."""
        index, sign = np.atleast_2d(index), np.atleast_2d(sign)
        return cls(index, (sign < 0).astype(np.intp), plain_maps(len(index)))

    @property
    def sign(self) -> npt.NDArray[np.int8]:
        """(R, L) 1, or -1 where the value is inverted, or 0 where a codebook substitutes it."""
        signs: npt.NDArray[np.int8] = np.array([1, -1, 0], np.int8)[np.minimum(self.which, 2)]
        return signs

    def reconstruct(self, images: Images, block_size: int) -> Images:
        """(n, 3, H, W) encrypted -> (n, 3, H, W) decrypted, exact if the estimate is."""
        geometry = Geometry.of_image(images.shape[1:], block_size)
        encrypted = to_blocks(images, block_size)
        rows = np.arange(len(self.index))[:, None]
        values = self.maps[rows, self.which, encrypted]
        blocks = np.empty_like(values)
        places = np.broadcast_to(self.index, values.shape)
        np.put_along_axis(blocks, places, values, axis=-1)
        return from_blocks(blocks, geometry)


@dataclass(frozen=True, eq=False)
class KeyGuess:
    """What an attack on a key returns."""

    reconstructed: Images
    """(n, 3, H, W) the decrypted images."""
    undoing: Undoing
    """The estimate of the key."""
    confidence: float
    """Confidence of the estimate, 0 to 1; each attack defines its own."""


def plain_maps(num_rows: int) -> npt.NDArray[np.uint8]:
    """Return (num_rows, 2, 256): identity and inversion."""
    return np.tile(np.stack([IDENTITY, INVERSION]), (num_rows, 1, 1))


def stacked(maps: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """(K_r, 256) of each row r -> (R, K, 256); rows with fewer maps are padded."""
    num_maps = max(map(len, maps))
    return np.stack([np.resize(table, (num_maps, 256)) for table in maps])


def values_of_pixels(pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """(..., M²) order of pixels -> (..., L) order of values, the same in each channel."""
    starts = np.arange(3)[:, None] * pixels.shape[-1]
    values: npt.NDArray[np.intp] = pixels[..., None, :] + starts
    return values.reshape(*pixels.shape[:-1], -1)


def best_match(gain: npt.NDArray[np.floating], moves: Moves) -> npt.NDArray[np.intp]:
    """(L, L) gain of putting value i at place l -> (L,), the order of highest total gain.

    Source: the Hungarian method, as in scipy.
    """
    if moves == "nothing":
        return np.arange(len(gain))
    if moves == "pixels":
        by_channel = gain.reshape(3, len(gain) // 3, 3, -1)
        pixels = np.einsum("ciaj,ca->ij", by_channel, np.eye(3))
        return values_of_pixels(linear_sum_assignment(pixels, maximize=True)[1])
    order: npt.NDArray[np.intp] = linear_sum_assignment(gain, maximize=True)[1]
    return order


def completed(index: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """(L,) sources, -1 where unknown -> (L,), a permutation that keeps the first of each source."""
    taken, places = np.unique(index, return_index=True)
    places = places[taken >= 0]
    full = np.full_like(index, -1)
    full[places] = index[places]
    full[full < 0] = np.setdiff1d(np.arange(len(index)), full)
    return full
