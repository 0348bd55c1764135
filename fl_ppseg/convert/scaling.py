"""Sizes of written pictures: photographs by cubic resampling, label maps by nearest neighbour."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image

from fl_ppseg.data.image_files import MAX_PIXELS
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError


@dataclass(frozen=True)
class Scaling:
    """At most one of both; without either, pictures keep their size."""

    longest_side: int | None = None
    """Pixels; larger pictures are scaled down to it in their proportions."""
    size: tuple[int, int] | None = None
    """(height, width) of every picture, whatever its proportions."""

    def checked(self) -> Self:
        """Return the scaling itself.

        Raises:
            InputError: Both are set, or the size is too large.
        """
        if self.longest_side is not None and self.size is not None:
            raise InputError("--longest-side and --size exclude each other; leave one out")
        height, width = self.size or (1, 1)
        if height * width > MAX_PIXELS:
            raise InputError(f"--size {height}x{width}: at most {MAX_PIXELS} pixels can be read")
        return self

    def of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a scaled picture.

        >>> Scaling(longest_side=512).of(1536, 2048), Scaling(longest_side=512).of(100, 200)
        ((384, 512), (100, 200))
        """
        if self.size is not None:
            return self.size
        longest = max(height, width)
        if self.longest_side is None or longest <= self.longest_side:
            return height, width
        ratio = self.longest_side / longest
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def photograph(self, pixels: Pixels) -> Pixels:
        """(H, W, 3) -> (h, w, 3)."""
        return self._resized(pixels, Image.Resampling.BICUBIC)

    def label_map(self, label_ids: Pixels) -> Pixels:
        """(H, W) -> (h, w), without new values."""
        return self._resized(label_ids, Image.Resampling.NEAREST)

    def _resized(self, pixels: Pixels, method: Image.Resampling) -> Pixels:
        height, width = self.of(*pixels.shape[:2])
        if (height, width) == pixels.shape[:2]:
            return pixels
        return np.asarray(Image.fromarray(pixels).resize((width, height), method))
