"""Names of the model's tensors that other parts of the program must agree on; imports no torch."""

from typing import Final

BACKBONE_PREFIX: Final = "backbone."
"""What every tensor of the encoder starts with in a SETR state dict."""

EMBEDDING_TENSORS: Final = ("backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias")
"""The patch embedding E, (D, 3, M, M), and its bias, (D,): the only layer that meets pixels."""

POSITION_TENSOR: Final = "backbone.pos_embed"
"""The position embedding, (1, prefix tokens + grid_h * grid_w, D)."""

_BUFFERS: Final = ("running_mean", "running_var", "num_batches_tracked")


def is_buffer(name: str) -> bool:
    """Whether a tensor is a statistic that batch normalisation counts, not a trained parameter."""
    return name.rpartition(".")[2] in _BUFFERS


def withheld(embedding: str) -> frozenset[str]:
    """Names of the tensors that do not travel from a node when the embedding is treated so.

    Args:
        embedding: As in an arm's config. `frozen` is public, the same everywhere, never trained;
            `private` is the client's own; all others travel like any layer.
    """
    return frozenset(EMBEDDING_TENSORS if embedding in ("frozen", "private") else ())
