"""Canonical forms: what survives encryption of every block, in an order independent of the key.

Two ciphertexts of one image have the same canonical form, bit for bit, whatever their keys, scope
and lifetime; anyone can compute it from a ciphertext, so a model that reads it reveals no key.

    values             all values of a block, ascending          survives `shuffle`
    magnitudes         |2v - 255| of all values, ascending       `shuffle+negative-positive`, `etc`
    pixels             RGB triples by luma, then r, g, b         survives `shuffle-spatial`
    pixel-magnitudes   the same of |2v - 255|                    `shuffle-spatial+negative-positive`

A sorted block is a smooth sequence with detail far below its level. So the gaps between neighbours
are added, as square roots, which enlarges small ones (measured: see docs/trials.md). The patch
embedding E of the ViT follows: z = E [sorted block, its gaps].
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional

Order = Callable[[Tensor], Tensor]
"""(B, N, 3, P) int32 blocks of P pixels in 0..255 -> (B, N, S, T) ordered sequences, S * T = 3P."""

LUMA: Final = (77, 150, 29)
"""Weights of R, G, B in 1/256 (ITU-R BT.601): luma is an integer in 0..255."""
GAP_SCALE: Final = 4.0
"""A gap of one grey level becomes 4 * sqrt(1/255) = 0.25, one of 64 levels becomes 2."""


def sorted_values(blocks: Tensor) -> Tensor:
    """(B, N, 3, P) int32 -> (B, N, 1, 3P), all values of each block, ascending."""
    return blocks.flatten(2).sort(dim=-1).values[:, :, None]


def sorted_pixels(blocks: Tensor) -> Tensor:
    """(B, N, 3, P) int32 -> (B, N, 3, P), the pixels of each block by luma, then r, g, b.

    Luma and pixel are packed into one integer: equal integers are equal pixels, so order is unique.
    """
    r, g, b = blocks.long().unbind(dim=2)
    luma = (LUMA[0] * r + LUMA[1] * g + LUMA[2] * b) >> 8
    ordered = ((luma << 24) | (r << 16) | (g << 8) | b).sort(dim=-1).values
    return torch.stack([(ordered >> shift) & 255 for shift in (16, 8, 0)], dim=2).int()


def magnitudes(blocks: Tensor) -> Tensor:
    """v -> |2v - 255|, the distance from mid-grey, invariant to v -> 255 - v."""
    return (2 * blocks - 255).abs()


FORMS: Final[Mapping[str, Order]] = {
    "values": sorted_values,
    "magnitudes": lambda blocks: sorted_values(magnitudes(blocks)),
    "pixels": sorted_pixels,
    "pixel-magnitudes": lambda blocks: sorted_pixels(magnitudes(blocks)),
}
"""By the names that `model.invariant` and the ciphers use."""


def gaps(sequences: Tensor) -> Tensor:
    """(..., T) int32 -> (..., T) float, signed roots of the steps to the next; the last is 0."""
    steps = functional.pad(sequences.diff(dim=-1), (0, 1)).float() / 255
    return GAP_SCALE * steps.sign() * steps.abs().sqrt()


def canonical(images: Tensor, form: str, block_size: int) -> Tensor:
    """(B, 3, H, W) float in [-1, 1] -> (B, 6, H, W) float, each block in canonical form.

    Channels 0 to 2 hold the sorted block, in [-1, 1], in the order (C, y, x); 3 to 5 its gaps.

    Args:
        images: (2v - 255)/255 of bytes v; H and W multiples of `block_size`.
        form: A name of `FORMS`.
        block_size: Side M of a block in pixels.
    """
    batch, channels, height, width = images.shape
    grid_h, grid_w = height // block_size, width // block_size
    values = ((images.float() * 255 + 255) / 2).round().int()
    # B C gh y gw x -> B gh gw C y x -> B N C P
    parted = values.view(batch, channels, grid_h, block_size, grid_w, block_size)
    blocks = parted.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid_h * grid_w, channels, -1)
    ordered = FORMS[form](blocks)
    both = torch.stack([(2 * ordered - 255).float() / 255, gaps(ordered)], dim=2)
    # B gh gw 2C y x -> B 2C gh y gw x
    back = both.view(batch, grid_h, grid_w, 2 * channels, block_size, block_size)
    placed = back.permute(0, 3, 1, 4, 2, 5).reshape(batch, 2 * channels, height, width)
    return placed.to(images.dtype)


class InvariantPatchEmbed(PatchEmbed):
    """(B, 3, H, W) float in [-1, 1] -> (B, N, D), the same for every key of a cipher.

    timm's patch embedding, of the canonical form: its tensors keep their names, E is (D, 6, M, M).

    Args:
        linear: The patch embedding that it replaces.
        form: A name of `FORMS`.
    """

    def __init__(self, linear: PatchEmbed, form: str) -> None:
        super().__init__(
            img_size=linear.img_size,
            patch_size=linear.patch_size[0],
            in_chans=2 * linear.proj.in_channels,
            embed_dim=linear.proj.out_channels,
            flatten=linear.flatten,
            strict_img_size=linear.strict_img_size,
        )
        self.norm: nn.Module = linear.norm
        self.form = form

    def forward(self, images: Tensor) -> Tensor:
        """Embed the canonical form of each block."""
        form = canonical(images, self.form, self.patch_size[0])
        embedded: Tensor = super().forward(form)  # type: ignore[no-untyped-call]
        return embedded
