"""Whole images through a cipher: (3, H, W) uint8 -> (3, H, W) uint8, and back exactly.

One image with its key, or a batch with one key per image, in numpy or torch. Streams of keys are
made on the CPU; what they make of tensors on another device is made there.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, cast

import numpy as np

from fl_ppseg.crypto.ciphers.arrays import beside
from fl_ppseg.crypto.ciphers.cipher import Cipher, Scope
from fl_ppseg.crypto.ciphers.registry import get_cipher
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry, from_blocks, to_blocks
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

Direction = Literal["encrypt", "decrypt"]
"""The two ways through a cipher, by the names of its methods."""
_SHAPES: Final = {3: "(3, height, width)", 4: "(batch, 3, height, width)"}
"""Axes -> what they are, of an image and of a batch."""


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
        cipher: a name of `CIPHERS`, a product of them (`a+b`), or a cipher.
        block_size: side of a block in pixels, the side of the ViT's patch.
        scope: `common` draws once for all blocks, `per-block` once for each.

    Raises:
        InputError: not such an image, sides that are not multiples of `block_size`, an unknown
            cipher or an unknown scope, or a cipher that refuses this block size.
    """
    return _one("encrypt", image, subkey, cipher, block_size, scope)


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
    return _one("decrypt", image, subkey, cipher, block_size, scope)


def encrypt_batch(
    images: Array,
    subkeys: Sequence[SubKey],
    cipher: str | Cipher[Any] = "shuffle",
    *,
    block_size: int,
    scope: Scope,
    num_threads: int = 1,
) -> Array:
    """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, each image as `encrypt` with its own key.

    Args:
        images: numpy array, or torch tensor on any device; the result is of the same kind.
        subkeys: B keys; the same one B times for `shared` and `per-client`.
        cipher: as for `encrypt`.
        block_size: as for `encrypt`.
        scope: as for `encrypt`.
        num_threads: images that are encrypted at a time; the result does not depend on it.

    Raises:
        InputError: as `encrypt`, or not one key an image.
    """
    return _each("encrypt", images, subkeys, cipher, block_size, scope, num_threads)


def decrypt_batch(
    images: Array,
    subkeys: Sequence[SubKey],
    cipher: str | Cipher[Any] = "shuffle",
    *,
    block_size: int,
    scope: Scope,
    num_threads: int = 1,
) -> Array:
    """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, the exact inverse of `encrypt_batch`.

    Raises:
        InputError: as `encrypt_batch`.
    """
    return _each("decrypt", images, subkeys, cipher, block_size, scope, num_threads)


def _one(
    direction: Direction,
    image: Pixels,
    subkey: SubKey,
    cipher: str | Cipher[Any],
    block_size: int,
    scope: Scope,
) -> Pixels:
    found, geometry = _prepare(image, 3, cipher, block_size)
    return _through(found, direction, image, subkey, geometry, scope)


def _each(
    direction: Direction,
    images: Array,
    subkeys: Sequence[SubKey],
    cipher: str | Cipher[Any],
    block_size: int,
    scope: Scope,
    num_threads: int,
) -> Array:
    """Image by image. A tensor in memory is taken as the numpy array that it is."""
    found, geometry = _prepare(images, 4, cipher, block_size)
    if len(subkeys) != len(images) or not subkeys:
        raise InputError(
            f"expected one key per image and at least one, got {len(subkeys)} keys for "
            f"{len(images)}; "
            "repeat a key that several share"
        )
    changed: Array
    if isinstance(images, np.ndarray):
        changed = np.empty(images.shape, np.uint8)
    elif images.device.type == "cpu":
        array: Pixels = images.numpy()
        result = _each(direction, array, subkeys, found, block_size, scope, num_threads)
        return cast("Array", beside(result, images))
    else:
        changed = images.new_empty(images.shape)

    def change(place: int) -> None:
        image, subkey = images[place], subkeys[place]
        changed[place] = _through(found, direction, image, subkey, geometry, scope)

    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(change, range(len(images))))
    return changed


def _through(
    cipher: Cipher[Any],
    direction: Direction,
    image: Array,
    subkey: SubKey,
    geometry: Geometry,
    scope: Scope,
) -> Array:
    """(C, H, W) uint8 -> (C, H, W) uint8, by way of blocks."""
    blocks = to_blocks(image, geometry.block_size)
    changed: Array = getattr(cipher, direction)(blocks, subkey, geometry, scope)
    return from_blocks(changed, geometry)


def _prepare(
    images: Array, num_axes: int, cipher: str | Cipher[Any], block_size: int
) -> tuple[Cipher[Any], Geometry]:
    """Look the cipher up and divide the images, refusing what are no RGB images of bytes."""
    dtype, shape = str(images.dtype).removeprefix("torch."), tuple(images.shape)
    if dtype != "uint8" or len(shape) != num_axes or shape[-3] != 3:
        raise InputError(
            f"expected an image of uint8 {_SHAPES[num_axes]}, got {dtype} {shape}; convert it to "
            "RGB bytes"
        )
    found = get_cipher(cipher) if isinstance(cipher, str) else cipher
    return found, Geometry.of_image(shape[-3:], block_size)
