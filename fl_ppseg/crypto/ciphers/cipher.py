"""What every cipher does: draw typed parameters from a key, apply them, invert exactly."""

from enum import Flag, auto
from typing import Final, Literal, Protocol, TypeVar

from fl_ppseg.crypto.ciphers.arrays import beside
from fl_ppseg.crypto.ciphers.random_words import Stream
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array, Geometry
from fl_ppseg.system.errors import InputError

Scope = Literal["common", "per-block"]
SCOPES: Final[tuple[Scope, ...]] = ("common", "per-block")

Parameters = TypeVar("Parameters")


class Effect(Flag):
    """What a cipher may do to a block under some key: all that it may do decides what survives."""

    MOVES_PIXELS = auto()
    """Pixels change places, the RGB triple of each stays whole."""
    MOVES_VALUES = auto()
    """Values change places one by one."""
    PERMUTES_CHANNELS = auto()
    """The values of a pixel change channels."""
    INVERTS_VALUES = auto()
    """v -> 255 - v at places that a key chooses."""
    SUBSTITUTES_VALUES = auto()
    """v -> another value, by a codebook that a key chooses."""


class Cipher(Protocol[Parameters]):
    """A map of blocks to blocks, (..., N, L) uint8 -> (..., N, L) uint8, that parameters undo.

    Parameters are numpy arrays of shape (R, ...) with R = 1 for scope `common` and N for
    `per-block`. They serve images in numpy or, once moved, in torch; stacked along a first axis
    they serve a batch, one per image.
    """

    @property
    def effects(self) -> Effect:
        """All that it may do to a block."""

    @property
    def form(self) -> str | None:
        """The form (see `forms`) on which alone the distribution of a block's ciphertext depends.

        None where all of the block may count: the ciphertext tells more than any form keeps.
        """

    def draw(self, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0) -> Parameters:
        """Draw the parameters that `subkey` stands for.

        Args:
            subkey: source of the random streams.
            geometry: blocks of the image; with scope `common` its grid does not matter.
            scope: `common` draws once for all blocks, `per-block` once for each.
            step: place of this cipher in a product, so that its factors draw independently.
        """

    def apply(self, blocks: Array, parameters: Parameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, encrypted."""

    def invert(self, blocks: Array, parameters: Parameters) -> Array:
        """(..., N, L) uint8 -> (..., N, L) uint8, exactly what `apply` was given."""

    def encrypt(
        self, blocks: Array, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> Array:
        """(N, L) uint8 -> (N, L) uint8, the blocks of one image: `apply` by what `draw` draws.

        A cipher that gets there faster without its parameters does it in its own way.

        Args:
            blocks: numpy array, or torch tensor on any device; the result is of the same kind.
            subkey: as for `draw`.
            geometry: as for `draw`.
            scope: as for `draw`.
            step: as for `draw`.
        """
        return self.apply(blocks, beside(self.draw(subkey, geometry, scope, step), blocks))

    def decrypt(
        self, blocks: Array, subkey: SubKey, geometry: Geometry, scope: Scope, step: int = 0
    ) -> Array:
        """(N, L) uint8 -> (N, L) uint8, exactly what `encrypt` was given: `invert`, as there."""
        return self.invert(blocks, beside(self.draw(subkey, geometry, scope, step), blocks))


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


def stream_of(cipher: str, subkey: SubKey, geometry: Geometry, scope: Scope, step: int) -> Stream:
    """Return the random streams of one draw, a stream an attempt, labelled by `stream_label`."""

    def stream(attempt: int, num_bytes: int, start: int = 0) -> bytearray:
        label = stream_label(cipher, scope, geometry, step, attempt)
        return subkey.stream(label, num_bytes, start)

    return stream
