"""Sun and sky: how bright a surface is, what colour the air has, what the sky looks like."""

import random
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.worlds import RGB, WEATHERS, Weather

Floats = NDArray[np.float32]

WARM = np.asarray((1.06, 1.0, 0.9), np.float32)
COOL = np.asarray((0.95, 0.99, 1.08), np.float32)


@dataclass(frozen=True, eq=False)
class Light:
    """Light of one scene."""

    weather: Weather
    sun: Floats
    """(3,) unit vector towards the sun."""
    haze: float
    """Extinction per metre."""
    exposure: float

    @property
    def air(self) -> RGB:
        """Colour that far things fade to."""
        return self.weather.horizon

    @property
    def lamps(self) -> float:
        """How bright lamps behind windows are; 0 while the sun is high and none burns."""
        return self.weather.glow if self.weather.elevation[1] < 25 else 0.0

    @property
    def shadow(self) -> float:
        """Brightness of level ground in the shadow, relative to the same ground in the sun."""
        full = self.weather.ambient + self.weather.direct * float(self.sun[1])
        return self.weather.ambient / full

    def on(self, normals: Floats) -> Floats:
        """(P, 3) unit normals -> (P, 3) factors of the surface colour."""
        turned = np.clip(normals @ self.sun, 0, None)[:, None]
        open_sky = 0.85 + 0.15 * normals[:, 1:2]
        ambient = self.weather.ambient * open_sky * COOL
        return np.asarray(ambient + self.weather.direct * turned * WARM, np.float32)


def draw_light(draw: random.Random, style: CityStyle) -> Light:
    """The city's usual weather four times in five, any of its world otherwise; any sun."""
    name = style.weather if draw.random() < 0.8 else draw.choice(style.weathers)
    weather = WEATHERS[name]
    elevation = radians(draw.uniform(*weather.elevation))
    azimuth = radians(draw.uniform(-180, 180))
    sun = (sin(azimuth) * cos(elevation), sin(elevation), cos(azimuth) * cos(elevation))
    return Light(
        weather=weather,
        sun=np.asarray(sun, np.float32),
        haze=weather.haze * draw.uniform(0.6, 1.5),
        exposure=draw.uniform(0.88, 1.14),
    )
