"""The loss of a local update: cross entropy with OHEM and class weights."""

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.data.classes import IGNORE_INDEX

SMALLEST_SHARE: Final = 1e-4
"""Lower bound of a class's share in its weight: the shares of rarer classes are too uncertain."""


def class_weights(counts: np.ndarray, balance: float) -> np.ndarray:
    """Weight of each class in the loss: share^-balance, 1 in the mean over labelled pixels.

    With exponent 1 all classes have equal weight, with 0 all pixels.

    Args:
        counts: (num_classes,) labelled pixels of each class.
        balance: Exponent in [0, 1].

    Returns:
        (num_classes,) float32; 1 for a class without a pixel.

    >>> class_weights(np.array([75, 25, 0]), 1.0)
    array([0.6666667, 2.       , 1.       ], dtype=float32)
    """
    present = counts > 0
    share = counts[present] / counts.sum()
    weights = np.ones(len(counts), np.float32)
    own = np.maximum(share, SMALLEST_SHARE) ** -balance
    weights[present] = own / (own * share).sum()
    return weights


def pixel_loss(
    logits: Tensor,
    labels: Tensor,
    config: TrainingConfig,
    weights: Tensor | None = None,
    *,
    in_any_order: bool = False,
) -> Tensor:
    """Mean cross entropy over labelled pixels; with OHEM over the hardest share of them.

    Args:
        logits: (B, num_classes, h, w).
        labels: (B, H, W) trainIds, 255 ignored.
        config: `loss_size` says which of the two resolutions is resized to the other.
        weights: (num_classes or more,), weight of a pixel of each class; None: equal weights.
        in_any_order: Add the losses by their size, so that pixels that change places together with
            their scores change no bit of the result.

    Returns:
        A scalar; zero if no pixel is labelled.
    """
    size = logits.shape[-2:]
    if config.loss_size == "logits":
        labels = functional.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")
        labels = labels[:, 0]
    else:
        logits = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear")
    weights = None if weights is None else weights[: logits.shape[1]]
    losses = functional.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)),
        labels.long(),
        weights,
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    is_labelled = labels != IGNORE_INDEX
    if config.ohem_fraction < 1.0:
        num_kept = max(1, int(config.ohem_fraction * int(is_labelled.sum())))
        return losses.flatten().topk(num_kept).values.mean()
    lost = losses.flatten().sort().values.sum() if in_any_order else losses.sum()
    if weights is None:
        return lost / is_labelled.sum().clamp(min=1)
    counted = weights[labels[is_labelled].long()]
    total = counted.sort().values.sum() if in_any_order else counted.sum()
    return lost / total.clamp(min=torch.finfo(total.dtype).tiny)
