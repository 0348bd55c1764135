"""Statistics: what counts, parities and sums of a ciphertext's blocks tell of an image.

Adversary: whoever holds ciphertexts, knows the cipher and has public images; no key of the targets.
Method: of every block a few numbers are taken that no canonical form is read from: how many values
are bright (above mid-grey), in all, by channel and by half; whether that number is even; how far it
is from half of the values, and whether it is exactly half; sums of halves; the first value. The
colour of each block is regressed (ridge) on these numbers of it and its neighbours, in each row of
blocks apart, over public images encrypted with keys of the adversary's own; what the numbers tell
stands beside the place of the block, which tells what streets look like there.
Wins where a cipher changes values in a way that leaves their number, parity or sum: an inversion of
exactly half of the values (version 1 of `negative-positive`) leaves exactly half of them bright
where a block lies on one side of mid-grey, and so shows which blocks do. Wins on ciphers that move
values alone, where counts survive openly, less than the thumbnail.
Must be at chance under a cipher that inverts each value or not by a bit of its own: then the number
of bright values is binomial, whatever the image.
"""

import numpy as np

from fl_ppseg.audit.attacks.reader import Encrypt, Planes
from fl_ppseg.audit.attacks.thumbnail import block_colours, enlarged
from fl_ppseg.data.blocks import to_blocks
from fl_ppseg.setr.ridge import Matrix, ridge, with_one


def statistics(public: Planes, ciphertexts: Planes, encrypt: Encrypt, *, block_size: int) -> Planes:
    """(m, 3, H, W) uint8 ciphertexts -> (m, 3, H, W) uint8, a colour a block, bicubic between.

    Args:
        public: (n, 3, H, W) uint8, images of the adversary's own.
        ciphertexts: Of the targets.
        encrypt: The scheme with keys of the adversary's own, drawn anew for each image.
        block_size: Side M of a block in pixels.
    """
    wanted = block_colours(public, block_size)
    own, seen = (block_statistics(planes, block_size) for planes in (encrypt(public), ciphertexts))
    mean, scale = own.mean(axis=(0, 1, 2)), own.std(axis=(0, 1, 2))
    scale[scale == 0] = 1  # what is the same in all public blocks tells nothing
    own, seen = (_with_neighbours((numbers - mean) / scale) for numbers in (own, seen))
    colours = np.empty((*seen.shape[:3], 3))
    for row in range(wanted.shape[1]):
        fitted = ridge([(_of_row(own, row), wanted[:, row].reshape(-1, 3))])
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
    """(n, h, w, F) -> (n, h, w, 9 F), those of the eight neighbours beside each; 0 outside."""
    _, height, width, _ = numbers.shape
    padded = np.pad(numbers, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = [
        padded[:, down : down + height, right : right + width]
        for down in range(3)
        for right in range(3)
    ]
    return np.concatenate(moved, axis=-1)


def _of_row(numbers: Matrix, row: int) -> Matrix:
    """(n, h, w, F) -> (n w, F + w): of one row of blocks, with the column of each."""
    number, _, width, _ = numbers.shape
    columns = np.tile(np.eye(width), (number, 1))
    return np.hstack([numbers[:, row].reshape(number * width, -1), columns])
