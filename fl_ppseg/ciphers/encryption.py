"""Whole images through a cipher: (3, H, W) uint8 -> (3, H, W) uint8, and back exactly."""

from typing import Any

import numpy as np

from fl_ppseg.ciphers.blocks import Geometry, Pixels, from_blocks, to_blocks
from fl_ppseg.ciphers.cipher import Cipher, Scope
from fl_ppseg.ciphers.registry import get_cipher
from fl_ppseg.errors import InputError
from fl_ppseg.keys import SubKey


def encrypt(
    image: Pixels,
    subkey: SubKey,
    cipher: str | Cipher[Any] = "shuffle",
    *,
    block_size: int,
    scope: Scope,
) -> Pixels:
    """(3, H, W) uint8 -> (3, H, W) uint8, encrypted block by block, blocks in place.

    Args:
        image: (3, H, W) RGB, H and W multiples of `block_size`.
        subkey: key of this image (`per-image`), or of its client (`per-client`).
        cipher: a name of `CIPHERS`, or a cipher.
        block_size: side of a block in pixels, the side of the ViT's patch.
        scope: `common` draws once for all blocks, `per-block` once for each.

    Raises:
        InputError: not such an image, sides that are no multiples of `block_size`, an unknown
            cipher or an unknown scope.
    """
    found, geometry = _prepare(image, cipher, block_size)
    parameters = found.draw(subkey, geometry, scope)
    return from_blocks(found.apply(to_blocks(image, block_size), parameters), geometry)


def decrypt(
    image: Pixels,
    subkey: SubKey,
    cipher: str | Cipher[Any] = "shuffle",
    *,
    block_size: int,
    scope: Scope,
) -> Pixels:
    """(3, H, W) uint8 -> (3, H, W) uint8, the exact inverse of `encrypt` with equal arguments.

    A wrong key is not noticed (the cipher carries no checksum): it gives another wrong image.

    Raises:
        InputError: as `encrypt`.
    """
    found, geometry = _prepare(image, cipher, block_size)
    parameters = found.draw(subkey, geometry, scope)
    return from_blocks(found.invert(to_blocks(image, block_size), parameters), geometry)


def _prepare(
    image: Pixels, cipher: str | Cipher[Any], block_size: int
) -> tuple[Cipher[Any], Geometry]:
    """Look the cipher up and divide the image, refusing what is no RGB image of bytes."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise InputError(
            f"image of {image.dtype} {image.shape}, wanted uint8 (3, height, width); "
            "convert it to RGB bytes"
        )
    found = get_cipher(cipher) if isinstance(cipher, str) else cipher
    return found, Geometry.of_image(image.shape, block_size)
