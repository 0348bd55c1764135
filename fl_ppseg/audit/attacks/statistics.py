"""Statistics: colours of an image, predicted from counts, parities and sums of ciphertext blocks.

Adversary: holds ciphertexts, knows the cipher and has public images; no key of the targets.
Method: of every block a few numbers are computed that no canonical form contains: how many values
are bright (above mid-grey), in all, per channel and per half; whether that number is even; how far
it is from half of the values, and whether it is exactly half; sums of halves; the first value. The
colour of each block is regressed (ridge) on these numbers of it and its neighbours and on its
column, separately for each row of blocks, over public images encrypted with the adversary's own
keys.
Must succeed if a cipher keeps the number, parity or sum of values: an inversion of exactly half of
the values (version 1 of `negative-positive`) leaves exactly half of them bright if all of the block
lies on one side of mid-grey, and so reveals which blocks do. Succeeds on ciphers that only permute
values, where counts survive, with a lower score than the thumbnail.
Must be at chance under a cipher that inverts each value by its own bit: then the number of bright
values is binomial, whatever the image.
"""

import numpy as np

from fl_ppseg.audit.attacks.reader import Encrypt, Planes
from fl_ppseg.audit.attacks.thumbnail import block_colours, enlarged
from fl_ppseg.data.blocks import to_blocks
from fl_ppseg.setr.ridge import Matrix, ridge, with_one


def statistics(public: Planes, ciphertexts: Planes, encrypt: Encrypt, *, block_size: int) -> Planes:
    """(m, 3, H, W) uint8 ciphertexts -> (m, 3, H, W) uint8, one colour per block, bicubic.

    Args:
        public: (n, 3, H, W) uint8, public images.
        ciphertexts: Of the targets.
        encrypt: The cipher with the adversary's own keys, drawn anew for each image.
        block_size: Side M of a block in pixels.
    """
    public_colours = block_colours(public, block_size)
    own, seen = (block_statistics(planes, block_size) for planes in (encrypt(public), ciphertexts))
    mean, scale = own.mean(axis=(0, 1, 2)), own.std(axis=(0, 1, 2))
    scale[scale == 0] = 1  # a constant of all public blocks predicts nothing
    own, seen = (_with_neighbours((numbers - mean) / scale) for numbers in (own, seen))
    colours = np.empty((*seen.shape[:3], 3))
    for row in range(public_colours.shape[1]):
        fitted = ridge([(_of_row(own, row), public_colours[:, row].reshape(-1, 3))])
        colours[:, row] = (with_one(_of_row(seen, row)) @ fitted).reshape(colours[:, row].shape)
    return enlarged(colours, block_size)


def block_statistics(images: Planes, block_size: int) -> Matrix:
    """(n, 3, H, W) uint8 -> (n, H / M, W / M, F), the numbers of each block."""
    height, width = (side // block_size for side in images.shape[2:])
    blocks = to_blocks(images, block_size)  # n N L
    bright = blocks > 127
    length = blocks.shape[-1]
    count = bright.sum(axis=-1)
    halves = np.array_split(np.arange(length), 2)
    channels = bright.reshape(*bright.shape[:2], 3, -1).sum(axis=-1)
    numbers = [
        count,
        count % 2,
        abs(2 * count - length),
        abs(2 * count - length) <= 1,
        *(channels[..., c] for c in range(3)),
        *(bright[..., half].sum(axis=-1) % 2 for half in halves),
        *(blocks[..., half].sum(axis=-1, dtype=np.int64) for half in halves),
        blocks[..., 0],
    ]
    found: Matrix = np.stack(numbers, axis=-1).astype(np.float64)
    return found.reshape(len(images), height, width, -1)


def _with_neighbours(numbers: Matrix) -> Matrix:
    """(n, h, w, F) -> (n, h, w, 9 F), each block's and those of its eight neighbours; 0 outside."""
    _, height, width, _ = numbers.shape
    padded = np.pad(numbers, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = [
        padded[:, down : down + height, right : right + width]
        for down in range(3)
        for right in range(3)
    ]
    return np.concatenate(moved, axis=-1)


def _of_row(numbers: Matrix, row: int) -> Matrix:
    """(n, h, w, F) -> (n w, F + w), one row of blocks with the column of each one-hot."""
    number, _, width, _ = numbers.shape
    columns = np.tile(np.eye(width), (number, 1))
    return np.hstack([numbers[:, row].reshape(number * width, -1), columns])
