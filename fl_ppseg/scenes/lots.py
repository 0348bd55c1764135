"""Lots on both sides of a street: houses, parks, walls and fences."""

import random

import numpy as np

from fl_ppseg.scenes.buildings import Front, draw_fence, draw_house, draw_wall
from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.ground import Skyline
from fl_ppseg.scenes.mesh import Item
from fl_ppseg.scenes.plants import draw_bush, draw_tree
from fl_ppseg.scenes.street import Street

FAR = 130.0
"""Distance in metres where the street's own lots end and the backdrop closes the view."""


def draw_backdrop(draw: random.Random, style: CityStyle) -> list[Item]:
    """Trees across the end of the street."""
    items: list[Item] = []
    for x in range(-110, 111, 10):
        size = draw.uniform(0.9, 1.7)
        items += draw_tree(draw, x + draw.uniform(-4, 4), FAR + 25, style.foliage, size)
    return items


def draw_lots(
    draw: random.Random, style: CityStyle, street: Street, featured: frozenset[str], lamps: float
) -> tuple[list[Item], Skyline]:
    """Both sides of the street, far lots first, and their shadows.

    Args:
        draw: random generator.
        style: the city.
        street: where the fronts stand and which range of z a side street keeps free.
        featured: `wall` and `fence` if they must appear.
        lamps: brightness of the lamps behind the windows, 0 for none.
    """
    lots: list[tuple[float, list[Item]]] = []
    skyline = Skyline(([], []), ([], []))
    for side, distance in ((-1, -street.facades[0]), (1, street.facades[1])):
        asked: list[str] = [
            kind for kind in ("wall", "fence") if kind in featured and draw.random() < 0.75
        ]
        for near, far in _ranges(draw, street.junction):
            kind = _lot_kind(draw, style, asked, near)
            if (near, far) == street.junction:
                kind = "none"
            front = Front(side, distance, near, far)
            items, height = _draw_lot(draw, style, front, kind, lamps)
            lots.append((far, items))
            skyline.ends[side > 0].append(far)
            skyline.heights[side > 0].append(height)
    lots.sort(key=lambda lot: -lot[0])
    return [item for _, items in lots for item in items], skyline


def _ranges(draw: random.Random, junction: tuple[float, float]) -> list[tuple[float, float]]:
    """Ranges of z that follow one another up to FAR; the junction, if any, is one of them."""
    ranges, near = [], 1.0
    while near < FAR:
        far = near + draw.uniform(9, 22)
        if near < junction[0] < far + 9:
            far = junction[0]
        elif near == junction[0]:
            far = junction[1]
        ranges.append((near, far))
        near = far
    return ranges


def _lot_kind(draw: random.Random, style: CityStyle, asked: list[str], near: float) -> str:
    """house, park, wall or fence; required kinds first, where the camera sees them well."""
    if asked and near > 12:
        return asked.pop()
    return (
        "house" if draw.random() < style.built else draw.choice(("park", "park", "wall", "fence"))
    )


def _draw_lot(
    draw: random.Random, style: CityStyle, front: Front, kind: str, lamps: float
) -> tuple[list[Item], float]:
    """The objects on one lot, far to near, and the height of its shadow in metres."""
    if kind == "none":
        return [], 0.0
    if kind == "house":
        house, height = draw_house(draw, style, front, lamps)
        return [house], height
    items = _draw_park(draw, style, front)
    if kind == "wall":
        items.append(draw_wall(draw, style, front))
    if kind == "fence":
        items.append(draw_fence(draw, front))
    return items, 4.0


def _draw_park(draw: random.Random, style: CityStyle, front: Front) -> list[Item]:
    """Trees with bushes before them."""
    items: list[Item] = []
    for z in np.arange(front.far, front.near, -3.5 if front.near < 40 else -7.0).tolist():
        x = front.side * (front.distance + draw.uniform(1.5, 9))
        items += draw_tree(draw, x, z - 1, style.foliage, draw.uniform(0.7, 1.1))
        beside = front.side * (front.distance + draw.uniform(0.7, 2.0))
        items += draw_bush(draw, beside, z - 2.4, style.foliage)
    return items
