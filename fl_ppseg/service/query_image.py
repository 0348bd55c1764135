"""The PNG of a query: its header is read before it is decoded, and only 8-bit RGB is taken."""

import struct
import zlib
from http import HTTPStatus
from io import BytesIO
from typing import Final

import numpy as np
from fastapi import HTTPException
from PIL import Image, UnidentifiedImageError

from fl_ppseg.data.image_files import declared_size
from fl_ppseg.system.arrays import Pixels

KINDS: Final = {
    0: "grey",
    2: "RGB",
    3: "palette",
    4: "grey with alpha",
    6: "RGB with alpha",
}
"""Colour types of PNG (ISO/IEC 15948, 11.2.2)."""
_BROKEN: Final = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises for a file that it cannot decode."""


def read_query(data: bytes, max_pixels: int) -> Pixels:
    """A PNG's bytes -> (3, H, W) uint8, as they were encrypted: no profile or turn is applied.

    Raises:
        HTTPException: 415 for what is no PNG, 413 for more pixels than are taken, 422 for a PNG of
            another kind than 8-bit RGB, an animation, or one that is damaged.
    """
    size = declared_size(data) if data[:1] == b"\x89" else None
    if size is None:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected a PNG, got something else")
    if size[0] * size[1] > max_pixels:
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"a query of {size[0]} x {size[1]} pixels (width x height); at most {max_pixels} "
            "pixels are taken",
        )
    if data[24:26] != bytes([8, 2]):
        kind = KINDS.get(data[25], "unknown") if len(data) > 25 else "cut off"
        depth = f"{data[24]}-bit " if len(data) > 25 else ""
        raise _refused(f"expected an 8-bit RGB PNG, got one that is {depth}{kind}")
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as picture:
            if getattr(picture, "n_frames", 1) > 1 or "transparency" in picture.info:
                raise _refused("expected one RGB image, got an animation or a transparent one")
            pixels = np.asarray(picture)
    except (*_BROKEN, UnidentifiedImageError, Image.DecompressionBombError):
        raise _refused("the PNG is damaged or was cut off; send it again") from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # HWC -> CHW


def _refused(why: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, why)
