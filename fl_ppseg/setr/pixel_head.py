"""Scores of every pixel of a ciphertext: a head that never sees an order inside a block.

A cipher that moves whole pixels leaves each pixel's colour (or its distance from mid-grey), and the
block as a set of them. The head reads each pixel within its block's canonical form: the pixels in
their sorted order are a sequence, over which two short convolutions look at neighbours in colour;
the block's token says what is there and where. Features, score and gradient of a pixel depend on
the set alone, and equal pixels share their scores: under any permutation inside a block the scores
move with the pixels, to the bit, and labels that moved alike give the same loss.

    f_p = [colour, colour - mean of the block, rank]                 7 numbers a pixel
    h_p = GELU(A [f_p, conv(conv(f))_p] * (1 + S t) + T t)           t: the block's token, T: 3x3
    s_p = O h'_p + (Q t) e(h'_p), h' = GELU(M h)                     Q t: classes x k, e: k numbers
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.setr.canonical import LUMA, magnitudes

NUM_FEATURES: Final = 7
WIDTH: Final = 64
"""Channels of a pixel."""
SEQUENCE_WIDTH: Final = 32
"""Channels of the convolutions over the sorted pixels."""
SEQUENCE_KERNEL: Final = 7
QUERY_WIDTH: Final = 16
"""Numbers that a token's classes and a pixel are compared by, k."""
PLACED: Final = "pixels"
"""What the head reads of plain images."""
WHOLE_PIXELS: Final = (PLACED, "pixel-magnitudes")
"""Canonical forms that keep the values of a pixel together."""


class PixelHead(nn.Module):
    """(B, 3, H, W) images and (B, D, grid_h, grid_w) tokens -> (B, num_classes, H, W) scores.

    Starts as zero: a model that gets it scores as it did before.

    Args:
        embed_dim: Width D of a token.
        num_classes: Channels of the result.
        form: `pixels` or `pixel-magnitudes`: what of a pixel survives the cipher.
        block_size: Side of a block in pixels, M.
    """

    def __init__(self, embed_dim: int, num_classes: int, form: str, block_size: int) -> None:
        super().__init__()
        self.form, self.block_size = form, block_size
        self.sequence = nn.Sequential(
            nn.Conv1d(NUM_FEATURES, SEQUENCE_WIDTH, SEQUENCE_KERNEL, padding="same"),
            nn.GELU(),
            nn.Conv1d(SEQUENCE_WIDTH, SEQUENCE_WIDTH, SEQUENCE_KERNEL, padding="same"),
            nn.GELU(),
        )
        self.pixel = nn.Linear(NUM_FEATURES + SEQUENCE_WIDTH, WIDTH)
        self.scale = nn.Conv2d(embed_dim, WIDTH, kernel_size=1)
        self.shift = nn.Conv2d(embed_dim, WIDTH, kernel_size=3, padding=1)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(WIDTH, QUERY_WIDTH)
        self.query = nn.Conv2d(embed_dim, num_classes * QUERY_WIDTH, kernel_size=3, padding=1)
        self.classifier = nn.Linear(WIDTH, num_classes)
        for layer in (self.scale, self.query, self.classifier):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Score each pixel within its block."""
        batch, _, height, width = images.shape
        blocks = self._blocks(images)
        features, places, group = sorted_features(blocks)
        features = features.to(tokens.dtype)
        # all in sorted order, so that nothing that is computed depends on another
        near = self.sequence(features.transpose(1, 2)).transpose(1, 2)
        hidden = self.pixel(torch.cat([features, near], dim=-1))
        hidden = hidden * (1 + _by_block(self.scale(tokens))) + _by_block(self.shift(tokens))
        hidden = functional.gelu(self.mix(functional.gelu(hidden)))
        queries = _by_block(self.query(tokens)).view(hidden.shape[0], -1, QUERY_WIDTH)
        scores = self.classifier(hidden) + self.project(hidden) @ queries.transpose(1, 2)
        alike = _mean_of_groups(scores, group)
        unsorted = torch.zeros_like(alike).scatter(1, places[..., None].expand_as(alike), alike)
        size = self.block_size
        grid = unsorted.view(batch, height // size, width // size, size, size, -1)
        # B gh gw y x C -> B C gh y gw x
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)

    def _blocks(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [-1, 1] -> (B * N, P, 3) int32, what survives of each pixel."""
        batch, channels, height, width = images.shape
        size = self.block_size
        values = ((images.float() * 255 + 255) / 2).round().int()
        parted = values.view(batch, channels, height // size, size, width // size, size)
        blocks = parted.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, channels)
        return magnitudes(blocks) if self.form == "pixel-magnitudes" else blocks


def sorted_features(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the pixels of blocks in the order of their canonical form, and their places.

    Args:
        blocks: (K, P, 3) int32 in 0..255.

    Returns:
        (K, P, 7) float: values in [-1, 1], the same less their mean over the block, rank in
        [-1, 1]; (K, P) int64, the place in the block of each pixel of the sequence; and (K, P)
        int64, which of them are equal: the number of its group, ascending from 0.
    """
    r, g, b = blocks.long().unbind(dim=-1)
    luma = (LUMA[0] * r + LUMA[1] * g + LUMA[2] * b) >> 8
    keys, places = ((luma << 24) | (r << 16) | (g << 8) | b).sort(dim=-1)
    group = functional.pad((keys.diff(dim=-1) != 0).long().cumsum(dim=-1), (1, 0))
    ordered = blocks.gather(1, places[..., None].expand_as(blocks))
    values = (2 * ordered - 255).float() / 255
    # the mean of integers, so that it does not depend on an order
    mean = (2 * ordered.sum(dim=1, keepdim=True).float() / ordered.shape[1] - 255) / 255
    rank = torch.linspace(-1, 1, blocks.shape[1], device=blocks.device)
    rank = rank[None, :, None].expand(blocks.shape[0], -1, -1)
    return torch.cat([values, values - mean, rank], dim=-1), places, group


def _mean_of_groups(scores: Tensor, group: Tensor) -> Tensor:
    """(K, P, C), (K, P) -> (K, P, C): equal pixels have no order, so they share their scores."""
    index = group[..., None].expand_as(scores)
    sums = torch.zeros_like(scores).scatter_add(1, index, scores)
    number = torch.zeros_like(scores[..., 0]).scatter_add(1, group, torch.ones_like(scores[..., 0]))
    return (sums / number.clamp(min=1)[..., None]).gather(1, index)


def resized(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinear, with (H, W) = `size`."""
    return functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def flattened(scores: Tensor, block_size: int, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) scores -> (B, C, H, W), in each block the mean of its scores.

    Args:
        scores: Of a decoder, at its own resolution.
        block_size: Side of a block in pixels.
        size: (H, W), whole blocks.
    """
    means = functional.avg_pool2d(resized(scores, size), block_size)
    return means.repeat_interleave(block_size, dim=2).repeat_interleave(block_size, dim=3)


def in_place(main: Tensor, decoder: Tensor, block_size: int) -> Tensor:
    """The owner's fusion: (B, C, H, W) scores of an image's pixels, each where it is.

    The scores of pixels contain the decoder's only in the mean over each block. Who knows the order
    has them in place and can put the decoder's own scores in the place of their means.

    Args:
        main: (B, C, H, W) scores of the ciphertext's pixels, brought back to the image's order.
        decoder: (B, C, h, w), the decoder's, which know no order.
        block_size: Side of a block in pixels.
    """
    size = (main.shape[-2], main.shape[-1])
    return main - flattened(decoder, block_size, size) + resized(decoder, size)


def _by_block(features: Tensor) -> Tensor:
    """(B, C, grid_h, grid_w) -> (B * N, 1, C)."""
    return features.permute(0, 2, 3, 1).reshape(-1, 1, features.shape[1])
