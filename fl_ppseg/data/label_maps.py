"""Label maps: PNGs whose values are labelIds, also after an optimiser has rewritten them.

`optipng` and its like store a grey map of few values as a palette whose colours are the old grey
values: viewers show the same picture, so the grey values are the ids. A palette of colours is a
colour map, and its indices are the ids, unless the colours of the class table contradict them.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from fl_ppseg.data.classes import IGNORE_INDEX, ClassTable
from fl_ppseg.data.image_files import opened, orientation, shown_size
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

BAND = 2**20
"""Pixels that are counted at a time: numpy widens them to 8 bytes each."""


def decode_label_ids(data: bytes, path: Path, classes: ClassTable) -> Pixels:
    """8-bit PNG of one channel, or a palette PNG -> (H, W) uint8 labelIds.

    Args:
        data: The file.
        path: Where it lies, for errors.
        classes: The table, whose colours tell what a palette means.

    Raises:
        InputError: It is broken, no such PNG, or a palette that means something else.
    """
    with opened(data, path, "label map") as picture:
        require_label_ids(data, picture, path)
        values = np.array(picture, dtype=np.uint8)
        if picture.mode != "P":
            return values
        palette = np.array(picture.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return _meant(values, palette, path, classes)


def require_label_ids(data: bytes, picture: ImageFile, path: Path) -> None:
    """Look at what an opened label map is, without its pixels.

    Raises:
        InputError: It is not a PNG of one channel and 8 bits, or it is turned.
    """
    # Pillow stretches grey PNGs of fewer bits to 0..255: ids would change, so not these.
    whole_bytes = picture.mode == "L" and picture.tile[0].args == "L"
    if picture.format != "PNG" or not (whole_bytes or picture.mode == "P"):
        raise InputError(
            f"{path}: {picture.format} of mode {picture.mode}, but labelIds are expected as a "
            f"PNG of "
            "one channel and 8 bits (neither the colour map nor the instanceIds)"
        )
    if orientation(data, picture) != 1:
        raise InputError(
            f"{path}: a label map that its EXIF orientation turns, and programs disagree on such; "
            "save it upright without the tag"
        )


def require_same_size(
    label_map: tuple[int, ...], image: tuple[int, ...], data: bytes, image_path: Path, path: Path
) -> None:
    """Check that a label map and its image are of one size.

    Args:
        label_map: (width, height).
        image: (width, height) as it is shown.
        data: The image file, which tells how it is stored.
        image_path: Where it lies, for errors.
        path: Where the label map lies.

    Raises:
        InputError: They are not, or only as the image is stored.
    """
    if label_map == image:
        return
    with opened(data, image_path, "image") as picture:
        is_turned = shown_size(data, picture) != picture.size
    if is_turned and label_map == image[::-1]:
        raise InputError(
            f"{path}: {_size(label_map)} but its image is {_size(image)} (width x "
            "height) as its EXIF orientation shows it; the label map was drawn on the pixels "
            f"as they are stored, so remove the orientation tag from {image_path}"
        )
    raise InputError(
        f"{path}: {_size(label_map)} but its image is {_size(image)} "
        "(width x height); export image and label map at the same size"
    )


def count_values(pixels: Pixels) -> NDArray[np.int64]:
    """Any number of uint8 -> (256,) int64, how often each value occurs.

    >>> count_values(np.array([[0, 7], [7, 255]], np.uint8))[[0, 7, 255]].tolist()
    [1, 2, 1]
    """
    flat, counts = pixels.ravel(), np.zeros(256, dtype=np.int64)
    for start in range(0, flat.size, BAND):
        counts += np.bincount(flat[start : start + BAND], minlength=256)
    return counts


def _meant(indices: Pixels, palette: Pixels, path: Path, classes: ClassTable) -> Pixels:
    """(H, W) indices, (n, 3) colours -> (H, W) labelIds."""
    used = np.flatnonzero(count_values(indices))
    if used.size and used[-1] >= len(palette):
        raise InputError(
            f"{path}: index {used[-1]} has no colour in a palette of {len(palette)}; save it anew "
            "as a grey PNG of 8 bits whose values are the labelIds"
        )
    right, wrong = _by_colour(used, palette, classes)
    is_grey = bool((palette == palette[:, :1]).all())
    if is_grey and not (right and not wrong):
        values = np.zeros(256, dtype=np.uint8)
        values[: len(palette)] = palette[:, 0]
        return values[indices]
    if len(wrong) > len(right):
        index, train_id = wrong[0]
        name = classes.names[train_id]
        raise InputError(
            f"{path}: a palette in which index {index} has the colour of {name}, but "
            f"as a labelId {index} means {_name(classes, index)}: its indices are trainIds, or "
            "an optimiser has reordered them, so save it anew as a grey PNG of 8 bits whose values "
            "are the labelIds"
        )
    return indices


def _by_colour(
    used: NDArray[np.intp], palette: Pixels, classes: ClassTable
) -> tuple[list[int], list[tuple[int, int]]]:
    """Indices whose colour is that of their class, and those with that of another class."""
    colours = {tuple(colour): k for k, colour in enumerate(classes.colours.tolist())}
    right, wrong = [], []
    for index in used.tolist():
        train_id = colours.get(tuple(palette[index].tolist()))
        if train_id is None:
            continue
        if classes.label_to_train[index] == train_id:
            right.append(index)
        else:
            wrong.append((index, train_id))
    return right, wrong


def _name(classes: ClassTable, label_id: int) -> str:
    train_id = int(classes.label_to_train[label_id])
    return "no class" if train_id == IGNORE_INDEX else classes.names[train_id]


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
