"""Initial weights of an embedding: the least-squares approximation of a plain embedding E.

The layers after E were trained on its tokens. Ridge regression on public images gives the E' and b'
that minimise sum |E' c(x) + b' - (E x + b)|² + penalty over their blocks x, where c(x) is
the canonical form, or the encrypted block: the model starts from what of E x survives encryption,
not from random weights.
"""

import itertools
from collections.abc import Iterable

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor
from torch.nn import functional

from fl_ppseg.setr.canonical import InvariantPatchEmbed, canonical
from fl_ppseg.setr.ridge import Matrix, fit


@torch.no_grad()
def fit_embedding(
    embedding: PatchEmbed, plain: PatchEmbed, batches: Iterable[tuple[Tensor, Tensor]]
) -> float:
    """Set an embedding of ciphertexts to the best approximation of one of plain images.

    Args:
        embedding: Invariant or linear; overwritten.
        plain: The embedding to approximate, (B, 3, H, W) -> (B, N, D).
        batches: Images (B, 3, H, W) float in [-1, 1], and the same images encrypted as `embedding`
            reads them; an invariant one may read plain images.

    Returns:
        R² on these images: the explained share of the variance of the tokens.
    """
    side = embedding.patch_size[0]

    def example(images: Tensor, given: Tensor) -> tuple[Matrix, Matrix]:
        tokens: Matrix = plain(images).flatten(0, 1).double().numpy()
        read = given
        if isinstance(embedding, InvariantPatchEmbed):
            read = canonical(given, embedding.form, side)
        return blocks_of(read, side), tokens

    found = fit(itertools.starmap(example, batches))
    weights = torch.from_numpy(found.weights)
    embedding.proj.weight.copy_(weights[:-1].T.reshape(embedding.proj.weight.shape))
    assert embedding.proj.bias is not None
    embedding.proj.bias.copy_(weights[-1])
    return found.explained


def blocks_of(images: Tensor, block_size: int) -> Matrix:
    """(B, C, H, W) -> (B N, C M²) float64, the values of each block in order (C, y, x)."""
    columns = functional.unfold(images, block_size, stride=block_size)
    blocks: Matrix = columns.transpose(1, 2).flatten(0, 1).double().numpy()
    return blocks
