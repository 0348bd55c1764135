"""Encryption under ephemeral keys, and the embedding that a model needs to read it.

Who asks makes a key of its own. If the model's patch embedding is private, it adapts the public
one to that key, as a client who takes part in training does. Keys that lie in vaults, a client's
own or one that all share, are the business of `clients.query`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.crypto.arm_images import encrypted, pixel_order_of
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.system.arrays import Pixels


@dataclass(frozen=True)
class Query:
    """How to encrypt images for a query, and what the model needs to answer it."""

    key: Callable[[], SubKey | None] = field(repr=False)
    """The key of the next image; None: the image stays plain."""
    protection: ArmConfig
    """How the arm encrypts."""
    block_size: int
    """Side of a cipher block in pixels."""
    embedding: dict[str, Tensor] | None = field(repr=False)
    """The patch embedding to use instead of the model's, key material; None: the model's own."""

    def encrypt(self, image: Pixels) -> Pixels:
        """(3, H, W) uint8 -> (3, H, W) uint8."""
        return self.encrypt_keeping_order(image)[0]

    def encrypt_keeping_order(self, image: Pixels) -> tuple[Pixels, PixelOrder | None]:
        """(3, H, W) uint8 -> (3, H, W) uint8, and what brings an answer's pixels back.

        Returns:
            The ciphertext; the order of its pixels, or None where answers are in place.
        """
        key = self.key()
        if key is None:
            return image, None
        ciphertext = encrypted(image, key, self.protection, self.block_size)
        return ciphertext, pixel_order_of(key, self.protection, image.shape[1:], self.block_size)

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
        lambda: SubKey.generate() if is_per_image else own,
        protection,
        block_size,
        adapted(public, own, protection) if protection.embedding == "private" else None,
    )


def adapted(weights: Mapping[str, Tensor], key: SubKey, protection: ArmConfig) -> dict[str, Tensor]:
    """The patch embedding of some weights, adapted to a key: key material.

    Raises:
        InputError: No embedding can be adapted to the arm's cipher.
    """
    return adapted_embedding(weights, protection.cipher, protection.block_scope, key)
