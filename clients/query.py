"""Queries: an encrypted image, and the embedding that the model needs to read it.

The owner of a query makes an ephemeral key of its own, except in the arms whose owners share one.
If the model's patch embedding is private, it adapts the public one to that key, as an owner who
takes part in training does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from torch import Tensor, nn

from clients.vault.keys.keyring import read_salt, shared_salt
from clients.vault.layout import record_file
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import ClientKey, SubKey

Encrypt = Callable[[np.ndarray], np.ndarray]
"""(3, H, W) uint8 -> (3, H, W) uint8."""
Key = Literal["right", "wrong", "none"]
"""The key of a query to a shared-key arm: the shared one, a new one, or none (a plain image)."""
KEYS: Final[tuple[Key, ...]] = get_args(Key)


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
        lambda image: _encrypt_image(
            image, SubKey.generate() if is_per_image else own, protection, block_size
        ),
        _adapted(public, own, protection) if protection.embedding == "private" else None,
    )


def shared_query(
    protection: ArmConfig,
    key: Key,
    shared: SubKey,
    block_size: int,
    trained: Mapping[str, Tensor],
) -> Query:
    """A query to a model whose users share one key.

    A model trained on plain images (`encrypted: queries`) has its embedding adapted to the shared
    key, whatever the key of the query; other models are used as trained.

    Args:
        protection: Of an arm with `key_mode: shared`.
        key: Of the query.
        shared: The key that all share.
        block_size: Side of a cipher block in pixels.
        trained: The model's weights as trained.

    Raises:
        InputError: No embedding can be adapted to the arm's cipher.
    """
    own = {"right": shared, "wrong": SubKey.generate(), "none": None}[key]
    return Query(
        lambda image: image if own is None else _encrypt_image(image, own, protection, block_size),
        _adapted(trained, shared, protection) if protection.encrypted == "queries" else None,
    )


def load_shared_subkey(path: Path, protection: ArmConfig) -> SubKey:
    """Load the key that all share in an arm, from the file of its master key.

    Args:
        path: `<vault>/.shared/master.key`, with its salts in the same folder.
        protection: Of the arm.

    Raises:
        InputError: The file or the salt is missing, damaged, or open to others.
    """
    master = ClientKey.load(path)
    salt = record_file(path.parent, shared_salt(protection))
    remedy = f"give the path of {path.name} in its vault, or copy its whole folder"
    return master.client_subkey(read_salt(salt, remedy))


def _encrypt_image(
    image: np.ndarray, key: SubKey, protection: ArmConfig, block_size: int
) -> np.ndarray:
    if protection.cipher is None or protection.block_scope is None:
        return image
    scope = protection.block_scope
    return encrypt(image, key, protection.cipher, block_size=block_size, scope=scope)


def _adapted(
    weights: Mapping[str, Tensor], key: SubKey, protection: ArmConfig
) -> dict[str, Tensor]:
    return adapted_embedding(weights, protection.cipher, protection.block_scope, key)
