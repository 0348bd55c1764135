"""An embedding's start: the linear map of what it reads of a block that comes nearest to E x.

The layers after a plain embedding E know its tokens. Ridge regression on public images gives the
E' and b' that minimise sum |E' c(x) + b' - (E x + b)|² + penalty over their blocks x, where c(x) is
the canonical form, or the block encrypted: the model starts from what of E x survives encryption,
not from noise.
"""

from collections.abc import Iterable
from typing import Final

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor
from torch.nn import functional

from fl_ppseg.setr.canonical import InvariantPatchEmbed, canonical

RIDGE: Final = 1e-4
"""Penalty on each weight, relative to one and the summed squares of what it multiplies."""


@torch.no_grad()
def fit_embedding(
    embedding: PatchEmbed, plain: PatchEmbed, batches: Iterable[tuple[Tensor, Tensor]]
) -> float:
    """Set an embedding of ciphertexts to the best approximation of one of plain images.

    Args:
        embedding: Invariant or linear; overwritten.
        plain: What its tokens should be like, (B, 3, H, W) -> (B, N, D).
        batches: Images (B, 3, H, W) float in [-1, 1], and the same as `embedding` is given them;
            an invariant one may be given them as they are.

    Returns:
        The share of the tokens' variance that what it reads explains, R² on these images.
    """
    side, length = embedding.patch_size[0], embedding.proj.weight[0].numel()
    width = embedding.proj.out_channels
    squares = torch.zeros(length + 1, length + 1, dtype=torch.float64)
    products = torch.zeros(length + 1, width, dtype=torch.float64)
    power = torch.zeros(width, dtype=torch.float64)
    for images, given in batches:
        tokens = plain(images).flatten(0, 1).double()
        read = given
        if isinstance(embedding, InvariantPatchEmbed):
            read = canonical(given, embedding.form, side)
        # B C H W -> B CM² N -> BN CM², and a column of ones for the bias
        blocks = functional.unfold(read, side, stride=side).transpose(1, 2).flatten(0, 1)
        design = functional.pad(blocks, (0, 1), value=1.0).double()
        squares += design.T @ design
        products += design.T @ tokens
        power += tokens.square().sum(dim=0)
    penalty = RIDGE * (squares.diagonal() + 1)  # the last gap of a sequence is always 0
    solution = torch.linalg.solve(squares + penalty.diag(), products)
    embedding.proj.weight.copy_(solution[:-1].T.reshape(embedding.proj.weight.shape))
    assert embedding.proj.bias is not None
    embedding.proj.bias.copy_(solution[-1])
    return _explained(squares, products, power, solution)


def _explained(squares: Tensor, products: Tensor, power: Tensor, solution: Tensor) -> float:
    """R² from the sums: residual and total sum of squares, over all token channels together."""
    fitted = 2 * (solution * products).sum(dim=0) - (solution * (squares @ solution)).sum(dim=0)
    num_blocks = squares[-1, -1]
    total = power - products[-1].square() / num_blocks
    return float(1 - (power - fitted).sum() / total.sum())
