"""An image as an arm encrypts it, and the order in which that leaves its pixels."""

import numpy as np

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.pixel_moves import pixel_order
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.data.windows import check_frame
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError


def encrypted(image: Pixels, key: SubKey, protection: ArmConfig, block_size: int) -> Pixels:
    """(3, H, W) uint8 -> (3, H, W) uint8, as an arm encrypts; of a plain arm the image itself.

    Args:
        image: RGB, or a view of it.
        key: Of the image.
        protection: Of the arm.
        block_size: Side of a cipher block in pixels.
    """
    if protection.cipher is None or protection.block_scope is None:
        return image
    scope = protection.block_scope
    return encrypt(image, key, protection.cipher, block_size=block_size, scope=scope)


def pixel_order_of(
    key: SubKey, protection: ArmConfig, image_size: tuple[int, int], block_size: int
) -> PixelOrder | None:
    """The order of the pixels of an encrypted image, if the arm's labels are in that order.

    Args:
        key: Of the image.
        protection: Of the arm.
        image_size: (height, width) of the image, in pixels.
        block_size: Side of a cipher block in pixels.

    Returns:
        None for an arm whose labels are in place.
    """
    if protection.labels == "plain" or protection.cipher is None or protection.block_scope is None:
        return None
    return pixel_order(protection.cipher, key, image_size, block_size, protection.block_scope)


def check_windows(
    cipher: str | None, frame: tuple[int, int], window: tuple[int, int], block_size: int
) -> None:
    """Check that windows of encrypted frames are ciphertexts of windows.

    Args:
        cipher: Its name; None: frames are not encrypted.
        frame: (height, width) of the frames, in pixels.
        window: Of the model's input.
        block_size: Side of a block, in pixels.

    Raises:
        InputError: Sides do not fit, or the cipher does not leave each block in its place.
    """
    check_frame(frame, window, block_size)
    if cipher is None:
        return
    key, generator = SubKey.generate(), np.random.default_rng(0)
    image = generator.integers(0, 256, (3, 2 * block_size, 3 * block_size), np.uint8)
    part = (slice(None), slice(block_size, None), slice(block_size, None))
    of_window, of_frame = (
        encrypt(each, key, cipher, block_size=block_size, scope="common")
        for each in (np.ascontiguousarray(image[part]), image)
    )
    if not np.array_equal(of_window, of_frame[part]):
        raise InputError(
            f"cipher {cipher} does not leave blocks in their places, so that no window can be cut "
            "from its ciphertexts; leave data.frame_size out, or choose another cipher"
        )
