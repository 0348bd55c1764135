"""Building a SETR, after a check of its size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fl_ppseg.setr.model import SETR, assemble
from fl_ppseg.setr.sizes import tensor_shapes

if TYPE_CHECKING:
    from fl_ppseg.config.sections import ModelConfig


def build_setr(
    config: "ModelConfig", num_classes: int, image_size: tuple[int, int], *, seed: int
) -> SETR:
    """Build the model that a config describes; `config.weights` is left to the caller.

    Args:
        config: Section `model`.
        num_classes: Channels of the scores.
        image_size: (height, width) in pixels.
        seed: Draws all weights that are not loaded; the global generator stays untouched.

    Raises:
        InputError: The settings do not fit each other, make a model beyond the bounds of
            `fl_ppseg.setr.sizes`, or published weights cannot be had.
    """
    tensor_shapes(config, num_classes, image_size)
    with _seeded(seed):
        return assemble(config, num_classes, image_size)


def build_architecture(
    config: "ModelConfig", num_classes: int, image_size: tuple[int, int]
) -> SETR:
    """Build a model without loading weights; the caller loads all of them.

    Args:
        config: Section `model`.
        num_classes: Channels of the scores.
        image_size: (height, width) in pixels.
    """
    bare = config.model_copy(update={"pretrained": False, "weights": None})
    return build_setr(bare, num_classes, image_size, seed=0)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, and restore its state at the end."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        yield
