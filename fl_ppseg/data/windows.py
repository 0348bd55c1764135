"""Windows of encrypted frames: where they may begin, and which of several is trained on.

A window begins and ends between blocks, and ciphers leave blocks in their places: a window of a
frame's ciphertext is the ciphertext of that window of the frame, and its label map lies in the same
place. Where windows begin is drawn ahead; which of the places is taken follows from the label map,
as mmsegmentation's `cat_max_ratio` has it, and is the same where labels have moved inside blocks.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

Size = tuple[int, int]
Places = npt.NDArray[np.int64]
"""(..., 2): blocks above a window, and to its left."""
CROP_TRIES: Final = 10
"""Places a window is tried at."""
CAT_MAX_RATIO: Final = 0.75
ONE_PLACE: Final = (1, 1)
"""`num_places` of frames that are no larger than a window."""


def check_frame(frame: Size, window: Size, block_size: int) -> None:
    """Check that windows can be cut from frames between blocks.

    Args:
        frame: (height, width) of a frame, in pixels.
        window: Of the model's input.
        block_size: Side of a block, in pixels.

    Raises:
        InputError: The frame is smaller, or not a whole number of blocks.
    """
    if any(side % block_size or side < part for side, part in zip(frame, window, strict=True)):
        raise InputError(
            f"data.frame_size: expected whole blocks of {block_size} pixels and at least "
            f"data.image_size {window[0]}x{window[1]}, got {frame[0]}x{frame[1]}"
        )


def num_places(frame: Size, window: Size, block_size: int) -> Size:
    """Rows and columns in which a window can begin; arguments as `check_frame`.

    >>> num_places((512, 1024), (256, 512), 16)
    (17, 33)
    """
    rows, columns = (
        (side - part) // block_size + 1 for side, part in zip(frame, window, strict=True)
    )
    return rows, columns


def draw_places(generator: np.random.Generator, num_windows: int, number: Size) -> Places:
    """Places for each window to choose from, (num_windows, CROP_TRIES, 2).

    Args:
        generator: Of the local update.
        num_windows: How many windows.
        number: Of `num_places`.
    """
    return generator.integers(number, size=(num_windows, CROP_TRIES, 2))


def choose(labels: Pixels, places: Places, window: Size, block_size: int) -> tuple[slice, slice]:
    """Rows and columns of the first window that no class dominates; of the last if all are.

    Args:
        labels: (H, W) uint8 trainIds of the frame, in place or moved inside blocks.
        places: (tries, 2), of `draw_places`.
        window: (height, width) in pixels.
        block_size: Side of a block, in pixels.
    """
    for top, left in (places * block_size).tolist():
        rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
        if is_mixed(labels[rows, columns]):
            break
    return rows, columns


def is_mixed(labels: Pixels) -> bool:
    """mmsegmentation's ``cat_max_ratio``: more than one class, none above three quarters."""
    counts = np.bincount(labels.ravel(), minlength=256)[:IGNORE_INDEX]
    return bool(counts.max() < CAT_MAX_RATIO * counts.sum())
