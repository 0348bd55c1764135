"""Ciphers that keep pixels whole, and the order in which a key of theirs leaves the pixels."""

import numpy as np

from fl_ppseg.crypto.ciphers.cipher import Effect, Scope
from fl_ppseg.crypto.ciphers.product import Product
from fl_ppseg.crypto.ciphers.registry import get_cipher
from fl_ppseg.crypto.ciphers.shuffle_spatial import ShuffleSpatial
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.system.errors import InputError

WHOLE = Effect.MOVES_PIXELS | Effect.INVERTS_VALUES
"""All that may be done to a block whose pixels' labels are to move with them."""


def moves_whole_pixels(name: str) -> bool:
    """Whether a cipher permutes the pixels of a block and does nothing else but invert values.

    Raises:
        InputError: No such cipher.
    """
    effects = get_cipher(name).effects
    return Effect.MOVES_PIXELS in effects and not effects & ~WHOLE


def pixel_order(
    name: str, subkey: SubKey, image_size: tuple[int, int], block_size: int, scope: Scope
) -> PixelOrder:
    """The order in which `encrypt` with equal arguments leaves the pixels of each block.

    Args:
        name: A cipher of `moves_whole_pixels`.
        subkey: The key.
        image_size: (height, width) of the image in pixels, multiples of `block_size`.
        block_size: Side of a block in pixels.
        scope: One draw for all blocks, or one per block.

    Raises:
        InputError: Another cipher, or sides that are no multiples of the block.
    """
    if not moves_whole_pixels(name):
        raise InputError(f"cipher {name} does not keep pixels whole: labels cannot move with them")
    geometry = Geometry.of_image((3, *image_size), block_size)
    cipher = get_cipher(name)
    factors = cipher.factors if isinstance(cipher, Product) else (cipher,)
    order = np.arange(block_size**2)[None]
    for step, factor in enumerate(factors):
        if isinstance(factor, ShuffleSpatial):
            # the first channel's part: x'[p] = x[q[p]], then x''[p] = x'[r[p]] = x[q[r[p]]]
            moved = factor.draw(subkey, geometry, scope, step).permutation[:, : block_size**2]
            before = np.broadcast_to(order, moved.shape)
            order = np.take_along_axis(before, moved.astype(np.int64), axis=-1)
    return PixelOrder(order, block_size)
