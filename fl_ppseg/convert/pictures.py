"""One photograph and its mask: read, bounded, upright, scaled, as the bytes of two new files.

Only pixels are copied: no EXIF data, which may hold locations and serial numbers, no previews, no
colour profiles.
"""

import hashlib
from collections import Counter
from io import BytesIO
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fl_ppseg.convert.masks import Coding
from fl_ppseg.convert.plan import Item
from fl_ppseg.convert.scaling import Scaling
from fl_ppseg.data.image_files import decode_image, opened, orientation, read_file
from fl_ppseg.data.label_maps import count_values, require_same_size

JPEG: Final[dict[str, Any]] = {"format": "JPEG", "quality": 95}
PNG: Final[dict[str, Any]] = {"format": "PNG"}


class Converted(NamedTuple):
    """The files that a photograph and its mask become."""

    image: bytes
    kind: str
    """Suffix of the image: `jpg` if it was a JPEG, else `png`."""
    label_map: bytes
    content: str
    """Digest of the image's pixels."""
    is_turned: bool
    """Whether an EXIF orientation turned it."""
    counts: NDArray[np.int64]
    """(256,), pixels of each labelId in the label map."""
    unknown: Counter[str]
    """Unknown values of the mask -> pixels."""


def converted(item: Item, coding: Coding, scaling: Scaling) -> Converted:
    """Read a photograph and its mask.

    Raises:
        InputError: One is damaged or of the wrong kind, or their sizes differ.
    """
    data = read_file(item.image, "photograph")
    pixels = decode_image(data, item.image).transpose(1, 2, 0)  # CHW -> HWC
    with opened(data, item.image, "photograph") as picture:
        is_turned, is_jpeg = orientation(data, picture) != 1, picture.format != "PNG"
    label_ids, unknown = coding.decode(read_file(item.mask, "mask"), item.mask)
    require_same_size(label_ids.shape[::-1], pixels.shape[1::-1], data, item.image, item.mask)
    photograph = scaling.photograph(np.ascontiguousarray(pixels))
    label_map = scaling.label_map(label_ids)
    return Converted(
        image=_encoded(photograph, JPEG if is_jpeg else PNG),
        kind="jpg" if is_jpeg else "png",
        label_map=_encoded(label_map, PNG),
        content=hashlib.sha256(f"{photograph.shape}".encode() + photograph.tobytes()).hexdigest(),
        is_turned=is_turned,
        counts=count_values(label_map),
        unknown=unknown,
    )


def _encoded(pixels: NDArray[np.uint8], options: dict[str, Any]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()
