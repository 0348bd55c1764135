"""The one scaling of pixels that every model input goes through."""

import torch
from torch import Tensor


def to_input(images: Tensor) -> Tensor:
    """(..., H, W) uint8 in 0..255 -> (..., H, W) float32 in [-1, 1]: (2v - 255) / 255.

    The scaling is odd about the middle of the range, bit for bit: 255 - v maps to the negative of
    what v maps to, so that a negative-positive cipher is an exact change of sign.

    >>> to_input(torch.tensor([0, 51, 204, 255], dtype=torch.uint8)).tolist()
    [-1.0, -0.6000000238418579, 0.6000000238418579, 1.0]
    """
    return images.to(torch.float32).mul_(2).sub_(255).div_(255)
