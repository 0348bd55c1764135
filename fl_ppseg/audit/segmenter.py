"""The task score: what a segmenter of plain images tells apart in reconstructed ones.

A number that people understand: of a picture from which a segmenter reads streets and cars, so can
whoever holds it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from torch import nn

from fl_ppseg.config.sections import Config, DataConfig
from fl_ppseg.data.classes import ClassTable
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.leaks.scores import Images
from fl_ppseg.learning.evaluation import evaluate, score

SHIPPED_CLASSES: Final = "cityscapes"
"""Name of the class table that the package's own weights know."""


class Segmenter:
    """A trained segmenter of plain images.

    Args:
        model: (B, 3, H, W) in [-1, 1] -> logits `main`.
        num_classes: Classes that it tells apart.
    """

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        self.model = model
        self.num_classes = num_classes

    def miou(self, images: Images, labels: npt.NDArray[np.uint8]) -> float:
        """mIoU in percent, as `fl_ppseg.learning.evaluation.score` has it.

        Args:
            images: (n, 3, H, W), plain or reconstructed, of a size that the model takes.
            labels: (n, h, w) trainIds, 255 ignored, of any size.
        """
        counts, _ = evaluate(self.model, zip(images, labels, strict=True), self.num_classes)
        return score(counts).mIoU


def shipped_segmenter(classes: ClassTable, image_size: tuple[int, int]) -> Segmenter | None:
    """The segmenter that comes with the package, None where the classes are not its own."""
    if classes.name != SHIPPED_CLASSES:
        return None
    config = Config(data=DataConfig(image_size=image_size))
    model = initial_model(config, classes.num_classes, seed=0)
    return Segmenter(model.eval(), classes.num_classes)
