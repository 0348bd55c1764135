"""The convolutions of those who read plates and faces: crops in, features of columns out."""

from math import ceil
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH: Final = 128
"""Channels of a column."""
STRIDE: Final = 4
"""Pixels between columns; divides the side of a block."""


class Columns(nn.Module):
    """(B, C, H, W) uint8 -> (B, WIDTH, W / 4), what stands in each column of a crop.

    Args:
        channels: C, 3 for a picture, 6 for one with the sorted blocks beside it. These have no
            places within a block, so they are read a block at a time.
        size: (H, W), multiples of `block_size`.
        block_size: Side M of a block, a multiple of 4.
    """

    def __init__(self, channels: int, size: tuple[int, int], block_size: int) -> None:
        super().__init__()
        self.scale = block_size // STRIDE
        self.first = nn.Conv2d(3, 24, 3, 2, 1)
        self.second = nn.Conv2d(24, 48, 3, 2, 1)
        self.blocks = nn.Conv2d(3, 48, block_size, block_size) if channels > 3 else None
        self.norm = nn.GroupNorm(8, 48)
        self.third = nn.Conv2d(48, 64, 3, (2, 1), 1)
        self.fourth = nn.Conv2d(64, 96, 3, (2, 1), 1)
        self.fold = nn.Conv2d(96, WIDTH, (ceil(size[0] / 16), 1))
        self.place = nn.Parameter(torch.zeros(1, WIDTH, size[1] // STRIDE))
        self.along = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 7, padding=3) for _ in range(2))

    def forward(self, crops: Tensor) -> Tensor:
        """Read."""
        seen = crops.float() / 127.5 - 1
        found = self.second(functional.gelu(self.first(seen[:, :3])))
        if self.blocks is not None:
            found = found + self.blocks(seen[:, 3:]).repeat_interleave(
                self.scale, 2
            ).repeat_interleave(self.scale, 3)
        found = functional.gelu(self.third(functional.gelu(self.norm(found))))
        columns = self.fold(functional.gelu(self.fourth(found))).squeeze(2) + self.place
        for layer in self.along:
            columns = columns + layer(functional.gelu(columns))
        read: Tensor = columns
        return read
