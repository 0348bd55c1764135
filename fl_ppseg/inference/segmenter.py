"""A trained model that segments queries: ciphertexts in, classes and confidence out."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fl_ppseg.data.classes import ClassTable
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.learning.evaluation import most_likely
from fl_ppseg.learning.sliding import SlidingWindows
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError


class Segmentation(NamedTuple):
    """The classes of an image's pixels, and how sure the model is of them."""

    labels: Pixels
    """(h, w) uint8 trainIds."""
    confidence: NDArray[np.float32]
    """(h, w) softmax probability of the class, 0 to 1."""


class Segmenter:
    """A model in evaluation mode, with all that its users need to know of it.

    Attributes:
        spec: What a query must be.
        classes: The class table; a label is a position in `classes.names`.
        name: What the model is called, e.g. the arm that trained it.
    """

    def __init__(self, model: SETR, spec: QuerySpec, classes: ClassTable, name: str) -> None:
        """Take a model with its weights, on the device where it is to compute."""
        self.spec, self.classes, self.name = spec, classes, name
        self._frames = SlidingWindows(model.eval())

    def check_size(self, height: int, width: int) -> None:
        """Check that a query's sides, in pixels, are what the model takes.

        Raises:
            InputError: They are not; the message names the sizes expected.
        """
        expected, block = self.spec.image_size, self.spec.block_size
        if self.spec.fit == "resize" and (height, width) != expected:
            raise InputError(
                f"expected a query of {expected[0]} x {expected[1]} pixels (height x width), got "
                f"{height} x {width}; scale the image before it is encrypted"
            )
        if height < expected[0] or width < expected[1] or height % block or width % block:
            raise InputError(
                f"expected a query of whole blocks of {block} pixels and at least {expected[0]} x "
                f"{expected[1]} (height x width), got {height} x {width}; pad the image before it "
                "is encrypted"
            )

    def segment_batch(
        self, queries: Pixels, size: tuple[int, int] | None = None
    ) -> list[Segmentation]:
        """(B, 3, H, W) uint8 queries of one size -> B segmentations at `size` = (h, w).

        Args:
            queries: As the spec says.
            size: Of the answers; by default that of the queries.

        Raises:
            InputError: Not such images, or of a size that the model does not take.
        """
        if queries.dtype != np.uint8 or queries.ndim != 4 or queries.shape[1] != 3:
            raise InputError(
                f"expected queries of uint8 (batch, 3, height, width), got {queries.dtype} "
                f"{queries.shape}"
            )
        self.check_size(*queries.shape[-2:])
        images = torch.from_numpy(np.ascontiguousarray(queries)).to(self.device)
        with torch.inference_mode():
            labels, confidence = most_likely(self._frames, images, size or queries.shape[-2:])
        return [
            Segmentation(*pair)
            for pair in zip(_uint8(labels), confidence.cpu().numpy(), strict=True)
        ]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self._frames.parameters()).device


def _uint8(labels: Tensor) -> Pixels:
    found: Pixels = labels.to(torch.uint8).cpu().numpy()
    return found
