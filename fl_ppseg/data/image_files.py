"""Image files that anybody may have written: bounded before they are decoded, then upright RGB.

Bytes, pixels, scans and frames are counted first; of formats only PNG and JPEG are opened, whatever
a file is named. Images are turned as their EXIF orientation says, as viewers show them.
"""

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from fl_ppseg.system.errors import InputError

MAX_BYTES: Final = 2**29
"""Of a file: 512 MiB, an uncompressed 16-bit RGBA image of `MAX_PIXELS`."""
MAX_PIXELS: Final = 2**26
"""Of an image: 8192 x 8192. Decoding takes some 18 bytes a pixel."""
MAX_SCANS: Final = 100
"""Of a progressive JPEG: each is a pass over all of its pixels, and cameras write ten or so."""
MAX_CHUNKS: Final = 100_000
"""Of a PNG that are searched for its orientation."""

FORMATS: Final = ("PNG", "JPEG")
PHOTOGRAPHS: Final = ("JPEG", "MPO")
"""What Pillow calls a JPEG; MPO is one with previews behind it, as some cameras write."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)
"""What Pillow raises for a file that it cannot decode."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers of a frame header."""
_ORIENTATION = 0x0112
_SHORT = 3


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a regular file.

    Raises:
        InputError: It is missing, no regular file, or larger than any image that is read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{path}: not a regular file; replace it by the {what} itself")
            if found.st_size > MAX_BYTES:
                raise InputError(
                    f"{path}: {what} of {found.st_size} bytes, at most {MAX_BYTES} are read; "
                    "compress it or scale it down"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, what, error) from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """PNG or JPEG file -> (3, H, W) uint8 RGB, as viewers show it.

    Grey, palette and CMYK images become RGB, transparency is dropped, of 16 bits the upper 8 stay;
    the EXIF orientation is applied.

    Raises:
        InputError: The file is missing, broken, too large, animated, or of a pixel format that has
            no RGB meaning.
    """
    return decode_image(read_file(path, "image"), path)


def decode_image(data: bytes, path: Path) -> NDArray[np.uint8]:
    """`read_image` of bytes; the path is for errors."""
    with opened(data, path, "image") as picture:
        turned = orientation(data, picture)
        pixels = upright(decoded_rgb(picture), turned)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # HWC -> CHW


def shown_size(data: bytes, picture: ImageFile) -> tuple[int, int]:
    """(width, height) of an opened image as viewers show it, without its pixels."""
    width, height = picture.size
    return (height, width) if orientation(data, picture) >= 5 else (width, height)


@contextmanager
def opened(data: bytes, path: Path, what: str) -> Iterator[ImageFile]:
    """A picture whose size is bearable, and whose decoder's failures are errors of the user's file.

    Raises:
        InputError: It is neither PNG nor JPEG, too large, animated, or breaks while it is read.
    """
    try:
        _require_bearable(declared_size(data), data, path, what)  # Pillow only warns, and of more
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            _require_bearable(picture.size, data, path, what)
            frames = getattr(picture, "n_frames", 1)
            if picture.format == "PNG" and frames > 1:
                raise InputError(
                    f"{path}: an animation of {frames} frames, not one {what}; save the frame that "
                    "is meant"
                )
            yield picture
    except UnidentifiedImageError:
        reason = "neither PNG nor JPEG" if data else "an empty file"
        raise unreadable(path, what, ValueError(reason)) from None
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise unreadable(path, what, error) from error


def declared_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) by the header of a PNG or JPEG; None where it has none.

    >>> signature = b"\\x89PNG\\r\\n\\x1a\\n"
    >>> declared_size(signature + bytes([0, 0, 0, 13]) + b"IHDR" + bytes([0, 0, 0, 2, 0, 0, 0, 3]))
    (2, 3)
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    return _jpeg_size(data) if data[:2] == b"\xff\xd8" else None


def orientation(data: bytes, picture: ImageFile) -> int:
    """EXIF orientation of an opened picture: 1 upright (also where there is none) to 8."""
    exif = _png_exif(data) if picture.format == "PNG" else picture.info.get("exif")
    return exif_orientation(exif) if isinstance(exif, bytes) else 1


def exif_orientation(exif: bytes) -> int:
    """The orientation in the first directory of EXIF data; 1 where it is missing or broken.

    >>> header, count = b"MM" + bytes([0, 42, 0, 0, 0, 8]), bytes([0, 1])
    >>> exif_orientation(header + count + bytes([1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0]))
    6
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (number,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(number):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def upright(pixels: NDArray[np.uint8], turned: int) -> NDArray[np.uint8]:
    """(H, W, C) as stored -> as shown under an EXIF orientation; 5 to 8 give (W, H, C)."""
    if turned >= 5:
        pixels = pixels.swapaxes(0, 1)
    if turned in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if turned in (3, 4, 7, 8) else pixels


def unreadable(path: Path, what: str, error: BaseException) -> InputError:
    """The error of a file that cannot be read or decoded."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return InputError(f"{path}: unreadable {what} ({reason}); restore the file or remove the scene")


def _require_bearable(size: tuple[int, int] | None, data: bytes, path: Path, what: str) -> None:
    """Size is (width, height)."""
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{path}: {what} of {size[0]}x{size[1]} pixels (width x height), at most "
            f"{MAX_PIXELS / 1e6:.0f} million are read; scale it down or cut it into parts"
        )
    if data[:2] == b"\xff\xd8" and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise InputError(
            f"{path}: JPEG of {scans} scans, at most {MAX_SCANS} are read; save it anew"
        )


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walks the segments before the first scan."""
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 9:
        marker = data[place + 1]
        length, _, height, width = struct.unpack_from(">HBHH", data, place + 2)
        if marker in _FRAMES:
            return width, height
        if marker == 0xDA:
            return None
        if marker == 0xFF:  # fill
            place += 1
        elif marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:  # nothing belongs to these
            place += 2
        else:
            place += 2 + length
    return None


def _png_exif(data: bytes) -> bytes | None:
    """The eXIf chunk, which may stand before the pixels or after them."""
    place = 8
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            return None
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"eXIf":
            return data[place + 8 : place + 8 + length]
        place += 12 + length
    return None


def decoded_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture -> (H, W, 3) uint8 RGB, as stored.

    Raises:
        ValueError: Its pixels have no RGB meaning.
    """
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        grey = (np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("floating-point pixels")
    return np.asarray(picture.convert("RGB"))
