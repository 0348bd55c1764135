"""A SETR that is built in a moment, and images for it."""

import torch
from torch import Tensor

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.model import SETR

IMAGE_SIZE = (16, 40)
TINY: dict[str, object] = {
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "decoder_channels": 16,
    "num_convs": None,
    "weights": None,
}


def tiny(*, num_classes: int = 19, size: tuple[int, int] = IMAGE_SIZE, **fields: object) -> SETR:
    config = ModelConfig.model_validate(TINY | fields)
    return build_setr(config, num_classes, size, seed=0).eval()


def images(size: tuple[int, int] = IMAGE_SIZE, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, 3, *size, generator=generator) * 2 - 1
