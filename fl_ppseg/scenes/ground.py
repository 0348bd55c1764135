"""The ground in perspective: strips of the street with grain, paving, paint and shadows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.scenes.camera import Camera
from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.light import Light
from fl_ppseg.scenes.noise import WORLD, ground_tile
from fl_ppseg.scenes.street import Street

Floats = NDArray[np.float32]

PAINT = np.asarray((222, 222, 216), np.float32)
RAIL = np.asarray((78, 76, 76), np.float32)
DASH = 3.0
"""Length of a dash in metres."""
LINE = 0.15
"""Width of a painted line in metres."""
GAUGE = 1.435


@dataclass(frozen=True, eq=False)
class Skyline:
    """What stands on both sides and casts a shadow: ends and heights of its lots in metres."""

    ends: tuple[list[float], list[float]]
    heights: tuple[list[float], list[float]]


def paint_ground(
    camera: Camera,
    street: Street,
    style: CityStyle,
    light: Light,
    skyline: Skyline,
    origin: tuple[float, float],
) -> tuple[int, Floats, NDArray[np.uint8], Floats]:
    """Everything below the horizon.

    Args:
        origin: shift of the ground's texture, in metres.

    Returns:
        First row; colours (R, W, 3) in 0..255; labelIds (R, W); distances in metres (R, 1).
    """
    first, u, z = camera.ground()
    strip = np.searchsorted(np.asarray(street.edges, np.float32), u)
    strip = np.where(_between(z, street.junction), len(street.labels) // 2, strip)
    labels = np.asarray(street.labels, np.uint8)[strip]
    colours = np.asarray(street.colours, np.float32)[strip]
    pixel = z / camera.scale
    road = labels == Label.ROAD
    colours *= _grain(u, z, labels, origin)[..., None]
    colours *= 1 - 0.16 * ((labels == Label.SIDEWALK) * _joints(u, z, pixel, style))[..., None]
    painted = _paint(u, z, pixel, street) * road
    colours += (PAINT - colours) * (painted * 0.85)[..., None]
    colours += (RAIL - colours) * (_rails(u, pixel, street) * road)[..., None]
    lit = light.on(np.asarray([(0.0, 1.0, 0.0)], np.float32))[0]
    shade = 1 - (1 - light.shadow) * _shadow(u, z, street, light, skyline)
    return first, colours * shade[..., None] * lit, labels, z


def _between(z: Floats, limits: tuple[float, float]) -> NDArray[np.bool_]:
    """Where z lies in the range."""
    return (z > limits[0]) & (z < limits[1])


def _line(distance: Floats, width: float, pixel: Floats) -> Floats:
    """Share of a pixel that a line covers, given the distance of its middle; all in metres."""
    cover = (width / 2 - np.abs(distance)) / pixel + 0.5
    return np.asarray(np.clip(cover, 0, np.minimum(1, width / pixel)), np.float32)


def _grain(u: Floats, z: Floats, labels: NDArray[np.uint8], origin: tuple[float, float]) -> Floats:
    """Texture as a factor around 1: grains and blades nearby, stains everywhere."""
    down, across = z + origin[0], u + origin[1]
    fine = ground_tile((64, 128, 256))[_index(14 * down), _index(14 * across)]
    stains = ground_tile((16, 32, 64))[_index(2.2 * down), _index(5 * across)]
    rough = np.full(256, 0.075, np.float32)
    rough[Label.TERRAIN] = 0.2
    fade = 1 / (1 + (z / 22) ** 2)
    return 1 + rough[labels] * (0.25 + 0.75 * fade) * fine + 0.055 * stains


def _index(position: Floats) -> NDArray[np.intp]:
    """Cell of the tile that covers a position."""
    return np.asarray(np.floor(position), np.intp) & (WORLD - 1)


def _joints(u: Floats, z: Floats, pixel: Floats, style: CityStyle) -> Floats:
    """Joints between slabs: 1 on a joint, fading where slabs get smaller than pixels."""
    size = style.paving_size
    along = (u / size - np.floor(u / size) - 0.5) * size
    across = (z / size - np.floor(z / size) - 0.5) * size
    depth = pixel * z
    cover = _line(along, 0.04, pixel), _line(across, 0.05, np.maximum(depth, 1e-3))
    return np.maximum(*cover)


def _paint(u: Floats, z: Floats, pixel: Floats, street: Street) -> Floats:
    """White paint: lines, dashes and a zebra crossing; none inside a junction."""
    cover = np.zeros_like(u)
    for at, gap in street.lines:
        dashed = (z % (DASH + gap)) < DASH if gap else True
        cover = np.maximum(cover, _line(u - at, LINE, pixel) * dashed)
    cover *= ~_between(z, street.junction)
    stripes = (u % 1.1) < 0.55
    return np.where(_between(z, street.crossing), stripes.astype(np.float32), cover)


def _rails(u: Floats, pixel: Floats, street: Street) -> Floats:
    """Rails of trams, two a track."""
    cover = np.zeros_like(u)
    for track in street.tracks:
        for side in (-GAUGE / 2, GAUGE / 2):
            cover = np.maximum(cover, _line(u - track.u - side, 0.11, pixel))
    return cover


def _shadow(u: Floats, z: Floats, street: Street, light: Light, skyline: Skyline) -> Floats:
    """1 where the houses on the sun's side shade the ground, 0 in the sun."""
    side = 1 if light.sun[0] > 0 else 0
    reach = abs(float(light.sun[0])) / max(float(light.sun[1]), 0.1)
    ends = np.asarray(skyline.ends[side], np.float32)
    heights = np.asarray(skyline.heights[side], np.float32)
    shift = z + (float(light.sun[2]) / max(float(light.sun[1]), 0.1)) * 4.0
    tall = heights[np.minimum(np.searchsorted(ends, shift), len(heights) - 1)]
    away = np.abs(street.facades[side] - u)
    return np.asarray(np.clip((tall * reach - away) / 0.3 + 0.5, 0, 1), np.float32)
