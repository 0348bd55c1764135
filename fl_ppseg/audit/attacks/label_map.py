"""Label maps: what the thief of a training node holds beside ciphertexts.

Adversary: the thief of a node: label maps and ciphertexts of the targets, public images of the same
classes with their label maps; no key.
Method: a label map shows outlines in plain, and `painted` gives each class its mean colour in
public images. `labelled_network` is the survivor network, or with `encrypt` the inverse network,
with that picture and the label map as further input.
`answer_network` has the label map alone: the same network without any ciphertext.
Where label maps moved with the pixels of each block, each pixel has its label and no place: the
network gets the labels in the order of the canonical form.
Must succeed if classes differ in colour and outline, whatever the cipher, where label maps are in
place. If all labels are ignored, it must do no better than without them.
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
from fl_ppseg.audit.attacks.starts import LABEL_MAP
from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks
from fl_ppseg.data.nearest import nearest
from fl_ppseg.setr.canonical import LUMA

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
    return paint(nearest(labels, size), mean_colours(public, nearest(public_labels, size)))


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
    are_moved: bool = False,
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
        are_moved: Whether the label maps of the targets are in the order of their ciphertexts; the
            form is then one that keeps pixels whole.
        budget: Of the training.
    """

    size = public.shape[2:]
    own_labels, their_labels = (nearest(maps, size) for maps in (public_labels, labels))
    colours = mean_colours(public, own_labels)

    def read(planes: Planes) -> Tensor:
        seen = seen_of(planes, form, block_size, raw=encrypt is not None)
        if are_moved:
            known = labels_in_order(planes[:, :3], planes[:, 3], str(form), block_size)
            return torch.cat([seen, one_hot(known, num_classes)], dim=1)
        picture = as_input(paint(planes[:, 3], colours))
        return torch.cat([seen, picture, one_hot(planes[:, 3], num_classes)], dim=1)

    own, targets = (
        np.concatenate([images, maps[:, None]], axis=1)
        for images, maps in ((public, own_labels), (ciphertexts, their_labels))
    )
    return reconstruct(
        *(own, targets, read, block_size, encrypt),
        guides=0 if are_moved else num_classes,
        start=LABEL_MAP if form is None and encrypt is None else form,
        budget=budget,
    )


def answer_network(
    public: Planes,
    public_labels: Labels,
    labels: Labels,
    *,
    num_classes: int,
    block_size: int,
    budget: Budget = DEFAULT_BUDGET,
) -> Planes:
    """Label maps of the targets -> (m, 3, H, W) uint8 reconstructions, from nothing else.

    `labelled_network` whose input from ciphertexts is zero: what a published segmentation, or an
    answer of a service without an error, tells of an image.

    Args:
        public: (n, 3, H, W) uint8, public images.
        public_labels: (n, h, w), their label maps, of any size.
        labels: (m, h, w), label maps of the targets, in place.
        num_classes: Classes of the label maps.
        block_size: Side M of a block in pixels.
        budget: Of the training.
    """
    unseen = np.zeros((len(labels), *public.shape[1:]), np.uint8)
    return labelled_network(
        *(public, public_labels, unseen, labels, None),
        num_classes=num_classes,
        block_size=block_size,
        budget=budget,
    )


def labels_in_order(images: Planes, labels: Labels, form: str, block_size: int) -> Labels:
    """Labels in the order in which the canonical form has the pixels of each block.

    Equal pixels are in the order of their labels, so that the result is the same for all
    ciphertexts of an image whose labels moved with its pixels.

    Args:
        images: (n, 3, H, W) uint8, plain or encrypted.
        labels: (n, H, W), of their pixels.
        form: `pixels` or `pixel-magnitudes`.
        block_size: Side M of a block in pixels.
    """
    planes = np.concatenate([images, labels[:, None]], axis=1)
    blocks = to_blocks(planes, block_size)
    values = blocks.reshape(*blocks.shape[:2], 4, -1).astype(np.int64)
    own = values[:, :, 3]
    shown = np.abs(2 * values[:, :, :3] - 255) if form == "pixel-magnitudes" else values[:, :, :3]
    r, g, b = shown.transpose(2, 0, 1, 3)
    luma = (LUMA[0] * r + LUMA[1] * g + LUMA[2] * b) >> 8
    order = ((luma << 32) | (r << 24) | (g << 16) | (b << 8) | own).argsort(axis=-1)
    moved = np.take_along_axis(own, order, axis=-1).astype(np.uint8)
    geometry = Geometry.of_image((1, *labels.shape[1:]), block_size)
    return from_blocks(moved, geometry)[:, 0]


def one_hot(labels: Labels, num_classes: int) -> Tensor:
    """(n, H, W) trainIds -> (n, C, H, W) float; ignored pixels are of no class."""
    places = torch.from_numpy(labels).long().clamp(max=num_classes)
    hot = functional.one_hot(places, num_classes + 1)[..., :num_classes]
    return hot.permute(0, 3, 1, 2).float()
