"""What an attacker's network restores from a query: the audit's survivor network, on show.

It holds no key: every key leaves the canonical form that it reads (`docs/audit.md`).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from fl_ppseg.audit.attacks.reader import seen_of, to_bytes
from fl_ppseg.audit.attacks.reader_file import SavedReader, read_reader
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

Size = tuple[int, int]


def load_attack(path: Path, spec: QuerySpec) -> Callable[[Pixels], Pixels]:
    """The attack in a file: (3, H, W) uint8 ciphertext -> (3, H, W) uint8, what it restores.

    Args:
        path: Written by `python -m fl_ppseg.audit --save-network`.
        spec: Of the model, whose queries it is to read.

    Raises:
        InputError: It is no such file, or of another cipher, block size or image size.
    """
    saved = read_reader(path)
    about = saved.about
    found = (about.cipher, about.block_size, about.image_size)
    expected = (spec.cipher, spec.block_size, spec.image_size)
    if found != expected:
        told = ("{} in blocks of {} on images of {}".format(*each) for each in (expected, found))
        raise InputError("{}: expected a network for {}, got one for {}".format(path, *told))
    return lambda query: restored(saved, query)


@torch.inference_mode()
def restored(saved: SavedReader, query: Pixels) -> Pixels:
    """(3, H, W) uint8 -> (3, H, W) uint8, window by window of the size that it was trained on.

    Sides are whole blocks and at least the network's; the last windows end at the image's border.
    """
    about, size = saved.about, saved.about.image_size
    result = np.empty_like(query)
    for rows, columns in windows((query.shape[1], query.shape[2]), size):
        window = np.ascontiguousarray(query[None, :, rows, columns])
        seen = seen_of(window, about.form, about.block_size, raw=False)
        result[:, rows, columns] = to_bytes(saved.reader(seen))[0]
    return result


def windows(size: Size, window: Size) -> Iterator[tuple[slice, slice]]:
    """Windows that cover an image of some (height, width), row by row.

    >>> [(rows.start, columns.start) for rows, columns in windows((64, 160), (64, 128))]
    [(0, 0), (0, 32)]
    """
    tops, lefts = (
        [min(start, side - own) for start in range(0, side, own)]
        for side, own in zip(size, window, strict=True)
    )
    for top in tops:
        for left in lefts:
            yield slice(top, top + window[0]), slice(left, left + window[1])
