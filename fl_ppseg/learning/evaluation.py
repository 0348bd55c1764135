"""Segmentation scores from confusion counts.

Counts are summed over images and nodes, never averaged; scores are computed from the sum.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.model import Logits
from fl_ppseg.system.spans import span, within

Pixels = Tensor | NDArray[np.uint8]
Sample = tuple[Pixels, Pixels]
"""(3, H, W) uint8 image and (h, w) uint8 trainIds, which may differ in size."""

LOGITS_BYTES = 2**28
"""Most bytes of the logits of a batch at the size of the label maps: 256 MiB."""
MAX_BATCH = 16
"""Most images per batch."""


class _Logits(NamedTuple):
    """Logits, and how they are brought to another size."""

    values: Tensor
    """(B, C, h, w)."""
    are_in_place: bool
    """Whether neighbours are neighbours in the image; not so inside the blocks of a ciphertext."""

    def scaled(self, size: tuple[int, int]) -> "_Logits":
        """Brought to (h, w): bilinear, or those of a ciphertext's pixels repeated."""
        if self.are_in_place:
            values = F.interpolate(self.values, size=size, mode="bilinear", align_corners=False)
        else:
            values = F.interpolate(self.values, size=size, mode="nearest-exact")
        return self._replace(values=values)


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix, in percent; NaN where no pixel was labelled.

    Attributes:
        aAcc: Share of labelled pixels that are right.
        mIoU: Mean IoU over the classes that are true or predicted at a labelled pixel.
        mAcc: Mean recall over the classes present in the ground truth.
        per_class_iou: IoU of each trainId; 0 where it is predicted and nowhere true, None where it
            is neither.
    """

    aAcc: float  # noqa: N815 - the field's own word
    mIoU: float  # noqa: N815
    mAcc: float  # noqa: N815
    per_class_iou: tuple[float | None, ...]


def confusion_counts(
    prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """(...) predicted and (...) true trainIds -> (C, C) int64 counts, rows = truth.

    Args:
        prediction: Integers in 0..C-1.
        target: Integers in 0..C-1 or ``ignore_index``, of the same shape.
        num_classes: C.
        ignore_index: True value of the pixels that are not counted.

    Raises:
        ValueError: The shapes differ, or a counted value is outside 0..C-1.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)}, target {tuple(target.shape)}")
    labelled = target != ignore_index
    truth, guess = target[labelled].long(), prediction[labelled].long()
    for values in (truth, guess):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(
                f"trainIds {int(values.min())}..{int(values.max())}, C = {num_classes}"
            )
    pairs = truth.mul_(num_classes).add_(guess)
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def score(counts: Tensor | NDArray[np.int64]) -> Scores:
    """(C, C) counts, rows = truth -> scores in percent.

    IoU = TP / (TP + FP + FN) at labelled pixels, and the mean is over the classes for which that
    sum is not 0: so in cityscapesScripts (`evalPixelLevelSemanticLabeling`), where a class which
    is predicted and nowhere true counts as 0 as well.

    >>> score(np.array([[3, 1, 0], [1, 3, 0], [0, 0, 0]])).mIoU
    60.0
    >>> score(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).per_class_iou
    (75.0, 80.0, None)
    """
    matrix = np.asarray(counts, dtype=np.float64)
    hits, truths, guesses = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    unions, present = truths + guesses - hits, truths > 0
    if not present.any():
        return Scores(np.nan, np.nan, np.nan, (None,) * len(matrix))
    iou = 100 * hits[unions > 0] / unions[unions > 0]
    recall = 100 * hits[present] / truths[present]
    found = dict(zip(np.flatnonzero(unions).tolist(), iou.tolist(), strict=True))
    return Scores(
        aAcc=float(100 * hits.sum() / truths.sum()),
        mIoU=float(mean_iou(matrix)),
        mAcc=float(recall.mean()),
        per_class_iou=tuple(found.get(train_id) for train_id in range(len(matrix))),
    )


def mean_iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """(..., C, C) counts, rows = truth -> (...) mIoU in percent, that of `score`.

    NaN where no pixel is labelled.

    >>> mean_iou(np.array([[[3, 1], [1, 3]], [[9, 0], [0, 0]], [[0, 0], [0, 0]]])).tolist()
    [60.0, 100.0, nan]
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    unions = counts.sum(axis=-1) + counts.sum(axis=-2) - hits
    occurs = unions > 0
    iou = np.divide(100.0 * hits, unions, out=np.zeros(unions.shape), where=occurs)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing occurs
        means: NDArray[np.float64] = iou.sum(axis=-1) / occurs.sum(axis=-1)
    return means


def resized_logits(model: nn.Module, images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, C, h, w) main logits, bilinear to ``size`` = (h, w)."""
    return _tall_logits(model, images, size[0]).scaled(size).values


def segment(model: nn.Module, images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, h, w) int64 predicted trainIds at ``size`` = (h, w)."""
    tall = _tall_logits(model, images, size[0])
    guess = torch.empty(len(images), *size, dtype=torch.int64, device=tall.values.device)
    for rows, logits in _row_bands(tall, size[1]):
        guess[:, rows] = logits.argmax(dim=1)
    return guess


def most_likely(model: nn.Module, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) uint8 -> the classes of :func:`segment` and their softmax probability.

    Args:
        model: As for :func:`segment`.
        images: Of one size.
        size: (h, w) of both results: (B, h, w) int64 trainIds and (B, h, w) float32, 0 to 1.
    """
    tall = _tall_logits(model, images, size[0])
    device = tall.values.device
    guess = torch.empty(len(images), *size, dtype=torch.int64, device=device)
    sure = torch.empty(len(images), *size, device=device)
    for rows, logits in _row_bands(tall, size[1]):
        peak, guess[:, rows] = logits.max(dim=1)
        sure[:, rows] = (peak - logits.logsumexp(dim=1)).exp()
    return guess, sure


def evaluate(
    model: nn.Module,
    samples: Iterable[Sample],
    num_classes: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, float]:
    """Score a model on labelled images, each at the size of its label map.

    The model is in evaluation mode during the call. Samples of equal sizes share a batch, whatever
    their order. A batch is as large as `LOGITS_BYTES` and `MAX_BATCH` allow, at least one image; a
    larger image is scored in bands of as many rows as fit, with the same result to the bit.

    Args:
        model: Module whose output has the logits ``main`` (B, C, h', w').
        samples: Images and label maps; read once, one batch of each size in memory at a time.
        num_classes: C.
        device: Where the model is.

    Returns:
        (C, C) int64 counts on the CPU, rows = truth, and the mean cross-entropy in nats over all
        labelled pixels (NaN if there are none).
    """
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    was_training = model.training
    model.eval()
    try:
        with span("compute"), torch.inference_mode():
            for images, labels in within("data", _batches(samples, num_classes)):
                tall = _tall_logits(model, images.to(device), labels.shape[1])
                found, lost = _scored(tall, labels.to(device), num_classes)
                counts += found
                loss += lost
    finally:
        model.train(was_training)
    return counts.cpu(), float(loss / counts.sum())


def batch_size(num_classes: int, size: tuple[int, int]) -> int:
    """Images per batch at the size (h, w) of their label maps.

    >>> batch_size(19, (128, 256)), batch_size(19, (1024, 2048))
    (16, 1)
    """
    bytes_each = 4 * num_classes * size[0] * size[1]
    return min(MAX_BATCH, max(1, LOGITS_BYTES // bytes_each))


def _tall_logits(model: nn.Module, images: Tensor, height: int) -> _Logits:
    """(B, 3, H, W) uint8 -> (B, C, h, w') main logits, bilinear to the height alone.

    Bilinear interpolation is separable: with its full height here, any rows of the result can be
    resized to the full width by themselves, to the same bits.
    """
    found: Logits = model(to_input(images))
    # NHWC in memory: interpolation and argmax over classes are three times as fast on a CPU.
    logits = found.main.float().contiguous(memory_format=torch.channels_last)
    return _Logits(logits, found.decoder is None).scaled((height, logits.shape[-1]))


def _row_bands(tall: _Logits, width: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows of (B, C, h, w') logits and these at their full width, of `LOGITS_BYTES` or one row."""
    batch, num_classes, height, _ = tall.values.shape
    step = max(1, LOGITS_BYTES // (4 * batch * num_classes * width))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        size = (rows.stop - rows.start, width)
        yield rows, tall._replace(values=tall.values[:, :, rows]).scaled(size).values


def _scored(tall: _Logits, truth: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Confusion counts and summed cross-entropy in nats over labelled pixels.

    Args:
        tall: (B, C, h, w').
        truth: (B, h, w) uint8 trainIds, 255 = ignored.
        num_classes: C.
    """
    device = tall.values.device
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    losses = torch.empty(truth.shape, device=device)  # one sum: bands change no bit
    for rows, logits in _row_bands(tall, truth.shape[2]):
        part = truth[:, rows].long()
        counts += confusion_counts(logits.argmax(dim=1), part, num_classes)
        losses[:, rows] = _spend_on_losses(logits, part)
    return counts, losses[truth != IGNORE_INDEX].sum(dtype=torch.float64)


def _spend_on_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """(B, h, w) cross-entropy in nats of each pixel, computed in place.

    The logits are overwritten to save memory: `cross_entropy` would allocate their logarithmic
    softmax as well.

    Args:
        logits: (B, C, h, w), overwritten.
        truth: (B, h, w) int64 trainIds, 255 = ignored, where the result is undefined.
    """
    peak = logits.amax(dim=1)
    chosen = logits.gather(1, truth.where(truth != IGNORE_INDEX, 0)[:, None])[:, 0]
    log_sum = logits.sub_(peak[:, None]).exp_().sum(dim=1).log_()
    return log_sum - (chosen - peak)


def _batches(samples: Iterable[Sample], num_classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Stack samples of equal sizes: (B, 3, H, W) images and (B, h, w) labels."""
    waiting: dict[tuple[tuple[int, ...], ...], list[Sample]] = {}
    for image, labels in samples:
        sizes = (tuple(image.shape), tuple(labels.shape))
        group = waiting.setdefault(sizes, [])
        group.append((image, labels))
        if len(group) == batch_size(num_classes, (labels.shape[0], labels.shape[1])):
            yield _stack(waiting.pop(sizes))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[Sample]) -> tuple[Tensor, Tensor]:
    images, labels = (
        np.stack([np.asarray(item) for item in part]) for part in zip(*group, strict=True)
    )
    return torch.from_numpy(images), torch.from_numpy(labels)
