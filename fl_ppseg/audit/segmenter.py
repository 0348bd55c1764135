"""The task score: mIoU of a segmenter of plain images on reconstructed ones.

If a segmenter recognises streets and cars in a reconstruction, so can a person who holds it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from torch import nn

from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import ClassTable
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.leaks.scores import Images
from fl_ppseg.learning.evaluation import evaluate, score

SHIPPED_CLASSES: Final = "cityscapes"
"""Name of the class table of the package's own weights."""


class Segmenter:
    """A trained segmenter of plain images.

    Args:
        model: (B, 3, H, W) in [-1, 1] -> logits `main`.
        num_classes: Classes of its output.
    """

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        self.model = model
        self.num_classes = num_classes

    def miou(self, images: Images, labels: npt.NDArray[np.uint8]) -> float:
        """mIoU in percent, as of `fl_ppseg.learning.evaluation.score`.

        Args:
            images: (n, 3, H, W), plain or reconstructed, of a size that the model takes.
            labels: (n, h, w) trainIds, 255 ignored, of any size.
        """
        counts, _ = evaluate(self.model, zip(images, labels, strict=True), self.num_classes)
        return score(counts).mIoU


def shipped_segmenter(classes: ClassTable, image_size: tuple[int, int]) -> Segmenter | None:
    """The segmenter that comes with the package; None for another class table."""
    if classes.name != SHIPPED_CLASSES:
        return None
    config = Config(data=DataConfig(image_size=image_size))
    model = initial_model(config, classes.num_classes, seed=0)
    return Segmenter(model.eval(), classes.num_classes)
