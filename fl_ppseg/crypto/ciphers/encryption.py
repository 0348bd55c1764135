"""Whole images through a cipher: (3, H, W) uint8 -> (3, H, W) uint8, and back exactly.

One image with its key, or a batch with one key per image, in numpy or torch. Streams of keys are
made on the CPU; what they make of tensors on another device is made there.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, cast

from fl_ppseg.crypto.ciphers.arrays import beside, empty_like, in_memory
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
        num_threads: images that are encrypted at a time; the result does not depend on it. On a GPU
            several threads work on its default stream.

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
    changed: Pixels = _way(direction, image, 3, cipher, block_size, scope)(image, subkey)
    return changed


def _each(
    direction: Direction,
    images: Array,
    subkeys: Sequence[SubKey],
    cipher: str | Cipher[Any],
    block_size: int,
    scope: Scope,
    num_threads: int,
) -> Array:
    """Image by image; a tensor in memory is taken as the numpy array that it is."""
    way = _way(direction, images, 4, cipher, block_size, scope)
    if len(subkeys) != len(images) or not subkeys:
        raise InputError(
            f"expected one key per image and at least one, got {len(subkeys)} keys for "
            f"{len(images)}; "
            "repeat a key that several share"
        )
    given = in_memory(images)
    changed = empty_like(given)

    def change(place: int) -> None:
        changed[place] = way(given[place], subkeys[place])

    if num_threads == 1:  # in the caller's thread: a device's current stream is a thread's own
        for place in range(len(images)):
            change(place)
    else:
        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(change, range(len(images))))
    return cast("Array", beside(changed, images))


def _way(
    direction: Direction,
    images: Array,
    num_axes: int,
    cipher: str | Cipher[Any],
    block_size: int,
    scope: Scope,
) -> Callable[[Any, SubKey], Any]:
    """What becomes of an image under a key, (3, H, W) -> (3, H, W), for images like these.

    Raises:
        InputError: they are no RGB images of bytes, or do not divide into blocks.
    """
    dtype, shape = str(images.dtype).removeprefix("torch."), tuple(images.shape)
    if dtype != "uint8" or len(shape) != num_axes or shape[-3] != 3:
        raise InputError(
            f"expected an image of uint8 {_SHAPES[num_axes]}, got {dtype} {shape}; convert it to "
            "RGB bytes"
        )
    through = getattr(get_cipher(cipher) if isinstance(cipher, str) else cipher, direction)
    geometry = Geometry.of_image(shape[-3:], block_size)

    def way(image: Any, subkey: SubKey) -> Any:
        return from_blocks(through(to_blocks(image, block_size), subkey, geometry, scope), geometry)

    return way
