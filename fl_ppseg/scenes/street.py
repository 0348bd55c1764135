"""The plan of a street: strips of the ground, lanes, rails and crossings."""

import random
from dataclasses import dataclass
from itertools import accumulate
from math import pi

from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.worlds import RGB

KERB = 0.16
PARKING_WIDTH = 2.1


@dataclass(frozen=True)
class Lane:
    """Middle of a lane in u, and where its traffic looks: 0 away from the camera, pi towards it."""

    u: float
    heading: float


@dataclass(frozen=True)
class Street:
    """Strips along the street, from left to right, in metres; u = 0 below the camera."""

    road: tuple[float, float]
    lanes: tuple[Lane, ...]
    parking: tuple[Lane, ...]
    sidewalks: tuple[tuple[float, float], tuple[float, float]]
    facades: tuple[float, float]
    edges: tuple[float, ...]
    """(B - 1,) borders of the B strips."""
    labels: tuple[Label, ...]
    """(B,)."""
    colours: tuple[RGB, ...]
    """(B,)."""
    lines: tuple[tuple[float, float], ...]
    """(u, length of the gap between dashes) of each painted line; gap 0 = unbroken."""
    tracks: tuple[Lane, ...]
    """Lanes with the rails of a tram."""
    junction: tuple[float, float]
    """Range of z of the side street; empty (0, 0) for none."""
    crossing: tuple[float, float]
    """Range of z of a zebra crossing; empty (0, 0) for none."""


def draw_street(draw: random.Random, style: CityStyle, *, tram: bool) -> Street:
    """A street in the city's style, seen from its own lane on the right."""
    lanes = _lanes(style)
    half = style.lane_width / 2
    left, right = min(lane.u for lane in lanes) - half, max(lane.u for lane in lanes) + half
    lines = [(lane.u + half, 5.0) for lane in lanes if lane.u + half < right]
    lines += [(left + 0.15, 0.0), (right - 0.15, 0.0)]
    parking: tuple[Lane, ...] = ()
    if style.parking:
        parking = (Lane(left - PARKING_WIDTH / 2, pi), Lane(right + PARKING_WIDTH / 2, 0.0))
        left, right = left - PARKING_WIDTH, right + PARKING_WIDTH
    junction = _range(draw, 0.5, (14, 60), draw.uniform(8, 13))
    crossing = _range(draw, 0.4, (9, 26), 3.2)
    strips = _strips(style)
    outward = list(accumulate((width for width, _, _ in strips[:-1]), initial=0.0))
    walk = KERB + style.verge_width
    beyond = walk + style.sidewalk_width
    facade = beyond + style.setback
    labels = tuple(label for _, label, _ in strips)
    colours = tuple(colour for _, _, colour in strips)
    return Street(
        road=(left, right),
        lanes=lanes,
        parking=parking,
        sidewalks=((left - beyond, left - walk), (right + walk, right + beyond)),
        facades=(left - facade, right + facade),
        edges=(*(left - u for u in outward[::-1]), *(right + u for u in outward)),
        labels=(*labels[::-1], Label.ROAD, *labels),
        colours=(*colours[::-1], style.asphalt, *colours),
        lines=tuple(lines),
        tracks=tuple(lane for lane in lanes if lane.heading)[:1] if tram else (),
        junction=junction,
        crossing=crossing,
    )


def _lanes(style: CityStyle) -> tuple[Lane, ...]:
    """Lanes of the own direction, the camera's first, then those of oncoming traffic."""
    own = 1 if style.num_lanes < 4 else 2
    same = [Lane(style.lane_width * k, 0.0) for k in range(own)]
    oncoming = [Lane(-style.lane_width * (k + 1), pi) for k in range(style.num_lanes - own)]
    return (*same, *oncoming)


def _range(
    draw: random.Random, chance: float, start: tuple[float, float], length: float
) -> tuple[float, float]:
    """A range that starts somewhere in `start`, or the empty range."""
    near = draw.uniform(*start)
    return (near, near + length) if draw.random() < chance else (0.0, 0.0)


def _strips(style: CityStyle) -> list[tuple[float, Label, RGB]]:
    """(width, label, colour) of the strips from the kerb outwards; the last has no end."""
    bright = tuple(min(235, channel + 28) for channel in style.paving)
    kerb = (KERB, Label.SIDEWALK, (bright[0], bright[1], bright[2]))
    walk = (style.sidewalk_width, Label.SIDEWALK, style.paving)
    verge = [(style.verge_width, Label.TERRAIN, style.grass)] if style.verge_width else []
    garden = [(style.setback, Label.TERRAIN, style.grass)] if style.setback > 3 else []
    yard = [(style.setback, Label.SIDEWALK, style.paving)] if 0 < style.setback <= 3 else []
    return [kerb, *verge, walk, *garden, *yard, (99.0, Label.TERRAIN, style.grass)]
