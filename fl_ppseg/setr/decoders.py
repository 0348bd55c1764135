"""SETR's decoders with the parameter shapes of mmsegmentation: naive, pup and mla.

Every head ends in dropout, a 1x1 classifier and a bilinear upsampling, in this order. In the
paper the upsampling comes first; the two commute exactly, since a classifier without kernel is
linear in the channels, dropout drops whole channels, and bilinear weights sum to one. Upsampling
scores instead of features costs a fraction of the time and memory.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Final, Literal

import torch
from torch import Tensor, nn

NormName = Literal["group", "batch"]
Levels = tuple[Tensor, ...]
"""Feature maps (B, C, grid_h, grid_w), one per tap."""


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with about 16 channels per group (Wu and He, ECCV 2018, table 3)."""
    return nn.GroupNorm(math.gcd(channels, max(channels // 16, 1)), channels)


NORMS: Final[dict[NormName, Callable[[int], nn.Module]]] = {
    "group": group_norm,
    "batch": nn.BatchNorm2d,
}


def conv_block(in_channels: int, channels: int, kernel_size: int, norm: NormName) -> nn.Sequential:
    """Convolution without bias, normalisation, ReLU: (B, in, h, w) -> (B, channels, h, w)."""
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False),
        norm=NORMS[norm](channels),
        activation=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)


def upsample(scale: int) -> nn.Upsample:
    """Bilinear upsampling by an integer: (B, C, h, w) -> (B, C, scale*h, scale*w)."""
    return nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)


class Classifier(nn.Module):
    """The end of every head: (B, C, h, w) -> (B, num_classes, up_scale*h, up_scale*w).

    Args:
        channels: Channels C of the features.
        num_classes: Channels of the result.
        up_scale: Upsampling of the result.
        dropout: Chance of a whole channel to be dropped, in [0, 1).
    """

    def __init__(self, channels: int, num_classes: int, up_scale: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.conv = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.upsample = upsample(up_scale)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Score each position, then upsample the scores."""
        scores: Tensor = self.upsample(self.conv(self.dropout(features)))
        return scores


class UpHead(nn.Module):
    """Naive and progressive upsampling (SETR, section 3.3), as main or auxiliary head.

    `num_convs` times: convolution, normalisation, ReLU, upsampling by `up_scale`; then the
    classifier. Naive is (1, 4) with kernel 1, PUP is (4, 2) with kernel 3.

    Args:
        in_channels: Width D of the tapped level.
        num_classes: Channels of the result.
        level: Which of the levels it reads.
        channels: Channels of its convolutions.
        num_convs: How many of them, at least 1.
        up_scale: Upsampling after each.
        kernel_size: Their side, odd.
        norm: Normalisation after each.
        dropout: Before the classifier.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        level: int,
        channels: int,
        num_convs: int,
        up_scale: int,
        kernel_size: int,
        norm: NormName = "group",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.level = level
        stages = OrderedDict[str, nn.Module](
            conv1=conv_block(in_channels, channels, kernel_size, norm)
        )
        for number in range(2, num_convs + 1):
            stages[f"upsample{number}"] = upsample(up_scale)
            stages[f"conv{number}"] = conv_block(channels, channels, kernel_size, norm)
        self.stages = nn.Sequential(stages)
        self.classifier = Classifier(channels, num_classes, up_scale, dropout)

    def forward(self, levels: Levels) -> Tensor:
        """Level (B, D, h, w) -> scores (B, num_classes, h*s, w*s), s = up_scale**num_convs."""
        scores: Tensor = self.classifier(self.stages(levels[self.level]))
        return scores


class LinearHead(nn.Module):
    """Auxiliary head of MLA, a bare classifier: level (B, C, h, w) -> (B, num_classes, h, w)."""

    def __init__(
        self, in_channels: int, num_classes: int, *, level: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.level = level
        self.classifier = Classifier(in_channels, num_classes, up_scale=1, dropout=dropout)

    def forward(self, levels: Levels) -> Tensor:
        """Score one of the levels at its own resolution."""
        scores: Tensor = self.classifier(levels[self.level])
        return scores


class MLANeck(nn.Module):
    """Multi-level aggregation (SETR, figure 1c): levels summed from the deepest up.

    Args:
        in_channels: Width D of every level.
        channels: Channels of the results.
        num_levels: Number of levels.
        norm: Normalisation after each convolution.
    """

    def __init__(
        self, in_channels: int, channels: int, num_levels: int, norm: NormName = "group"
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            conv_block(in_channels, channels, 1, norm) for _ in range(num_levels)
        )
        self.outputs = nn.ModuleList(
            conv_block(channels, channels, 3, norm) for _ in range(num_levels)
        )

    def forward(self, levels: Levels) -> Levels:
        """Levels from shallow to deep, (B, D, h, w) -> deepest first, (B, channels, h, w)."""
        laterals = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=True)]
        sums = accumulate(reversed(laterals))
        return tuple(output(total) for output, total in zip(self.outputs, sums, strict=True))


class MLAHead(nn.Module):
    """Main head of MLA: convolutions on each level, all concatenated, one classifier.

    Args:
        in_channels: Channels of every level.
        num_classes: Channels of the result.
        num_levels: Number of levels.
        channels: Channels of its convolutions, on each level.
        num_convs: How many of them on each level, at least 1.
        up_scale: Upsampling of the result.
        norm: Normalisation after each convolution.
        dropout: Before the classifier.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        num_levels: int,
        channels: int,
        num_convs: int,
        up_scale: int,
        norm: NormName = "group",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = (in_channels, *[channels] * num_convs)
        self.branches = nn.ModuleList(
            nn.Sequential(*(conv_block(a, b, 3, norm) for a, b in pairwise(widths)))
            for _ in range(num_levels)
        )
        self.classifier = Classifier(num_levels * channels, num_classes, up_scale, dropout)

    def forward(self, levels: Levels) -> Tensor:
        """Levels (B, C, h, w) -> scores (B, num_classes, up_scale*h, up_scale*w)."""
        branches = [branch(level) for branch, level in zip(self.branches, levels, strict=True)]
        scores: Tensor = self.classifier(torch.cat(branches, dim=1))
        return scores
