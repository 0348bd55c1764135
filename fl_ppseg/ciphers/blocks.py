"""An image as a grid of square blocks, one row of values a block, in the order of ViT patches."""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fl_ppseg.errors import InputError

Pixels = npt.NDArray[np.uint8]


class Geometry(NamedTuple):
    """How an image divides into blocks. Block index = row * grid_w + column, as in a ViT."""

    channels: int
    """Colour channels, 3 for RGB."""
    block_size: int
    """Side of a block in pixels, M: the side of the ViT's patch."""
    grid_h: int
    """Blocks from top to bottom."""
    grid_w: int
    """Blocks from left to right."""

    @property
    def num_blocks(self) -> int:
        """Blocks an image, N."""
        return self.grid_h * self.grid_w

    @property
    def block_length(self) -> int:
        """Values a block, L = channels * M²."""
        return self.channels * self.block_size**2

    @classmethod
    def of_image(cls, shape: tuple[int, ...], block_size: int) -> Self:
        """Return the geometry of an image of this (channels, height, width).

        Raises:
            InputError: the shape has not three positive sides, or height or width is no multiple of
                `block_size`.
        """
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"image of shape {shape}, wanted (channels, height, width)")
        if block_size < 1:
            raise InputError(f"block_size {block_size}, wanted 1 or more pixels")
        channels, height, width = shape
        if height % block_size or width % block_size:
            raise InputError(
                f"image of {height}x{width} pixels does not divide into blocks of {block_size}x"
                f"{block_size}; crop or resize it to multiples of {block_size}"
            )
        return cls(channels, block_size, height // block_size, width // block_size)


def to_blocks(image: Pixels, block_size: int) -> Pixels:
    """(C, H, W) -> (N, L), the values of each block in order (C, y, x).

    Raises:
        InputError: H or W is no multiple of `block_size`.
    """
    channels, size, grid_h, grid_w = geometry = Geometry.of_image(image.shape, block_size)
    grid = image.reshape(channels, grid_h, size, grid_w, size)
    # C gh y gw x -> gh gw C y x
    return grid.transpose(1, 3, 0, 2, 4).reshape(geometry.num_blocks, geometry.block_length)


def from_blocks(blocks: Pixels, geometry: Geometry) -> Pixels:
    """(N, L) -> (C, H, W), the inverse of `to_blocks`."""
    channels, size, grid_h, grid_w = geometry
    grid = blocks.reshape(grid_h, grid_w, channels, size, size)
    # gh gw C y x -> C gh y gw x
    return grid.transpose(2, 0, 3, 1, 4).reshape(channels, grid_h * size, grid_w * size)
