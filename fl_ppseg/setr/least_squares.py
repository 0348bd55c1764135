"""An embedding's start: the linear map of what it reads of a block that comes nearest to E x.

The layers after a plain embedding E know its tokens. Ridge regression on public images gives the
E' and b' that minimise sum |E' c(x) + b' - (E x + b)|² + penalty over their blocks x, where c(x) is
the canonical form, or the block encrypted: the model starts from what of E x survives encryption,
not from noise.
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
        plain: What its tokens should be like, (B, 3, H, W) -> (B, N, D).
        batches: Images (B, 3, H, W) float in [-1, 1], and the same as `embedding` is given them;
            an invariant one may be given them as they are.

    Returns:
        The share of the tokens' variance that what it reads explains, R² on these images.
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
