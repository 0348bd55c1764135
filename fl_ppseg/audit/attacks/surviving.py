"""What survives of a block, as planes that a network can read: more than embeddings read.

The forms of an embedding are sorted (`fl_ppseg.setr.canonical`). Under `negative-positive` alone
magnitudes keep their places, and under `etc` each half-size sub-block survives up to rotation,
order of colours and inversion. Each sub-block is brought to that one of these 96 variants which a
fixed pattern fits best: bright rather than dark, its first channel the brightest, brighter above
and to the left. The four are sorted by the fit. In both cases the sorted magnitudes are added.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import permutations
from typing import Final

import torch
from torch import Tensor

from fl_ppseg.setr.canonical import FORMS, canonical

NUM_TURNS: Final = 8
COARSE: Final = "magnitudes"
"""The form that an embedding reads, a function of these."""
SHIFT: Final = 2**24
"""Scale of the pattern; random lower digits break all ties but those of equal sub-blocks (and one
in some millions)."""


def surviving(images: Tensor, form: str, block_size: int) -> Tensor:
    """(B, 3, H, W) float in [-1, 1] -> (B, K, H, W) float, equal for all ciphertexts of an image.

    Args:
        images: (2v - 255)/255 of bytes v; H and W multiples of `block_size`.
        form: A name of `fl_ppseg.crypto.ciphers.forms`.
        block_size: Side M of a block in pixels; even for sub-blocks.
    """
    if form in FORMS:
        return canonical(images, form, block_size)
    coarse = canonical(images, COARSE, block_size)
    return torch.cat([_FINER[form](images, block_size), coarse], dim=1)


def placed_magnitudes(images: Tensor, _block_size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H, W), |2v - 255| on the scale of the canonical forms, in place."""
    return 2 * images.abs() - 1


def sub_blocks(images: Tensor, block_size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H, W), the four sub-blocks of each block, normalised and sorted."""
    batch, channels, height, width = images.shape
    half = block_size // 2
    grid = (batch, channels, height // block_size, 2, half, width // block_size, 2, half)
    # B C gy ky y gx kx x -> (B gy gx ky kx) (C y x)
    parted = images.reshape(grid).permute(0, 2, 5, 3, 6, 1, 4, 7)
    best, fits = _best(parted.reshape(-1, channels * half * half), half)
    order = fits.reshape(-1, 4).argsort(dim=1, descending=True)
    ordered = best.reshape(len(order), 4, -1).gather(
        1, order[:, :, None].expand(-1, -1, best.shape[1])
    )
    # back, the sub-blocks row by row
    placed = ordered.reshape(parted.shape).permute(0, 5, 1, 3, 6, 2, 4, 7)
    return placed.reshape(images.shape)


def _best(flat: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """(N, C S S) -> (N, C S S), (N,): the variant of each that fits best, and its fit."""
    index, pattern = _makings(half)
    values = (flat * 255).round().double()  # odd integers: sums of products are exact
    scores = values @ pattern  # (N, 48); inverted variants have the negative
    fits, made = scores.abs().max(dim=1)
    sign = scores.gather(1, made[:, None]).sign()
    return flat.gather(1, index[made]) * torch.where(sign == 0, 1.0, sign).float(), fits


@cache
def _makings(half: int) -> tuple[Tensor, Tensor]:
    """(48, C S S) sources of the values under rotations and orders of colours; (C S S, 48), the
    weight of each value in the fit of the result."""
    places = torch.arange(3 * half * half).reshape(3, half, half)
    turned = [
        torch.rot90(places if turn < 4 else places.flip(2), turn % 4, (1, 2))
        for turn in range(NUM_TURNS)
    ]
    index = torch.stack(
        [t[list(order)].flatten() for t in turned for order in permutations((0, 1, 2))]
    )
    down = half - 1 - 2 * torch.arange(half)
    smooth = (
        2 * half * torch.tensor([6, 4, 3])[:, None, None] + 2 * down[:, None] + down
    ).flatten()
    generator = torch.Generator().manual_seed(0)
    pattern = smooth.double() * SHIFT + torch.randint(SHIFT, smooth.shape, generator=generator)
    counted = torch.zeros(len(index), len(pattern), dtype=torch.double)
    counted.scatter_(1, index, pattern.expand(len(index), -1))
    return index, counted.T.contiguous()


_FINER: Final[Mapping[str, Callable[[Tensor, int], Tensor]]] = {
    "placed-magnitudes": placed_magnitudes,
    "sub-blocks": sub_blocks,
}
