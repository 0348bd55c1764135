"""An image as a grid of square blocks, one row of values a block, in the order of ViT patches."""

from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import numpy as np

from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", Pixels, "Tensor")
"""Bytes: a numpy array, or a torch tensor on any device."""


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
            InputError: the shape does not have three positive sides, or height or width is not a
                multiple of `block_size`.
        """
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"expected an image of shape (channels, height, width), got {shape}")
        if block_size < 1:
            raise InputError(f"expected block_size of 1 pixel or more, got {block_size}")
        channels, height, width = shape
        if height % block_size or width % block_size:
            raise InputError(
                f"image of {height}x{width} pixels does not divide into blocks of {block_size}x"
                f"{block_size}; crop or resize it to multiples of {block_size}"
            )
        return cls(channels, block_size, height // block_size, width // block_size)


def to_blocks(images: Array, block_size: int) -> Array:
    """(..., C, H, W) -> (..., N, L), the values of each block in order (C, y, x).

    Raises:
        InputError: H or W is not a multiple of `block_size`.
    """
    lead = images.shape[:-3]
    geometry = Geometry.of_image(tuple(images.shape[-3:]), block_size)
    channels, size, grid_h, grid_w = geometry
    runs = _in_runs(images, size)
    width = runs.shape[-1] // grid_w
    grid = runs.reshape(*lead, channels, grid_h, size, grid_w, width)
    # C gh y gw x -> gh C y gw x -> gh C gw y x -> gh gw C y x
    grid = grid.swapaxes(-5, -4).swapaxes(-3, -2).swapaxes(-4, -3)
    return _as_values(grid.reshape(*lead, geometry.num_blocks, channels * size * width), images)


def from_blocks(blocks: Array, geometry: Geometry) -> Array:
    """(..., N, L) -> (..., C, H, W), the inverse of `to_blocks`."""
    lead = blocks.shape[:-2]
    channels, size, grid_h, grid_w = geometry
    runs = _in_runs(blocks, size)
    width = runs.shape[-1] // (channels * size)
    grid = runs.reshape(*lead, grid_h, grid_w, channels, size, width)
    # gh gw C y x -> gh C gw y x -> gh C y gw x -> C gh y gw x
    grid = grid.swapaxes(-4, -3).swapaxes(-3, -2).swapaxes(-5, -4)
    return _as_values(grid.reshape(*lead, channels, grid_h * size, grid_w * width), blocks)


def _in_runs(values: Array, size: int) -> Array:
    """(..., K size) values -> (..., K) runs of `size` that numpy moves whole; tensors as they are.

    numpy moves items one by one, a row of a block of bytes as fast as a byte.
    """
    if not isinstance(values, np.ndarray):
        return values
    return np.ascontiguousarray(values).view((np.void, size * values.itemsize))


def _as_values(runs: Array, like: Array) -> Array:
    """(..., K) runs -> (..., K size), the values that `_in_runs` put together."""
    if not isinstance(runs, np.ndarray):
        return runs
    return np.ascontiguousarray(runs).view(like.dtype)
