"""The network of all attacks that learn: blocks of ciphertexts in, pixels out.

It is the sum of a linear map from block to block, which suffices for a cipher that such a map
inverts, and of a residual branch: tokens of blocks with position embeddings, mixed by convolutions
and attention, then convolutions of pixels. The branch is zero before training.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH: Final = 128
"""Channels of a token."""
NUM_HEADS: Final = 4
NUM_GROUPS: Final = 8
DETAIL: Final = 16
"""Channels at the resolution of pixels."""


class Neighbours(nn.Module):
    """Convolution over 3x3 tokens: (B, D, h, w) -> (B, D, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NUM_GROUPS, WIDTH)
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix."""
        mixed: Tensor = tokens + self.mix(functional.gelu(self.norm(tokens)))
        return mixed


class Attention(nn.Module):
    """Self-attention over all tokens: (B, D, h, w) -> (B, D, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            WIDTH, NUM_HEADS, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix."""
        # B D h w -> B N D and back
        mixed: Tensor = self.layer(tokens.flatten(2).transpose(1, 2))
        return mixed.transpose(1, 2).reshape(tokens.shape)


class Reader(nn.Module):
    """(B, K, H, W) input -> (B, 3, H, W) reconstruction, roughly in [-1, 1].

    Args:
        channels: K.
        guides: How many of them, the last ones, are aligned with the image pixel by pixel; they
            are an input of the layers of pixels as well.
        block_size: Side M of a block.
        grid: (H / M, W / M).
    """

    def __init__(self, channels: int, guides: int, block_size: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.guides = guides
        self.block_size = block_size
        self.embed = nn.Conv2d(channels, WIDTH, block_size, block_size)
        self.place = nn.Parameter(torch.zeros(1, WIDTH, *grid))
        self.mix = nn.Sequential(Neighbours(), Attention(), Neighbours(), Attention(), Neighbours())
        self.direct = nn.Conv2d(channels - guides, 3 * block_size**2, block_size, block_size)
        self.unfold = nn.Conv2d(WIDTH, DETAIL * block_size**2, 1)
        self.to_pixels = nn.PixelShuffle(block_size)
        self.paint = nn.Sequential(
            nn.Conv2d(DETAIL + 3 + guides, DETAIL, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(DETAIL, 3, 3, padding=1),
        )
        for last in self.paint[-1].parameters():
            nn.init.zeros_(last)

    def forward(self, inputs: Tensor) -> Tensor:
        """Reconstruct."""
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        seen, guide = inputs.tensor_split([inputs.shape[1] - self.guides], dim=1)
        direct = self.to_pixels(self.direct(seen))
        tokens = self.mix(self.embed(inputs) + self.place)
        detail = self.to_pixels(self.unfold(tokens))
        guess: Tensor = direct + self.paint(torch.cat([detail, direct, guide], dim=1))
        return guess
