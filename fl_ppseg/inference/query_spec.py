"""What a query to a model must be: its cipher, its blocks, its size. Public, and plain values.

A service publishes it, and whoever asks makes a query from it. There is nothing of a key in it.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.bounds import ImageSize
from fl_ppseg.config.cipher_versions import versions_of
from fl_ppseg.config.loading import validate
from fl_ppseg.config.section import Section
from fl_ppseg.data.manifest import CipherName, Version

QueryKey = Literal["none", "per-image", "per-client", "shared"]
"""Whose key a query is under."""
KEYS: Final[dict[str, QueryKey]] = {
    "plain": "none",
    "per-image": "per-image",
    "per-client": "per-client",
    "shared": "shared",
}
"""By the key mode of the arm."""


class QuerySpec(Section):
    """What an image must become before a model can segment it."""

    key: QueryKey
    """Whose key: none (a plain image), a new one for each image, one of the client, or one that all
    users share."""
    adapts: bool = False
    """Whether the model reads queries only with its patch embedding adapted to their key: a service
    that holds no key cannot answer them."""
    cipher: Annotated[str, Field(max_length=200)] | None
    """Name of the cipher or of a product of them; None for plain images."""
    versions: Annotated[dict[CipherName, Version], Field(max_length=8)]
    """Version of each cipher of the product."""
    block_size: Annotated[int, Field(ge=1, le=128)]
    """Side of a block in pixels."""
    scope: Literal["common", "per-block"] | None
    """One draw of the cipher's parameters for all blocks, or one per block."""
    answers: Literal["in-place", "permuted"] = "in-place"
    """Whether labels of an answer are those of the image's pixels, or of the ciphertext's, which
    who asks has to put back in the order that the key tells."""
    image_size: ImageSize
    """(height, width) of the model's window, in pixels."""
    fit: Literal["resize", "crop"]
    """How an image of another size becomes a query: scaled to `image_size`, or kept at its own
    scale and padded to a whole number of blocks and to at least one window."""


def spec_of(
    protection: ArmConfig,
    block_size: int,
    image_size: tuple[int, int],
    fit: Literal["resize", "crop"] = "resize",
) -> QuerySpec:
    """What queries to the model of an arm must be.

    Args:
        protection: Of the arm.
        block_size: Side of the model's patch, in pixels.
        image_size: (height, width) of the model's window, in pixels.
        fit: How an image of another size becomes a query.

    Raises:
        InputError: A value is out of bounds.
    """
    values = {
        "key": KEYS[protection.key_mode],
        "adapts": protection.embedding == "private" or protection.encrypted == "queries",
        "cipher": protection.cipher,
        "versions": versions_of(protection.cipher),
        "block_size": block_size,
        "scope": protection.block_scope,
        "answers": "permuted" if protection.labels == "encrypted" else "in-place",
        "image_size": image_size,
        "fit": fit,
    }
    return validate(QuerySpec, values, "queries")
