"""Pinhole camera above a flat street: x to the right, y up, z ahead, in metres.

The street may bend: its axis lies at x = bend * z² + yaw * z, so a plan in straight street
coordinates (u, z) becomes a curve in the picture.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NEAR = 0.6
"""Nearest distance that is projected, in metres; nearer points are moved there."""


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from; focal length and horizon in picture heights."""

    size: tuple[int, int]
    height: float
    focal: float
    horizon: float
    yaw: float
    bend: float

    @property
    def scale(self) -> float:
        """Pixels that one metre at one metre's distance fills."""
        return self.focal * self.size[0]

    def project(self, points: Floats) -> Floats:
        """(..., 3) street coordinates -> (..., 2) pixel coordinates (x, y), y downwards."""
        rows, columns = self.size
        x, y, z = points[..., 0], points[..., 1], np.maximum(points[..., 2], NEAR)
        across = columns / 2 + self.scale * (x / z + self.bend * z + self.yaw)
        down = rows * self.horizon + self.scale * (self.height - y) / z
        return np.stack((across, down), axis=-1)

    def ground(self) -> tuple[int, Floats, Floats]:
        """Ground below each pixel.

        Returns:
            First row below the horizon; u of the ground at each pixel from there on, (R, W); its
            distance z for each row, (R, 1). Both in metres.
        """
        rows, columns = self.size
        horizon = rows * self.horizon
        first = min(rows, int(horizon) + 1)
        below = np.arange(first, rows, dtype=np.float32)[:, None] + 0.5 - horizon
        z = self.scale * self.height / below
        x = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) / self.scale
        return first, (x - self.yaw - self.bend * z) * z, z
