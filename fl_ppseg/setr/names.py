"""Names of the model's tensors that other parts of the program must agree on; imports no torch."""

from typing import Final

BACKBONE_PREFIX: Final = "backbone."
"""Prefix of every tensor of the encoder in a SETR state dict."""

EMBEDDING_TENSORS: Final = ("backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias")
"""The patch embedding E, (D, 3, M, M), and its bias, (D,): the only layer that reads pixels."""

POSITION_TENSOR: Final = "backbone.pos_embed"
"""The position embedding, (1, prefix tokens + grid_h * grid_w, D)."""

CLASS_TENSOR: Final = "backbone.cls_token"
"""The class token of a timm ViT, (1, 1, D)."""

NECK_PREFIX: Final = "neck."
"""Prefix of every tensor of MLA's neck, which includes the norms of its levels."""
NORMS_PREFIX: Final = "norms."
PIXEL_HEAD_PREFIX: Final = "pixel_head."
"""Prefix of every tensor of the head that scores pixels of a ciphertext."""

_BUFFERS: Final = ("running_mean", "running_var", "num_batches_tracked")


def is_buffer(name: str) -> bool:
    """Whether a tensor is a running statistic of batch normalisation, not a trained parameter."""
    return name.rpartition(".")[2] in _BUFFERS


def is_of_head(name: str, has_neck: bool) -> bool:
    """Whether a tensor is of a decoder or auxiliary head, which have their own learning rate.

    As mmsegmentation's multiplier for names with `head` in them: naive and PUP hold the norms of
    their levels, MLA's are in its neck, and neck and backbone keep the rate.

    Args:
        name: Of the tensor.
        has_neck: Whether the model has a neck.
    """
    if name.startswith((BACKBONE_PREFIX, NECK_PREFIX)):
        return False
    return not (has_neck and name.startswith(NORMS_PREFIX))


def withheld(embedding: str) -> frozenset[str]:
    """Names of the tensors that a node does not send, by the treatment of the embedding.

    Args:
        embedding: As in an arm's config. `frozen` is public, the same everywhere, never trained;
            `private` is the client's own; all others are sent like any layer.
    """
    return frozenset(EMBEDDING_TENSORS if embedding in ("frozen", "private") else ())
