"""An image as an arm encrypts it, and the order in which that leaves its pixels."""

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.pixel_moves import pixel_order
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.system.arrays import Pixels


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
