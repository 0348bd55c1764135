"""The task score: mIoU of a segmenter of plain images on what was reconstructed."""

import numpy as np
import pytest
import torch
from audit_streets import streets
from torch import Tensor, nn

from fl_ppseg.audit.segmenter import Segmenter, shipped_segmenter
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.setr.model import Logits


class ByBrightness(nn.Module):
    """Class 1 where a pixel is bright, class 0 elsewhere."""

    def forward(self, images: Tensor) -> Logits:
        grey = images.mean(dim=1, keepdim=True)
        return Logits(torch.cat([-grey, grey], dim=1), ())


def test_it_counts_pixels_over_all_images_and_leaves_ignored_ones_out() -> None:
    images = np.zeros((2, 3, 2, 2), np.uint8)
    images[0, :, 0] = 255
    labels = np.array([[[1, 1], [0, 0]], [[1, 255], [0, 0]]], np.uint8)
    # class 0: 4 right of 5 told or true; class 1: 2 right of 3 true, none told in vain
    wanted = 100 * (4 / 5 + 2 / 3) / 2
    assert Segmenter(ByBrightness(), 2).miou(images, labels) == pytest.approx(wanted)


def test_the_shipped_one_knows_its_own_classes_alone() -> None:
    assert shipped_segmenter(load_class_table("camvid"), (64, 128)) is None
    segmenter = shipped_segmenter(load_class_table("cityscapes"), (32, 64))
    assert segmenter is not None
    images, labels = streets(2, 0)
    large = images.repeat(2, axis=2).repeat(2, axis=3)
    assert 0 <= segmenter.miou(large, labels) <= 100
    assert not segmenter.model.training
