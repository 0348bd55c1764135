"""Cars, trucks, buses and trams: solids with windows, wheels and lamps; nose at +z."""

import random
from functools import cache
from math import cos, sin

import numpy as np

from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import Floats, Item, Mesh, Sketch, disc, rectangle
from fl_ppseg.scenes.worlds import RGB

BODY, GLASS, DARK, TAIL, LAMP, PLATE, SECOND, ROOF = range(8)

CAR_COLOURS: tuple[RGB, ...] = (
    (32, 34, 38),
    (60, 62, 68),
    (196, 198, 202),
    (150, 154, 160),
    (232, 232, 230),
    (42, 58, 104),
    (150, 32, 34),
    (92, 30, 36),
    (54, 84, 66),
    (196, 168, 60),
    (92, 116, 150),
)
CARGO_COLOURS: tuple[RGB, ...] = (
    (226, 226, 222),
    (204, 206, 210),
    (62, 96, 158),
    (186, 58, 46),
    (222, 176, 56),
    (74, 120, 88),
)


def _palette(body: RGB, second: RGB, oncoming: bool, glow: float) -> Floats:
    """Colours of the roles BODY ... ROOF; lamps are `glow` times as bright as by day."""
    roof = tuple(0.9 * channel + 10 for channel in body)
    colours = (
        body,
        (46, 56, 66),
        (24, 24, 26),
        (200, 24, 20),
        (250, 246, 226) if oncoming else (206, 208, 206),
        (226, 224, 206),
        second,
        roof,
    )
    paint = np.asarray(colours, np.float32)
    paint[[TAIL, LAMP]] *= glow
    return paint


def _at(z: float, points: Floats) -> Floats:
    """(N, 2) points of a front or back face -> (N, 3) at length z."""
    return np.insert(points, 2, z, axis=1)


def _beside(x: float, points: Floats) -> Floats:
    """(N, 2) points (z, y) of a side face -> (N, 3) at width x."""
    return np.stack((np.full(len(points), x), points[:, 1], points[:, 0]), axis=1)


def _span(z0: float, z1: float, y0: float, y1: float) -> Floats:
    """Rectangle of a side face: (4, 2) points (z, y)."""
    return np.asarray([(z0, y0), (z1, y0), (z1, y1), (z0, y1)], np.float32)


def _box(
    sketch: Sketch,
    label: Label,
    across: float,
    z: tuple[float, float],
    y: tuple[float, float],
    role: int = BODY,
) -> None:
    """Roof, nose, back and both sides of a box."""
    (z0, z1), (y0, y1), half = z, y, across / 2
    sketch.solid([(-half, y1, z0), (half, y1, z0), (half, y1, z1), (-half, y1, z1)], ROOF, label)
    for end in z:
        sketch.solid(_at(end, rectangle(0, y0, across, y1 - y0)), role, label)
    for side in (-half, half):
        sketch.solid(_beside(side, _span(z0, z1, y0, y1)), role, label)


def _wheels(sketch: Sketch, label: Label, across: float, radius: float, at: list[float]) -> None:
    """Tyres and hubs on both sides."""
    for side in (-across / 2 - 0.01, across / 2 + 0.01):
        for z in at:
            sketch.solid(_beside(side, disc(z, radius, radius)), DARK, label)
            sketch.solid(_beside(side, disc(z, radius, radius * 0.55, 8)), PLATE)


def _ends(sketch: Sketch, label: Label, across: float, z: tuple[float, float], y: float) -> None:
    """Wheels seen under the body, bumpers, lamps and number plates at height y, on both ends."""
    edge = across / 2 - 0.16
    for end, lamp in ((z[0] - 0.02, TAIL), (z[1] + 0.02, LAMP)):
        for side in (-1, 1):
            wheel = rectangle(side * (edge - 0.02), 0.0, 0.24, 0.45)
            sketch.solid(_at(end, wheel), DARK, label)
        sketch.solid(_at(end, rectangle(0, 0.28, across * 0.96, 0.24)), DARK, label)
        for side in (-1, 1):
            sketch.solid(_at(end, rectangle(side * edge, y, 0.28, 0.2)), lamp)
        sketch.solid(_at(end, rectangle(0, y - 0.12, 0.5, 0.13)), PLATE)


@cache
def car(kind: str) -> Mesh:
    """A saloon, an estate or a van, 4.2 to 5 m long."""
    length, width, height, waist, back, front = {
        "saloon": (4.5, 1.8, 1.46, 0.92, 0.9, 1.25),
        "estate": (4.3, 1.8, 1.52, 0.94, 0.12, 1.1),
        "van": (5.0, 1.95, 2.05, 1.1, 0.05, 0.8),
    }[kind]
    sketch = Sketch((0, height / 2, 0))
    rear, nose, half, top = -length / 2, length / 2, width / 2, width / 2 - 0.2
    low = [(half, waist, rear + back), (half, waist, nose - front)]
    high = [(top, height, rear + back + 0.35), (top, height, nose - front - 0.75)]
    _cabin(sketch, low, high)
    _box(sketch, Label.CAR, width, (rear, nose), (0.3, waist))
    for side in (-half, half):
        sill = _span(rear + 0.1, nose - 0.1, 0.22, 0.34)
        sketch.solid(_beside(side * 1.01, sill), DARK, Label.CAR)
    _wheels(sketch, Label.CAR, width, 0.33, [rear + 0.8, nose - 0.85])
    _ends(sketch, Label.CAR, width, (rear, nose), waist - 0.25)
    return sketch.build()


def _cabin(
    sketch: Sketch, low: list[tuple[float, float, float]], high: list[tuple[float, float, float]]
) -> None:
    """Roof, windscreens and side windows; right edges from back to front are given."""
    mirror = (-1.0, 1.0, 1.0)
    left_low, left_high = np.multiply(low, mirror), np.multiply(high, mirror)
    right_low, right_high = np.asarray(low), np.asarray(high)
    sketch.solid([left_high[0], right_high[0], right_high[1], left_high[1]], ROOF, Label.CAR)
    for end in (0, 1):
        pane = np.stack((left_low[end], right_low[end], right_high[end], left_high[end]))
        sketch.solid(pane, BODY, Label.CAR)
        centre = pane.mean(0)
        sketch.solid(centre + 0.86 * (pane - centre), GLASS)
    for lower, upper in ((left_low, left_high), (right_low, right_high)):
        side = np.stack((lower[0], lower[1], upper[1], upper[0]))
        sketch.solid(side, BODY, Label.CAR)
        middle_low, middle_high = side[:2].mean(0), side[2:].mean(0)
        for a, b, c, d in (
            (side[0], middle_low, middle_high, side[3]),
            (middle_low, side[1], side[2], middle_high),
        ):
            window = np.stack((a, b, c, d))
            centre = window.mean(0)
            sketch.solid(centre + 0.82 * (window - centre), GLASS)


@cache
def truck_cab() -> Mesh:
    """The driver's cab, nose at z = 2.2."""
    sketch = Sketch((0, 1.5, 1.2))
    _box(sketch, Label.TRUCK, 2.3, (0.2, 2.2), (0.4, 2.9))
    sketch.solid(_at(2.21, rectangle(0, 1.6, 2.0, 0.9)), GLASS)
    sketch.solid(_at(2.21, rectangle(0, 0.9, 1.3, 0.5)), DARK)
    for side in (-1.16, 1.16):
        sketch.solid(_beside(side, _span(0.9, 2.0, 1.7, 2.4)), GLASS)
    _wheels(sketch, Label.TRUCK, 2.3, 0.48, [1.3])
    _ends(sketch, Label.TRUCK, 2.3, (0.2, 2.2), 0.75)
    return sketch.build()


@cache
def truck_cargo() -> Mesh:
    """The box behind the cab, 5 m long."""
    sketch = Sketch((0, 1.9, -2.5))
    _box(sketch, Label.TRUCK, 2.4, (-5.0, -0.1), (0.75, 3.5), SECOND)
    _box(sketch, Label.TRUCK, 2.1, (-4.9, -0.2), (0.45, 0.8), DARK)
    sketch.solid(_at(-5.01, rectangle(0, 0.9, 0.06, 2.5)), DARK)
    for y in (0.8, 3.38):
        sketch.solid(_at(-5.01, rectangle(0, y, 2.4, 0.1)), BODY)
    for side in (-1.21, 1.21):
        sketch.solid(_beside(side, _span(-4.6, -0.6, 1.7, 2.6)), BODY)
    _wheels(sketch, Label.TRUCK, 2.3, 0.48, [-4.0, -2.9])
    _ends(sketch, Label.TRUCK, 2.3, (-5.0, -0.1), 0.72)
    return sketch.build()


@cache
def bus() -> Mesh:
    """A city bus, 11 m long."""
    sketch = Sketch((0, 1.5, 0))
    _box(sketch, Label.BUS, 2.5, (-5.5, 5.5), (0.32, 3.05))
    for end, low in ((-5.51, 1.55), (5.51, 1.05)):
        sketch.solid(_at(end, rectangle(0, low, 2.2, 2.55 - low)), GLASS)
        sketch.solid(_at(end, rectangle(0, 2.66, 1.7, 0.28)), DARK)
        sketch.solid(_at(end - 0.01 + 0.02 * (end > 0), rectangle(0, 2.72, 1.2, 0.16)), PLATE)
    for side in (-1.26, 1.26):
        sketch.solid(_beside(side, _span(-5.5, 5.5, 0.32, 0.75)), SECOND)
        for k in range(7):
            pane = _span(-5.3 + 1.52 * k, -3.95 + 1.52 * k, 1.35, 2.5)
            sketch.solid(_beside(side, pane), GLASS)
        for z in (-1.2, 4.2):
            sketch.solid(_beside(side, _span(z, z + 1.1, 0.45, 2.5)), GLASS)
    _wheels(sketch, Label.BUS, 2.5, 0.48, [-3.4, 2.7])
    _ends(sketch, Label.BUS, 2.5, (-5.5, 5.5), 0.85)
    return sketch.build()


@cache
def tram_car() -> Mesh:
    """One articulated section of a tram, 9 m long, low over its rails."""
    sketch = Sketch((0, 1.7, 0))
    roof = np.asarray([(-1.15, 3.3), (1.15, 3.3), (0.8, 3.65), (-0.8, 3.65)], np.float32)
    for end in (-4.5, 4.5):
        sketch.solid(_at(end, roof), DARK, Label.TRAIN)
    for side in (-0.95, 0.95):
        sketch.solid(_beside(side, _span(-4.0, 4.0, 3.3, 3.7)), DARK, Label.TRAIN)
    _box(sketch, Label.TRAIN, 2.4, (-4.5, 4.5), (0.15, 3.35))
    for end in (-4.51, 4.51):
        sketch.solid(_at(end, rectangle(0, 1.25, 2.05, 1.45)), GLASS)
        sketch.solid(_at(end, rectangle(0, 2.85, 1.4, 0.3)), DARK)
        sketch.solid(_at(end, rectangle(0, 0.15, 2.4, 0.55)), SECOND)
        for x in (-0.75, 0.75):
            sketch.solid(_at(end, disc(x, 0.9, 0.15, 8)), LAMP if end > 0 else TAIL)
    for side in (-1.21, 1.21):
        sketch.solid(_beside(side, _span(-4.5, 4.5, 0.15, 0.7)), SECOND)
        sketch.solid(_beside(side, _span(-4.3, 4.3, 1.35, 2.75)), GLASS)
        for z in (-2.4, 1.2):
            sketch.solid(_beside(side, _span(z, z + 1.3, 0.3, 2.8)), DARK)
            sketch.solid(_beside(side, _span(z + 0.1, z + 1.2, 0.5, 2.7)), GLASS)
    return sketch.build()


@cache
def shadow() -> Mesh:
    """Dark ground below a vehicle of unit width and length; paint only."""
    sketch = Sketch()
    sketch.sheet(
        [(-0.54, 0.01, -0.52), (0.54, 0.01, -0.52), (0.54, 0.01, 0.52), (-0.54, 0.01, 0.52)], 0
    )
    return sketch.build()


def _shade(x: float, z: float, heading: float, width: float, length: float) -> Item:
    """The shadow below a vehicle."""
    dark = np.asarray([(26, 26, 29)], np.float32)
    return Item(shadow(), dark, x, z, heading, (width, 1.0, length))


def draw_car(draw: random.Random, x: float, z: float, heading: float, glow: float) -> list[Item]:
    """A car of any kind and colour, far parts first; z is its middle."""
    kind = draw.choice(("saloon", "saloon", "estate", "estate", "van"))
    paint = _palette(draw.choice(CAR_COLOURS), (0, 0, 0), oncoming=abs(heading) > 1, glow=glow)
    size = draw.uniform(0.92, 1.06)
    body = Item(car(kind), paint, x, z, heading, (size, size, size))
    return [_shade(x, z, heading, 1.8, 4.4), body]


def draw_truck(draw: random.Random, x: float, z: float, heading: float, glow: float) -> list[Item]:
    """A cab and its box; z is the middle."""
    second = draw.choice(CARGO_COLOURS)
    paint = _palette(draw.choice(CARGO_COLOURS), second, oncoming=abs(heading) > 1, glow=glow)
    centre_x, centre_z = x + 1.4 * sin(heading), z + 1.4 * cos(heading)
    parts = [
        Item(truck_cab(), paint, centre_x, centre_z, heading),
        Item(truck_cargo(), paint, centre_x, centre_z, heading),
    ]
    ordered = parts if cos(heading) > 0 else parts[::-1]
    return [_shade(x, z, heading, 2.3, 7.2), *ordered]


def draw_bus(
    draw: random.Random, x: float, z: float, heading: float, glow: float, livery: RGB
) -> list[Item]:
    """A bus in the city's colours."""
    second = draw.choice(CARGO_COLOURS)
    paint = _palette(livery, second, oncoming=abs(heading) > 1, glow=glow)
    return [_shade(x, z, heading, 2.5, 11.0), Item(bus(), paint, x, z, heading)]


def draw_tram(
    draw: random.Random, x: float, z: float, heading: float, glow: float, livery: RGB
) -> list[Item]:
    """A tram of two or three sections, far sections first; z is the middle of the nearest."""
    paint = _palette((222, 220, 212), livery, oncoming=abs(heading) > 1, glow=glow)
    sections = [
        Item(tram_car(), paint, x, z + 9.3 * k, heading) for k in range(draw.choice((2, 3)))
    ]
    return [_shade(x, z, heading, 2.4, 9.0), *sections[::-1]]
