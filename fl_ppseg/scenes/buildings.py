"""Houses with windows, walls and fences along a street, in street coordinates.

Every front lies in the plane |x| = const along the street and faces its middle.
"""

import random
from dataclasses import dataclass

import numpy as np

from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import UNPAINTED, Floats, Item, Sketch
from fl_ppseg.scenes.worlds import RGB

WALL, ROOF, DARK, MIRROR, CURTAIN, TRIM, SHOP, SIGN, PLINTH, BLEND = range(10)

DETAIL = 48.0
"""Distance in metres beyond which a row of windows is one band."""
STOREY = 3.1
DEPTH = 11.0
"""Depth of a house in metres."""


@dataclass(frozen=True)
class Front:
    """A strip of the plane |x| = distance; `side` is -1 left of the street, 1 right of it."""

    side: int
    distance: float
    near: float
    far: float

    @property
    def normal(self) -> tuple[float, float, float]:
        """Towards the street."""
        return (-float(self.side), 0.0, 0.0)

    def quads(self, z: Floats, y: Floats, lift: float = 0.0) -> Floats:
        """(K, 2) ranges of z and of y -> (K, 4, 3) corners, `lift` metres before the plane."""
        corners = np.empty((len(z), 4, 3), np.float32)
        corners[..., 0] = self.side * (self.distance - lift)
        corners[..., 1] = y[:, (0, 0, 1, 1)]
        corners[..., 2] = z[:, (0, 1, 1, 0)]
        return corners

    def strip(self, low: float, high: float, lift: float = 0.0) -> Floats:
        """The whole length between two heights: (1, 4, 3)."""
        z, y = (self.near, self.far), (low, high)
        return self.quads(np.asarray([z], np.float32), np.asarray([y], np.float32), lift)


def _tint(draw: random.Random, colour: RGB, spread: float) -> Floats:
    """The colour, brighter or darker by up to `spread`, a little off in hue."""
    bright = 1 + draw.uniform(-spread, spread)
    return np.asarray([c * bright * draw.uniform(0.97, 1.03) for c in colour], np.float32)


def _house_palette(draw: random.Random, style: CityStyle, lamps: float) -> Floats:
    """Colours of the roles WALL ... BLEND."""
    wall = _tint(draw, draw.choice(style.facades), 0.1)
    glass = np.asarray((58, 66, 76), np.float32)
    curtain = np.asarray((255, 214, 140) if lamps else (142, 140, 134), np.float32)
    sign = [draw.choice((40, 90, 150, 210)) for _ in range(3)]
    trim = np.minimum(0.7 * wall + 72, 240)
    return np.stack(
        (
            wall,
            _tint(draw, style.roof, 0.15),
            glass * 0.75,
            glass * 1.5 + 10,
            curtain * max(lamps, 1.0),
            trim,
            np.asarray((72, 78, 84), np.float32),
            np.asarray(sign, np.float32),
            0.72 * wall,
            0.62 * wall + 0.38 * glass,
        )
    ).astype(np.float32)


def _ranges(start: float, stop: float, number: int, share: float) -> Floats:
    """`number` even intervals that each fill `share` of their pitch: (number, 2)."""
    pitch = (stop - start) / number
    middles = start + pitch * (np.arange(number, dtype=np.float32) + 0.5)
    return np.stack((middles - share * pitch / 2, middles + share * pitch / 2), axis=1)


def _grid(z: Floats, y: Floats) -> tuple[Floats, Floats]:
    """All pairs of (C, 2) columns and (R, 2) rows."""
    return np.tile(z, (len(y), 1)), np.repeat(y, len(z), axis=0)


def _windows(sketch: Sketch, draw: random.Random, front: Front, floors: int, ground: float) -> None:
    """Rows of windows above the ground floor, as panes nearby and as bands far away."""
    y = ground + STOREY * np.arange(floors, dtype=np.float32)[:, None] + (0.85, 2.45)
    if front.near > DETAIL:
        inner = np.repeat([[front.near + 0.8, front.far - 0.8]], floors, axis=0)
        sketch.quads(front.quads(inner, y), [BLEND] * floors, front.normal)
        return
    number = max(2, int((front.far - front.near) / draw.uniform(2.2, 3.4)))
    columns = _ranges(front.near + 0.4, front.far - 0.4, number, draw.uniform(0.4, 0.62))
    z, heights = _grid(columns, y.astype(np.float32))
    if front.near < DETAIL / 2:
        frame = np.asarray((-0.14, 0.14), np.float32)
        sketch.quads(front.quads(z + frame, heights + frame), [TRIM] * len(z), front.normal)
    panes = draw.choices((DARK, MIRROR, CURTAIN), (5, 3, 2), k=len(z))
    sketch.quads(front.quads(z, heights, 0.02), panes, front.normal)


def _ground_floor(sketch: Sketch, draw: random.Random, front: Front, height: float) -> None:
    """A plinth and a row of shop windows with a sign above, or plain windows and a door."""
    sketch.quads(front.strip(0.0, 0.5), [PLINTH], front.normal)
    number = max(2, int((front.far - front.near) / 3.5))
    shop = draw.random() < 0.45
    z = _ranges(front.near + 0.3, front.far - 0.3, number, 0.8 if shop else 0.42)
    span = (0.45, height - 0.9) if shop else (1.1, 2.6)
    y = np.repeat(np.asarray([span], np.float32), number, axis=0)
    sketch.quads(front.quads(z, y), [SHOP if shop else DARK] * number, front.normal)
    if shop:
        sketch.quads(front.strip(height - 0.8, height - 0.25, 0.05), [SIGN], front.normal)
    door = front.near + draw.uniform(0.2, 0.8) * (front.far - front.near - 1.2)
    leaf = np.asarray([(door, door + 1.1)], np.float32)
    reach = np.asarray([(0.0, 2.3)], np.float32)
    sketch.quads(front.quads(leaf, reach, 0.03), [PLINTH], front.normal)


def _gable(sketch: Sketch, front: Front, height: float, ridge: float) -> None:
    """The end of the house that looks at the camera, with the outline of its roof."""
    inner, outer = front.side * front.distance, front.side * (front.distance + DEPTH)
    middle, z = (inner + outer) / 2, front.near
    outline = [
        (inner, 0, z),
        (outer, 0, z),
        (outer, height, z),
        (middle, ridge, z),
        (inner, height, z),
    ]
    sketch.solid(outline, WALL, Label.BUILDING)


def _gable_windows(sketch: Sketch, front: Front, floors: int, ground: float) -> None:
    """Two columns of windows in the gable of a house nearby."""
    if front.near > DETAIL or front.near < 3.0:
        return
    x = front.side * (front.distance + np.asarray([(2.4, 3.6), (6.4, 7.6)], np.float32))
    y = ground + STOREY * np.arange(floors, dtype=np.float32)[:, None] + (0.9, 2.3)
    across, up = _grid(x, y.astype(np.float32))
    corners = np.empty((len(across), 4, 3), np.float32)
    corners[..., 0], corners[..., 1] = across[:, (0, 1, 1, 0)], up[:, (0, 0, 1, 1)]
    corners[..., 2] = front.near - 0.02
    sketch.quads(corners, [DARK] * len(corners), (0.0, 0.0, -1.0))


def draw_house(
    draw: random.Random, style: CityStyle, front: Front, lamps: float
) -> tuple[Item, float]:
    """A house with its front at `front`; also gives the height of its eaves in metres."""
    floors = draw.randint(*style.floors) - 1
    ground = draw.uniform(3.2, 4.2)
    height = ground + STOREY * floors + 0.5
    ridge = height + (draw.uniform(2.0, 4.0) if style.roof[0] > 80 else 0.3)
    middle = front.side * (front.distance + DEPTH / 2)
    sketch = Sketch((middle, height / 2, (front.near + front.far) / 2))
    _gable(sketch, front, height, ridge)
    _gable_windows(sketch, front, floors, ground)
    slope = front.strip(height, ridge)
    slope[:, 2:, 0] = middle
    sketch.quads(slope, [ROOF], (-0.55 * front.side, 0.83, 0.0), Label.BUILDING)
    sketch.quads(front.strip(0.0, height), [WALL], front.normal, Label.BUILDING)
    _ground_floor(sketch, draw, front, ground)
    _windows(sketch, draw, front, floors, ground)
    sketch.quads(front.strip(height - 0.35, height, 0.1), [TRIM], front.normal)
    sketch.quads(front.strip(ground - 0.1, ground + 0.1, 0.06), [TRIM], front.normal)
    return Item(sketch.build(), _house_palette(draw, style, lamps)), height


def draw_wall(draw: random.Random, style: CityStyle, front: Front) -> Item:
    """A garden or retaining wall of 1.6 to 3.2 m with courses of stone and a coping."""
    height = draw.uniform(1.6, 3.2)
    sketch = Sketch((front.side * (front.distance + 0.4), height / 2, front.near + 1))
    inner, outer = front.side * front.distance, front.side * (front.distance + 0.5)
    end = [(inner, 0.0, front.near), (outer, 0.0, front.near)]
    end += [(outer, height, front.near), (inner, height, front.near)]
    sketch.solid(end, WALL, Label.WALL)
    sketch.quads(front.strip(0.0, height), [WALL], front.normal, Label.WALL)
    if front.near < DETAIL:
        number = max(2, int((front.far - front.near) / 1.6))
        rows = np.arange(0.0, height - 0.3, 0.45, dtype=np.float32)[:, None] + (0.04, 0.41)
        z, y = _grid(_ranges(front.near, front.far, number, 0.95), rows.astype(np.float32))
        stones = draw.choices((WALL, PLINTH, TRIM), (4, 3, 1), k=len(z))
        sketch.quads(front.quads(z, y), stones, front.normal)
    sketch.quads(front.strip(height - 0.2, height, 0.08), [TRIM], front.normal, Label.WALL)
    paint = np.empty((10, 3), np.float32)
    stone = _tint(draw, draw.choice(((150, 142, 130), (128, 124, 120), (154, 104, 84))), 0.12)
    paint[:] = stone
    paint[PLINTH], paint[TRIM] = 0.84 * stone, np.minimum(1.14 * stone, 250)
    return Item(sketch.build(), paint)


def draw_fence(draw: random.Random, front: Front) -> Item:
    """A see-through fence of 1 to 1.9 m: posts, rails and bars; the gaps carry its label too."""
    height = draw.uniform(1.0, 1.9)
    sketch = Sketch()
    sketch.quads(front.strip(0.0, height), [UNPAINTED], front.normal, Label.FENCE)
    pitch = draw.choice((0.24, 0.4)) if front.near < DETAIL / 2 else 1.2
    number = max(4, int((front.far - front.near) / pitch))
    z = _ranges(front.near, front.far, number, 0.42)
    y = np.repeat(np.asarray([(0.08, height)], np.float32), number, axis=0)
    sketch.quads(front.quads(z, y), [WALL] * number, front.normal)
    for rail in (0.25, height - 0.18):
        sketch.quads(front.strip(rail, rail + 0.12, 0.03), [ROOF], front.normal, Label.FENCE)
    metal = _tint(draw, draw.choice(((84, 92, 88), (150, 152, 154), (112, 84, 58))), 0.15)
    return Item(sketch.build(), np.stack((metal, 0.85 * metal)))
