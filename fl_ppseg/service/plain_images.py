"""A guard against mistakes: is this a plain image, sent where a ciphertext was meant?

It protects nobody from an attacker. A plain image that is refused has arrived all the same.

Of neighbouring pixels of an image one knows what the other is about; a cipher that moves or changes
the pixels of a block takes that away. Geary's C (The Contiguity Ratio and Statistical Mapping, The
Incorporated Statistician 5, 1954) of a block is the mean squared difference of neighbours over that
of any two of its pixels: 1 on average under every order of pixels, however they are valued, so of a
block that was shuffled; far less in an image. `etc` leaves whole sub-blocks: there, differences
across the seams of sub-blocks are compared with those inside. `docs/service.md` has what was
measured; `benchmarks/plain_images.py` measures it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.system.arrays import Pixels

CONTIGUITY: Final = 0.75
"""Median of Geary's C over blocks, below which they are an image's."""
CONTIGUITY_OF_KEPT: Final = 0.5
"""The same where the cipher leaves most values in their place: `restricted-shuffle` alone."""
SEAM: Final = 0.6
"""Median share of the seams in the differences of neighbours, below which there are none."""
MIN_BLOCKS: Final = 8
"""Blocks that are not of one colour, without which nothing is decided."""
MIN_SIDE: Final = 4
"""Of a block, in pixels; in smaller ones too few pixels have neighbours."""
LOOKED_AT: Final = 4096
"""Blocks, evenly spread, that are looked at."""


def looks_plain(query: Pixels, spec: QuerySpec) -> bool:
    """Whether a (3, H, W) uint8 query is rather an image than a ciphertext of the model's cipher.

    Never where the model takes plain images, and where nothing can be decided: of blocks of less
    than `MIN_SIDE` pixels, or fewer than `MIN_BLOCKS` that are not of one colour.
    """
    if spec.cipher is None or spec.block_size < MIN_SIDE:
        return False
    blocks = _blocks(query, spec.block_size)
    if spec.cipher == "etc":
        found, most = seams(blocks), SEAM
    else:
        is_kept = spec.cipher == "restricted-shuffle"
        found, most = contiguity(blocks), CONTIGUITY_OF_KEPT if is_kept else CONTIGUITY
    return len(found) >= MIN_BLOCKS and float(np.median(found)) < most


def contiguity(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3, M, M) -> Geary's C of each block that is not of one colour, all channels together."""
    side = blocks.shape[-1]
    near = _squares(blocks, -1).sum((1, 2, 3)) + _squares(blocks, -2).sum((1, 2, 3))
    any_two = 2 * blocks.var((-2, -1), ddof=1).sum(1)
    some = any_two > 0
    found: NDArray[np.float32] = near[some] / (2 * side * (side - 1)) / any_two[some]
    return found


def seams(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3, M, M) -> of each block: s / (s + i), 1/2 where its sub-blocks fit each other.

    s and i are mean squared differences of neighbours, across the seams of the four sub-blocks and
    inside of these.
    """
    side = blocks.shape[-1]
    seam, inside = np.zeros(len(blocks), np.float32), np.zeros(len(blocks), np.float32)
    for axis in (-1, -2):
        by_place = np.moveaxis(_squares(blocks, axis), axis, -1).sum((1, 2))
        own = by_place[:, side // 2 - 1]
        seam += own
        inside += (by_place.sum(1) - own) / (side - 2)
    some = seam + inside > 0
    found: NDArray[np.float32] = seam[some] / (seam + inside)[some]
    return found


def _squares(blocks: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.square(np.diff(blocks, axis=axis))
    return found


def _blocks(query: Pixels, side: int) -> NDArray[np.float32]:
    """(3, H, W) uint8 -> (N, 3, M, M), at most `LOOKED_AT` of them, evenly spread."""
    _, height, width = query.shape
    rows, columns = height // side, width // side
    # C (r y) (c x) -> (r c) C y x
    grid = query.reshape(3, rows, side, columns, side).transpose(1, 3, 0, 2, 4)
    number = rows * columns
    chosen = np.linspace(0, number - 1, min(number, LOOKED_AT)).astype(np.intp)
    found: NDArray[np.float32] = grid[chosen // columns, chosen % columns].astype(np.float32)
    return found
