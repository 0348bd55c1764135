"""Encryption under ephemeral keys, and the embedding that a model needs to read it.

Who asks makes a key of its own. If the model's patch embedding is private, it adapts the public
one to that key, as a client who takes part in training does. Keys that lie in vaults, a client's
own or one that all share, are the business of `clients.query`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey

Encrypt = Callable[[np.ndarray], np.ndarray]
"""(3, H, W) uint8 -> (3, H, W) uint8."""


@dataclass(frozen=True)
class Query:
    """How to encrypt images for a query, and what the model needs to answer it."""

    encrypt: Encrypt
    """Called once per image."""
    embedding: dict[str, Tensor] | None = field(repr=False)
    """The patch embedding to use instead of the model's, key material; None: the model's own."""

    def load_into(self, model: nn.Module) -> None:
        """Load the embedding into a model; without one the model is not changed."""
        model.load_state_dict(self.embedding or {}, strict=False)


def ephemeral_query(protection: ArmConfig, block_size: int, public: Mapping[str, Tensor]) -> Query:
    """A query of somebody who has only public weights, under ephemeral keys.

    Args:
        protection: Of the arm. With `per-image` every image gets a key of its own; otherwise all
            images of this query share one key. In a shared-key arm that is a wrong key.
        block_size: Side of a cipher block in pixels.
        public: Public weights, which include `EMBEDDING_TENSORS`.

    Raises:
        InputError: No embedding can be adapted to the arm's cipher.
    """
    own = SubKey.generate()
    is_per_image = protection.key_mode == "per-image"
    return Query(
        lambda image: encrypted(
            image, SubKey.generate() if is_per_image else own, protection, block_size
        ),
        adapted(public, own, protection) if protection.embedding == "private" else None,
    )


def encrypted(image: np.ndarray, key: SubKey, protection: ArmConfig, block_size: int) -> np.ndarray:
    """(3, H, W) uint8 -> (3, H, W) uint8, as an arm encrypts; of a plain arm the image itself."""
    if protection.cipher is None or protection.block_scope is None:
        return image
    scope = protection.block_scope
    return encrypt(image, key, protection.cipher, block_size=block_size, scope=scope)


def adapted(weights: Mapping[str, Tensor], key: SubKey, protection: ArmConfig) -> dict[str, Tensor]:
    """The patch embedding of some weights, adapted to a key: key material.

    Raises:
        InputError: No embedding can be adapted to the arm's cipher.
    """
    return adapted_embedding(weights, protection.cipher, protection.block_scope, key)
