"""Size of the model that a section `model` describes, counted on torch's `meta` device.

Bounded before a model is built: settings come from configs and checkpoints of other parties, and
from the coordinator's requests.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import torch

from fl_ppseg.setr.model import MLA_HEAD, UP_HEADS, assemble, auxiliary_sizes
from fl_ppseg.system.errors import InputError

if TYPE_CHECKING:
    from fl_ppseg.config.sections import ModelConfig

MAX_PARAMETERS: Final = 1_000_000_000
"""Three times SETR with a ViT-L; 4 GB of weights, of which training holds about six copies."""
MAX_CLASSES: Final = 1_024
"""Most classes of a label map of 8 bits."""
MAX_FEATURES: Final = 2**30
"""Numbers of the largest feature map of an image: 4 GiB."""

Shapes = Mapping[str, tuple[int, ...]]


@lru_cache(maxsize=8)
def tensor_shapes(
    config: "ModelConfig", num_classes: int, image_size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """The tensors of the model that a config describes, by name.

    Args:
        config: Section `model`.
        num_classes: Channels of the scores.
        image_size: (height, width) in pixels.

    Raises:
        InputError: The settings do not fit each other, or make a model beyond the bounds.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise InputError(f"expected 1 to {MAX_CLASSES} classes, got {num_classes}")
    _check_width(config, image_size)
    bare = config.model_copy(update={"pretrained": False, "weights": None})
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        model = assemble(bare, num_classes, image_size)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    number = num_elements(shapes)
    if number > MAX_PARAMETERS:
        raise InputError(
            f"section model makes {number / 1e6:,.0f} million weights; at most "
            f"{MAX_PARAMETERS / 1e6:,.0f} million are built: choose a smaller backbone or decoder"
        )
    _check_features(config, num_classes, model.grid)
    return shapes


def num_elements(shapes: Shapes) -> int:
    """Numbers in all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())


def _check_width(config: "ModelConfig", image_size: tuple[int, int]) -> None:
    """Refuse models that would be slow even to count: each layer takes time, whatever its width."""
    depth, width = config.depth or 0, config.embed_dim or 0
    side = config.patch_size or 1
    tokens = math.prod(max(1, pixels // side) for pixels in image_size)
    number = 12 * depth * width**2 + (tokens * width if config.backbone == "vit" else 0)
    if number > 2 * MAX_PARAMETERS:
        raise InputError(
            f"section model makes more than {number / 1e6:,.0f} million weights; at most "
            f"{MAX_PARAMETERS / 1e6:,.0f} million are built: choose a smaller backbone"
        )


def _check_features(config: "ModelConfig", num_classes: int, grid: tuple[int, int]) -> None:
    """Refuse features and scores of a head beyond `MAX_FEATURES`."""
    if config.decoder == "mla":
        steps, scale = 1, config.up_scale or MLA_HEAD["up_scale"]
    else:
        sizes = UP_HEADS[config.decoder]
        steps, scale = config.num_convs or sizes.num_convs, config.up_scale or sizes.up_scale
    places = math.prod(grid) * scale ** (2 * steps)
    inside = math.prod(grid) * scale ** (2 * (steps - 1))
    largest = max(places * num_classes, inside * config.decoder_channels)
    said = f"model.num_convs {steps} and model.up_scale {scale} enlarge"
    if config.decoder != "mla" and config.num_auxiliary:
        extra = auxiliary_sizes(config)
        wide = math.prod(grid) * extra.up_scale ** (2 * extra.num_convs)
        if wide * num_classes > largest:
            largest = wide * num_classes
            said = f"model.auxiliary_convs {extra.num_convs} enlarges"
    if largest > MAX_FEATURES:
        raise InputError(
            f"{said} {grid[0]}x{grid[1]} patches to {largest / 1e6:,.0f} million values "
            f"per image; at most {MAX_FEATURES / 1e6:,.0f} million are made: choose smaller ones"
        )
