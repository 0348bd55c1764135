"""From images to a model's tokens, and from blocks that it read back to an image."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fl_ppseg.data.blocks import Geometry, from_blocks, to_blocks
from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.canonical import canonical
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Arrays

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def read_blocks(images: Images, form: str | None, block_size: int) -> Floats:
    """(n, 3, H, W) -> (n, N, C M²) in [-1, 1], the blocks in the order that the embedding reads.

    Args:
        images: (n, 3, H, W), the model's input.
        form: Canonical form of an invariant embedding, its gaps left out; None: plain blocks.
        block_size: Side M of a block in pixels.
    """
    shown = to_input(torch.from_numpy(images))
    if form is not None:
        shown = canonical(shown, form, block_size)[:, :3]
    blocks: Floats = to_blocks(shown, block_size).double().numpy()
    return blocks


def image_of(blocks: Floats, form: str | None, geometry: Geometry) -> Images:
    """(N, C M²) in [-1, 1], of `read_blocks` -> (1, 3, H, W), an image with these blocks."""
    levels = np.clip(np.rint((blocks + 1) * 127.5), 0, 255)
    if form in ("magnitudes", "pixel-magnitudes"):
        levels = (255 + levels) // 2  # the form holds the distance from mid-grey
    return from_blocks(levels.astype(np.uint8), geometry)[None]


def embedded(network: SETR, images: Images) -> Floats:
    """(k, 3, H, W) -> (k, N, D), the tokens without their positions."""
    with torch.no_grad():
        tokens: Tensor = network.backbone.patch_embed(to_input(torch.from_numpy(images)))
    return np.asarray(tokens.double().numpy())


def first_layer(network: SETR, images: Images, part: str) -> Floats:
    """(k, 3, H, W) -> (k, N, D), the input of a part of the first layer, e.g. `mlp`."""
    caught: list[Tensor] = []

    def catch(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        caught.append(arguments[0])

    hook = network.backbone.blocks[0].get_submodule(part).register_forward_pre_hook(catch)
    with torch.no_grad():
        network.backbone.forward_intermediates(
            to_input(torch.from_numpy(images)), indices=[0], stop_early=True
        )
    hook.remove()
    num_blocks = network.grid[0] * network.grid[1]
    return np.asarray(caught[0][:, -num_blocks:].double().numpy())


def load(network: SETR, arrays: Arrays) -> None:
    """Load all or some of a model's weights."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    network.load_state_dict(tensors, strict=False)
