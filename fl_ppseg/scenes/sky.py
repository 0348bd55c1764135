"""The sky: a gradient to the horizon with clouds."""

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.scenes.light import Light
from fl_ppseg.scenes.noise import COARSE, field, shifted

Floats = NDArray[np.float32]


def paint_sky(size: tuple[int, int], rows: int, light: Light, shift: tuple[float, float]) -> Floats:
    """(rows, W, 3) colours in 0..255 of the part of the picture above the horizon.

    Args:
        size: (H, W) of the whole picture.
        rows: how many of its rows to paint.
        shift: how far the clouds have drifted, as fractions of the picture.
    """
    weather = light.weather
    height = (np.arange(rows, dtype=np.float32) / max(rows, 1))[:, None, None] ** 0.8
    zenith = np.asarray(weather.zenith, np.float32)
    horizon = np.asarray(weather.horizon, np.float32)
    clear = zenith + (horizon - zenith) * height
    billows = shifted(field(size, COARSE, 0.5), *shift)[:rows, :, None]
    cover = np.clip((billows + 3.2 * weather.cloudiness - 1.6) * 0.8, 0, 1)
    cloud = np.minimum(1.04 * horizon + 12, 250) * (1 + 0.035 * billows)
    return np.asarray(clear + (cloud - clear) * (0.85 * cover), np.float32)
