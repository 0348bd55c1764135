"""Thumbnail: a picture with one colour per block, from what survives encryption in that block.

Adversary: holds ciphertexts and has public images of the same kind; no key.
Method: if the values or pixels of a block survive, so does their mean, which is a pixel of a
thumbnail (grey if channels are mixed). That is not always the best function of what survives: the
means of inverted blocks are noise, but |2v - 255| separates smooth from busy and bright from dim
blocks. So the colour of a block is regressed (ridge) on its canonical form and its place, over the
blocks of public images; the mean of a block is among such functions. `survivor_network` is the
nonlinear counterpart, which reads neighbours too.
Must succeed on every cipher that keeps the multiset of a block; recovers nothing inside a block.
"""

import numpy as np
import torch
from torch.nn import functional

from fl_ppseg.audit.attacks.reader import Planes, seen_of, to_bytes
from fl_ppseg.data.blocks import to_blocks
from fl_ppseg.setr.least_squares import blocks_of
from fl_ppseg.setr.ridge import Matrix, ridge, with_one


def thumbnail(public: Planes, ciphertexts: Planes, form: str | None, *, block_size: int) -> Planes:
    """(m, 3, H, W) uint8 ciphertexts -> (m, 3, H, W) uint8, one colour per block, bicubic.

    Args:
        public: (n, 3, H, W) uint8, public images.
        ciphertexts: Of the targets.
        form: The canonical form that the cipher leaves; None if it has none: then the means of
            blocks are returned.
        block_size: Side M of a block in pixels.
    """
    colours = block_colours(ciphertexts, block_size)
    if form is not None:
        public_colours = block_colours(public, block_size).reshape(-1, 3)
        fitted = ridge([(features(public, form, block_size), public_colours)])
        seen = with_one(features(ciphertexts, form, block_size))
        colours = (seen @ fitted).reshape(colours.shape)
    return enlarged(colours, block_size)


def block_colours(images: Planes, block_size: int) -> Matrix:
    """(n, 3, H, W) uint8 -> (n, H / M, W / M, 3), the mean of each block and channel in [-1, 1]."""
    height, width = (side // block_size for side in images.shape[2:])
    blocks = to_blocks(images, block_size).reshape(len(images), height, width, 3, block_size**2)
    colours: Matrix = blocks.mean(axis=-1) / 127.5 - 1
    return colours


def features(images: Planes, form: str, block_size: int) -> Matrix:
    """(n, 3, H, W) uint8 -> (n N, F): canonical form, row and column of each block."""
    seen = seen_of(images, form, block_size, raw=False)
    num_rows, num_columns = (side // block_size for side in images.shape[2:])
    rows = np.repeat(np.eye(num_rows), num_columns, axis=0)
    columns = np.tile(np.eye(num_columns), (num_rows, 1))
    places = np.tile(np.hstack([rows, columns]), (len(images), 1))
    return np.hstack([blocks_of(seen, block_size), places])


def enlarged(colours: Matrix, block_size: int) -> Planes:
    """(n, h, w, 3) in [-1, 1] -> (n, 3, h M, w M) uint8, bicubic."""
    small = torch.from_numpy(colours).permute(0, 3, 1, 2).float()
    return to_bytes(functional.interpolate(small, scale_factor=block_size, mode="bicubic"))
