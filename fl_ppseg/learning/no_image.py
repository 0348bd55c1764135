"""The baseline `no image`: for each pixel the most frequent class of the training label maps.

    <run>/no_image.png      (h, w) uint8 trainIds at data.image_size

Whole label maps are resized to that size, and the answer to the size of each label map that it is
scored on, whether images are resized or cropped. The answer does not depend on an image; only what
a model scores above it does. It needs the training label maps of all clients, so it exists in a
simulation only: on separate machines label maps stay on their nodes.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.config.run_layout import NO_IMAGE
from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.image_files import opened, read_file
from fl_ppseg.learning.evaluation import evaluate
from fl_ppseg.setr.model import Logits
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import Progress, replacing

AT_ONCE: Final = 64
"""Most label maps in memory."""
_UNSEEN: Final = np.zeros((3, 1, 1), np.uint8)
"""Placeholder for an image."""


class Prior(nn.Module):
    """(B, 3, any, any) -> the same answer to every image."""

    answer: Tensor

    def __init__(self, majority: Pixels, num_classes: int) -> None:
        """Answer with a label map.

        Args:
            majority: (h, w) trainIds.
            num_classes: C.
        """
        super().__init__()
        classes = functional.one_hot(torch.from_numpy(majority).long(), num_classes)
        self.register_buffer("answer", classes.permute(2, 0, 1)[None].float())  # HWC -> 1CHW

    def forward(self, images: Tensor) -> Logits:
        """1 for the class of each pixel, 0 for the others."""
        return Logits(self.answer.expand(len(images), -1, -1, -1), ())


def majority(label_maps: Iterable[Pixels], num_classes: int) -> Pixels:
    """(h, w) trainIds each -> (h, w), the most frequent of each pixel; the lowest in a tie.

    A pixel that is never labelled gets the most frequent class of all.

    Args:
        label_maps: At least one, all of one size; read once.
        num_classes: C.

    >>> maps = np.array([[[1, 255, 0]], [[1, 255, 1]], [[0, 255, 1]]], np.uint8)
    >>> majority(maps, 2).tolist()
    [[1, 1, 1]]
    """
    maps = iter(label_maps)
    first = next(maps)
    counts = np.zeros((num_classes, *first.shape), np.int64)
    _count(counts, first)
    for label_map in maps:
        _count(counts, label_map)
    anywhere = counts.sum(axis=(1, 2)).argmax()
    chosen: Pixels = np.where(counts.any(axis=0), counts.argmax(axis=0), anywhere).astype(np.uint8)
    return chosen


def counts_without_image(
    answer: Pixels, label_maps: Iterable[Pixels], num_classes: int
) -> NDArray[np.int64]:
    """(N, C, C) counts of the answer on N label maps, as for a model.

    Args:
        answer: (h, w) trainIds; resized to each label map like a model's logits.
        label_maps: (H, W) trainIds each, at least one.
        num_classes: C.
    """
    prior = Prior(answer, num_classes)
    samples = ((_UNSEEN, label_map) for label_map in label_maps)
    return np.stack([evaluate(prior, [each], num_classes)[0].numpy() for each in samples])


def label_maps_of(
    scenes: Sequence[Scene],
    num_workers: int,
    progress: Progress = lambda done, total: None,
) -> Iterator[Pixels]:
    """The label maps of scenes, (H, W) trainIds each: `AT_ONCE` of them in memory.

    Args:
        scenes: Scenes to read.
        num_workers: Threads that read.
        progress: Called with (label maps done, label maps in all).

    Raises:
        InputError: One cannot be read, or has changed since it was checked.
    """
    with ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(scenes), AT_ONCE):
            part = scenes[start : start + AT_ONCE]
            yield from pool.map(Scene.label_map, part)
            progress(start + len(part), len(scenes))


def save_answer(run: Path, answer: Pixels) -> None:
    """Write the answer into a run folder atomically."""
    with replacing(run / NO_IMAGE) as temporary:
        Image.fromarray(answer).save(temporary, format="PNG")


def load_answer(run: Path, num_classes: int) -> Pixels | None:
    """Read the answer in a run folder, (h, w) trainIds; None if there is none.

    Raises:
        InputError: It is not a label map of these classes.
    """
    path = run / NO_IMAGE
    if not path.is_file():
        return None
    data = read_file(path, "label map")
    with opened(data, path, "label map") as picture:
        answer = np.array(picture)
    if answer.ndim != 2 or answer.dtype != np.uint8 or int(answer.max()) >= num_classes:
        raise InputError(
            f"{path}: expected trainIds below {num_classes} as a PNG of one channel and 8 bits; "
            "remove it and make it again with --resume"
        )
    return answer


def _count(counts: NDArray[np.int64], label_map: Pixels) -> None:
    """Add one label map to (C, h, w) counts."""
    rows, columns = np.nonzero(label_map != IGNORE_INDEX)
    counts[label_map[rows, columns], rows, columns] += 1
