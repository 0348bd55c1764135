"""A trained model that segments queries: ciphertexts in, classes and confidence out."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_ppseg.data.classes import ClassTable
from fl_ppseg.inference.about import About
from fl_ppseg.inference.query_image import QueryImage
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.learning.evaluation import most_likely
from fl_ppseg.learning.owner_view import owner_view
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

    def __init__(
        self,
        model: SETR,
        spec: QuerySpec,
        classes: ClassTable,
        name: str,
        about: About | None = None,
    ) -> None:
        """Take a model with its weights, on the device where it is to compute.

        Args:
            model: The model.
            spec: What a query must be.
            classes: The class table.
            name: What the model is called.
            about: How it was built and trained; without it the model cannot be exported.

        Raises:
            InputError: The model answers in another order than the spec says.
        """
        answers = "permuted" if model.scores_ciphertexts else "in-place"
        if spec.answers != answers:
            raise InputError(
                f"{name}: expected a model whose answers are {spec.answers}, got one whose answers "
                f"are {answers}; give the spec that it was trained with"
            )
        self.spec, self.classes, self.name = spec, classes, name
        self._about = about
        self._frames = SlidingWindows(model.eval())

    def __repr__(self) -> str:
        """Name, queries and number of classes."""
        spec, (height, width) = self.spec, self.spec.image_size
        return (
            f"Segmenter({self.name}: {self.classes.num_classes} classes, window {height} x {width},"
            f" {spec.cipher or 'plain images'}, key {spec.key})"
        )

    @property
    def about(self) -> About:
        """How the model was built and trained.

        Raises:
            InputError: Nobody said so, or it holds an embedding adapted to a key.
        """
        if self._about is None:
            raise InputError(
                f"{self.name}: cannot be exported, for nothing is said of how it was built, or it "
                "holds an embedding adapted to a key; load the model, or give Segmenter its `about`"
            )
        return self._about

    @property
    def network(self) -> SETR:
        """The model itself, in evaluation mode."""
        return self._frames.model

    def segment(self, query: QueryImage) -> Segmentation:
        """A query -> classes and confidence of its image's pixels, at the image's own size.

        Raises:
            InputError: As `segment_alike`.
        """
        return self.segment_alike([query])[0]

    def segment_alike(self, queries: Sequence[QueryImage]) -> list[Segmentation]:
        """Queries of images of one size -> their segmentations, in one batch.

        Raises:
            InputError: There is none, their sizes differ or are not those of the spec, or the model
                needs an embedding adapted to their key.
        """
        if self.spec.adapts:
            raise InputError(
                f"{self.name}: reads a query only with its embedding adapted to the query's key; "
                "ask with fl_ppseg.Client(model).segment(image)"
            )
        for query in queries:
            if not isinstance(query, QueryImage):
                raise InputError(
                    f"expected a query, a QueryImage, got a {type(query).__name__}; make one with "
                    "fl_ppseg.encrypt(image, model.spec), or ask with "
                    "fl_ppseg.Client(model).segment(image)"
                )
        sizes = {(query.pixels.shape, query.size) for query in queries}
        if len(sizes) != 1:
            raise InputError(f"expected queries of images of one size, got {len(sizes)} sizes")
        if any((each.order is None) != (self.spec.answers == "in-place") for each in queries):
            raise InputError(
                f"{self.name}: its answers are {self.spec.answers}, and a query was made for other "
                "ones; make it with fl_ppseg.encrypt(image, model.spec)"
            )
        first = queries[0]
        size = first.size if first.place is None else first.answer_size
        pixels = np.stack([query.pixels for query in queries])
        self.check_size(*pixels.shape[-2:])
        seen = owner_view(self._frames, self.network, [query.order for query in queries])
        return [
            Segmentation(query.placed(answer.labels), query.placed(answer.confidence))
            for query, answer in zip(queries, self._segment(seen, pixels, size), strict=True)
        ]

    def with_embedding(self, tensors: Mapping[str, Tensor]) -> "Segmenter":
        """This model with some of its tensors replaced; the others are the same memory.

        An embedding adapted to a key is key material, so the copy cannot be exported.
        """
        own = self.network
        named = chain(own.named_parameters(), own.named_buffers())
        shared = {id(tensor): tensor for name, tensor in named if name not in tensors}
        copy = deepcopy(own, shared)
        copy.load_state_dict(dict(tensors), strict=False)
        spec = self.spec.model_copy(update={"adapts": False})
        return Segmenter(copy, spec, self.classes, self.name)

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
        return self._segment(self._frames, queries, size or queries.shape[-2:])

    def _segment(
        self, frames: nn.Module, queries: Pixels, size: tuple[int, int]
    ) -> list[Segmentation]:
        images = torch.tensor(queries).to(self.device)
        with torch.inference_mode():
            labels, confidence = most_likely(frames, images, size)
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
