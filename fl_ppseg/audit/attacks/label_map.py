"""Label maps: what the thief of a training node holds beside ciphertexts.

Adversary: the thief of a node: label maps and ciphertexts of the targets, public images of the same
classes with their label maps; no key.
Method: a label map shows outlines in plain, and `painted` gives each class its mean colour in
public images. `labelled_network` is the survivor network, or with `encrypt` the inverse network,
with that picture and the label map as further input.
Must succeed if classes differ in colour and outline, whatever the cipher: label maps are not
encrypted. If all labels are ignored, it must do no better than without them.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fl_ppseg.audit.attacks.reader import (
    DEFAULT_BUDGET,
    Budget,
    Encrypt,
    Planes,
    as_input,
    reconstruct,
    seen_of,
)

Labels = npt.NDArray[np.uint8]
"""(n, h, w) trainIds, 255 ignored."""


def painted(public: Planes, public_labels: Labels, labels: Labels) -> Planes:
    """Label maps of the targets -> (m, 3, H, W) uint8, each class in its mean public colour.

    Args:
        public: (n, 3, H, W) uint8, public images.
        public_labels: (n, h, w), their label maps, of any size.
        labels: (m, h, w), label maps of the targets.
    """
    size = public.shape[2:]
    return paint(at_size(labels, size), mean_colours(public, at_size(public_labels, size)))


def mean_colours(images: Planes, labels: Labels) -> Planes:
    """(n, 3, H, W) and (n, H, W) -> (3, 256) uint8, mean per class; of all images if unseen."""
    areas = np.bincount(labels.ravel(), minlength=256)
    sums = [np.bincount(labels.ravel(), images[:, c].ravel(), minlength=256) for c in range(3)]
    colours = np.stack(sums) / np.maximum(areas, 1)
    colours[:, areas == 0] = images.mean(axis=(0, 2, 3))[:, None]
    return colours.round().astype(np.uint8)


def paint(labels: Labels, colours: Planes) -> Planes:
    """(m, H, W) and (3, 256) -> (m, 3, H, W) uint8."""
    return np.ascontiguousarray(colours[:, labels].swapaxes(0, 1))


def labelled_network(
    public: Planes,
    public_labels: Labels,
    ciphertexts: Planes,
    labels: Labels,
    form: str | None,
    *,
    num_classes: int,
    block_size: int,
    encrypt: Encrypt | None = None,
    budget: Budget = DEFAULT_BUDGET,
) -> Planes:
    """Ciphertexts and label maps of the targets -> (m, 3, H, W) uint8 reconstructions.

    Args:
        public: (n, 3, H, W) uint8, public images.
        public_labels: (n, h, w), their label maps, of any size.
        ciphertexts: (m, 3, H, W) uint8, of the targets.
        labels: (m, h, w), label maps of the targets.
        form: The canonical form that the cipher leaves; None if it has none.
        num_classes: Classes of the label maps.
        block_size: Side M of a block in pixels.
        encrypt: The cipher with the adversary's own keys; None: only the canonical form of a
            ciphertext is read.
        budget: Of the training.
    """

    size = public.shape[2:]
    own_labels, their_labels = (at_size(maps, size) for maps in (public_labels, labels))
    colours = mean_colours(public, own_labels)

    def read(planes: Planes) -> Tensor:
        seen = seen_of(planes, form, block_size, raw=encrypt is not None)
        picture = as_input(paint(planes[:, 3], colours))
        return torch.cat([seen, picture, one_hot(planes[:, 3], num_classes)], dim=1)

    own, targets = (
        np.concatenate([images, maps[:, None]], axis=1)
        for images, maps in ((public, own_labels), (ciphertexts, their_labels))
    )
    return reconstruct(own, targets, read, block_size, encrypt, guides=num_classes, budget=budget)


def one_hot(labels: Labels, num_classes: int) -> Tensor:
    """(n, H, W) trainIds -> (n, C, H, W) float; ignored pixels are of no class."""
    places = torch.from_numpy(labels).long().clamp(max=num_classes)
    hot = functional.one_hot(places, num_classes + 1)[..., :num_classes]
    return hot.permute(0, 3, 1, 2).float()


def at_size(labels: Labels, size: tuple[int, ...]) -> Labels:
    """(n, h, w) -> (n, H, W), the nearest label of each place."""
    rows, columns = (
        (2 * np.arange(expected) + 1) * found // (2 * expected)
        for found, expected in zip(labels.shape[1:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]
