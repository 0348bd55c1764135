"""Photometric distortion: random brightness, contrast, saturation and hue, as mmsegmentation's."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from fl_ppseg.system.arrays import Pixels


class Distortion(NamedTuple):
    """Parameters of mmsegmentation's PhotoMetricDistortion; neutral ones change nothing."""

    brightness: float = 0.0
    """Added to every value."""
    contrast_before: float = 1.0
    """Factor, applied before saturation and hue."""
    saturation: float = 1.0
    """Factor of the saturation."""
    hue: int = 0
    """Turn of the hue circle, in 1/256."""
    contrast_after: float = 1.0
    """Factor, applied after saturation and hue."""


def draw_distortion(rng: np.random.Generator) -> Distortion:
    """Draws as mmsegmentation does: each part with probability 1/2, contrast first or last."""
    use = rng.random(5) < 0.5
    brightness = rng.uniform(-32, 32)
    contrast, saturation = rng.uniform(0.5, 1.5, size=2)
    hue = int(rng.integers(-25, 26))  # mmsegmentation: up to 18 of OpenCV's 180
    return Distortion(
        brightness=brightness if use[0] else 0.0,
        contrast_before=contrast if use[1] and use[4] else 1.0,
        saturation=saturation if use[2] else 1.0,
        hue=hue if use[3] else 0,
        contrast_after=contrast if use[1] and not use[4] else 1.0,
    )


def distort(picture: Image.Image, distortion: Distortion) -> Image.Image:
    """RGB picture -> RGB picture of the same size."""
    before = _lut(distortion.contrast_before)[_lut(1.0, distortion.brightness)]
    picture = picture.point(np.tile(before, 3).tolist())
    if distortion.saturation != 1.0 or distortion.hue != 0:
        hue = (np.arange(256) + distortion.hue) % 256
        tables = np.concatenate([hue, _lut(distortion.saturation), np.arange(256)])
        picture = picture.convert("HSV").point(tables.tolist()).convert("RGB")
    if distortion.contrast_after != 1.0:
        picture = picture.point(np.tile(_lut(distortion.contrast_after), 3).tolist())
    return picture


def _lut(factor: float, summand: float = 0.0) -> Pixels:
    """(256,) uint8: v -> factor * v + summand, cut to 0..255."""
    values: Pixels = np.clip(np.arange(256) * factor + summand, 0, 255).astype(np.uint8)
    return values
