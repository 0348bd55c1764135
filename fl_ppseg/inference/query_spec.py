"""What a query to a model must be: its cipher, its blocks, its size. Public, and plain values.

A service publishes it, and whoever asks makes a query from it. There is nothing of a key in it.
"""

from typing import Annotated, Literal

from pydantic import Field

from fl_ppseg.config.bounds import ImageSize
from fl_ppseg.config.section import Section
from fl_ppseg.data.manifest import CipherName, Version


class QuerySpec(Section):
    """What an image must become before a model can segment it."""

    key: Literal["none", "per-image", "per-client", "shared"]
    """Whose key: none (a plain image), a new one for each image, one of the client (the model needs
    an embedding adapted to it), or one that all users share."""
    cipher: Annotated[str, Field(max_length=200)] | None
    """Name of the cipher or of a product of them; None for plain images."""
    versions: Annotated[dict[CipherName, Version], Field(max_length=8)]
    """Version of each cipher of the product."""
    block_size: Annotated[int, Field(ge=1, le=128)]
    """Side of a block in pixels."""
    scope: Literal["common", "per-block"] | None
    """One draw of the cipher's parameters for all blocks, or one per block."""
    image_size: ImageSize
    """(height, width) of the model's window, in pixels."""
    fit: Literal["resize", "crop"]
    """How an image of another size becomes a query: scaled to `image_size`, or kept at its own
    scale and padded to a whole number of blocks and to at least one window."""
