"""Texture: fields of noise, made once a process and shifted for each scene."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

COARSE = (5, 10, 20, 40)
"""Cells in a picture's height of each octave of clouds, stains and masses of leaves."""
FINE = (64, 128, 256, 512)
"""The same of grain and single leaves; octaves finer than the pixels are left out."""
MARGIN = 2
"""Cells around a grid that bicubic enlargement looks at."""
WORLD = 256
"""Side of the tile that covers the ground."""


def _octave(size: tuple[int, int], cells: tuple[int, int], seed: int) -> Floats:
    """Normal noise on a grid of cells, enlarged smoothly to the size; opposite edges join."""
    rows, columns = size
    generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *cells])))
    grid = generator.standard_normal(cells, dtype=np.float32)
    ring = np.pad(grid, MARGIN, mode="wrap")
    inside = (MARGIN, MARGIN, MARGIN + cells[1], MARGIN + cells[0])
    smooth = Image.fromarray(ring).resize((columns, rows), Image.Resampling.BICUBIC, inside)
    return np.asarray(smooth, np.float32)


@lru_cache(maxsize=16)
def field(size: tuple[int, int], octaves: Sequence[int], stretch: float = 1.0) -> Floats:
    """(H, W) noise of mean 0 and deviation 1; `stretch` > 1 draws it out downwards."""
    rows, columns = size
    total = np.zeros(size, np.float32)
    for number in [n for n in octaves if n <= rows] or [rows]:
        cells = (max(2, round(number / stretch)), max(2, round(number * columns / rows)))
        total += _octave(size, cells, number) * (octaves[0] / number) ** 0.5
    return np.asarray((total - total.mean()) / total.std(), np.float32)


@lru_cache(maxsize=2)
def ground_tile(octaves: tuple[int, ...]) -> Floats:
    """(WORLD, WORLD) noise of mean 0 and deviation 1 for ground coordinates."""
    return field((WORLD, WORLD), octaves)


def shifted(tile: Floats, down: float, across: float) -> Floats:
    """The field moved by fractions of its size, what leaves on one side enters on the other."""
    rows, columns = tile.shape
    return np.roll(tile, (int(down * rows), int(across * columns)), axis=(0, 1))
