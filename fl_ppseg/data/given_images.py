"""Images as somebody who uses the library has them: a path, a picture of Pillow's, an array."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fl_ppseg.data.image_files import (
    MAX_PIXELS,
    decoded_rgb,
    exif_orientation,
    read_image,
    upright,
)
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

AnyImage = str | Path | Image.Image | NDArray[np.uint8]
"""A path, a picture, or uint8 RGB values of shape (H, W, 3) or (3, H, W)."""


def as_pixels(image: AnyImage) -> Pixels:
    """An image -> (3, H, W) uint8 RGB, as viewers show it.

    Raises:
        InputError: It is none of `AnyImage`, too large, or a file that cannot be read.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        _check_size(image.height, image.width)
        return _of_picture(image)
    return _of_array(np.asarray(image))


def _of_picture(picture: Image.Image) -> Pixels:
    exif = picture.info.get("exif")
    turned = exif_orientation(exif) if isinstance(exif, bytes) else 1
    try:
        pixels = upright(decoded_rgb(picture), turned)
    except (OSError, ValueError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"a picture that cannot be read ({reason}); open it again") from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # HWC -> CHW


def _of_array(array: NDArray[Any]) -> Pixels:
    is_last, is_first = (array.ndim == 3 and array.shape[axis] == 3 for axis in (-1, 0))
    if array.dtype != np.uint8 or is_last == is_first:
        raise InputError(
            "expected an image of uint8 (height, width, 3) or (3, height, width), got "
            f"{array.dtype} {array.shape}; convert it to RGB bytes, or give a picture of Pillow's"
        )
    values = array.transpose(2, 0, 1) if is_last else array
    _check_size(*values.shape[1:])
    return np.ascontiguousarray(values)


def _check_size(height: int, width: int) -> None:
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise InputError(
            f"image of {width}x{height} pixels (width x height), expected 1 to "
            f"{MAX_PIXELS / 1e6:.0f} million; scale it down or cut it into parts"
        )
