"""Building a SETR, after a check of its size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fl_ppseg.setr.model import SETR, assemble
from fl_ppseg.setr.shipped import SHIPPED, shipped_weights
from fl_ppseg.setr.sizes import tensor_shapes
from fl_ppseg.setr.weights import load_weights

if TYPE_CHECKING:
    from fl_ppseg.config.sections import ModelConfig


def build_setr(
    config: "ModelConfig", num_classes: int, image_size: tuple[int, int], *, seed: int
) -> SETR:
    """Build the model that a config describes, with the weights that it names.

    The weights of a run's checkpoint are loaded by `fl_ppseg.federation.public_weights`, and those
    of a trained model with all that belongs to it by `fl_ppseg.load`.

    Args:
        config: Section `model`.
        num_classes: Channels of the scores.
        image_size: (height, width) in pixels.
        seed: Draws all weights that are not loaded; the global generator stays untouched.

    Raises:
        InputError: The settings do not fit each other, make a model beyond the bounds of
            `fl_ppseg.setr.sizes`, or the weights cannot be had or do not fit it.
    """
    tensor_shapes(config, num_classes, image_size)
    with _seeded(seed):
        model = assemble(config, num_classes, image_size)
    if config.weights is not None:
        is_shipped = config.weights == SHIPPED
        load_weights(
            model,
            shipped_weights(config.invariant, pixel_head=config.pixel_head)
            if is_shipped
            else Path(config.weights),
        )
    return model


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
