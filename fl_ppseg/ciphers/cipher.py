"""What every cipher does: draw typed parameters from a key, apply them, invert exactly."""

from typing import Final, Literal, Protocol, TypeVar

from fl_ppseg.ciphers.blocks import Geometry, Pixels
from fl_ppseg.errors import InputError
from fl_ppseg.keys import SubKey

Scope = Literal["common", "per-block"]
SCOPES: Final[tuple[Scope, ...]] = ("common", "per-block")

Parameters = TypeVar("Parameters")


class Cipher(Protocol[Parameters]):
    """A map of blocks to blocks, (N, L) uint8 -> (N, L) uint8, that its parameters undo."""

    def draw(self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0) -> Parameters:
        """Draw the parameters that `subkey` stands for.

        Args:
            subkey: source of the random streams.
            geometry: blocks of the image.
            scope: `common` draws once for all blocks, `per-block` once for each.
            step: place of this cipher in a product, so that its factors draw independently.
        """

    def apply(self, blocks: Pixels, parameters: Parameters) -> Pixels:
        """(N, L) uint8 -> (N, L) uint8, encrypted."""

    def invert(self, blocks: Pixels, parameters: Parameters) -> Pixels:
        """(N, L) uint8 -> (N, L) uint8, exactly what `apply` was given."""


def num_draws(geometry: Geometry, scope: Scope) -> int:
    """Return how many independent draws an image needs: 1, or one a block.

    Raises:
        InputError: unknown scope.
    """
    if scope not in SCOPES:
        raise InputError(f"unknown block scope {scope!r}; choose from {', '.join(SCOPES)}")
    return 1 if scope == "common" else geometry.num_blocks


def stream_label(cipher: str, scope: Scope, geometry: Geometry, step: int, attempt: int) -> bytes:
    """Return the label of the random stream for one draw of one cipher.

    Scope and block length are in it, so no two layouts share random bits; the grid is not, so one
    `common` draw fits images of every size.
    """
    length = geometry.block_length
    return f"{cipher}/{scope}/length={length}/step={step}/attempt={attempt}".encode()
