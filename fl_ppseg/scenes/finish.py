"""From painted surfaces to a photograph: texture, haze, colour, vignette and sensor noise."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.scenes.canvas import FADE
from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.light import Light
from fl_ppseg.scenes.noise import COARSE, FINE, field, shifted

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

TEXTURE: dict[Label, tuple[float, float, float]] = {
    Label.BUILDING: (0.06, 0.03, 0.045),
    Label.WALL: (0.09, 0.04, 0.09),
    Label.FENCE: (0.08, 0.03, 0.03),
    Label.VEGETATION: (0.26, 0.17, 0.0),
    Label.TERRAIN: (0.1, 0.1, 0.0),
    Label.PERSON: (0.06, 0.03, 0.03),
    Label.RIDER: (0.06, 0.03, 0.03),
    Label.CAR: (0.02, 0.03, 0.02),
    Label.TRUCK: (0.03, 0.03, 0.03),
    Label.BUS: (0.02, 0.03, 0.03),
    Label.TRAIN: (0.02, 0.03, 0.03),
    Label.POLE: (0.05, 0.04, 0.0),
    Label.MOTORCYCLE: (0.08, 0.05, 0.0),
    Label.BICYCLE: (0.08, 0.05, 0.0),
}
"""Relative deviation of (grain, stains, streaks that run down) on each kind of surface."""

REACH = 4
"""Headlamps fade as nearness to this power: to 1/e after FADE / REACH = 15 m."""
LUMA = np.asarray((0.299, 0.587, 0.114), np.float32)


@lru_cache(maxsize=1)
def _amplitudes() -> Floats:
    """(3, 256) the table above by labelId."""
    table = np.zeros((3, 256), np.float32)
    for label, amounts in TEXTURE.items():
        table[:, label] = amounts
    return table


@lru_cache(maxsize=4)
def _vignette(size: tuple[int, int]) -> Floats:
    """(H, W, 1) darker corners."""
    rows, columns = size
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)
    return np.asarray(1.03 - 0.09 * (x * x + y * y), np.float32)[..., None]


def _texture(labels: Bytes, generator: np.random.Generator) -> Floats:
    """(H, W) factor around 1."""
    shifts = generator.random((3, 2)).tolist()
    grain = shifted(field(labels.shape, FINE), *shifts[0])
    stains = shifted(field(labels.shape, COARSE), *shifts[1])
    streaks = shifted(field(labels.shape, FINE[:2], 6.0), *shifts[2])
    amounts = _amplitudes()
    factor = amounts[0][labels] * grain + amounts[1][labels] * stains
    return np.asarray(1 + factor + amounts[2][labels] * streaks, np.float32)


def _colour_matrix(style: CityStyle, light: Light) -> Floats:
    """(3, 3) right factor: saturation and white balance of camera and light, exposure."""
    grey = np.outer(LUMA, np.ones(3, np.float32))
    mixed = style.saturation * np.eye(3, dtype=np.float32) + (1 - style.saturation) * grey
    camera = np.asarray((1 + style.warmth, 1, 1 - style.warmth))
    return np.asarray(
        mixed * (np.asarray(light.weather.balance) * camera * light.exposure), np.float32
    )


def finish(
    picture: Bytes,
    labels: Bytes,
    style: CityStyle,
    light: Light,
    generator: np.random.Generator,
) -> Bytes:
    """(H, W, 4) colour and nearness, (H, W) labelIds -> (H, W, 3) photograph."""
    # Beer-Lambert: transmittance exp(-haze * z), from nearness 255 * exp(-z / FADE).
    clear = (np.arange(256, dtype=np.float32) / 255) ** (light.haze * FADE)
    through = np.where(labels == Label.SKY, np.float32(1), clear[picture[..., 3]])
    beam = 1 + light.weather.beam * (picture[..., 3].astype(np.float32) / 255) ** REACH
    photo = picture[..., :3] * (_texture(labels, generator) * through * beam)[..., None]
    photo += np.asarray(light.air, np.float32) * (1 - through)[..., None]
    photo = (photo @ _colour_matrix(style, light)) * _vignette(labels.shape)
    grain = generator.standard_normal(photo.shape, dtype=np.float32)
    photo += grain * (style.noise * (0.5 + photo / 256))
    return _exposed(np.clip(photo, 0, 255), style).astype(np.uint8)


def _exposed(photo: Floats, style: CityStyle) -> Floats:
    """(H, W, 3) in 0..255 as the city's camera records it: its response, then stray light."""
    if style.gamma != 1:
        photo = np.asarray(255 * (photo / 255) ** style.gamma, np.float32)
    return np.asarray(photo + style.veil * (255 - photo), np.float32)
