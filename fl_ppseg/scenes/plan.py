"""The plan of one scene: camera, light, street, and everything that stands on it, far to near."""

import random
from dataclasses import dataclass

from fl_ppseg.scenes.camera import Camera
from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.ground import Skyline
from fl_ppseg.scenes.light import Light, draw_light
from fl_ppseg.scenes.lots import draw_backdrop, draw_lots
from fl_ppseg.scenes.mesh import Item
from fl_ppseg.scenes.street import Street, draw_street
from fl_ppseg.scenes.traffic import draw_furniture, draw_people, draw_riders, draw_vehicles

FEATURED = (
    frozenset({"bus", "wall", "motorcycle"}),
    frozenset({"truck", "fence"}),
    frozenset({"tram", "wall", "motorcycle", "fence"}),
)
"""Rare things that scenes bring in turn, so that even a small city shows every class."""


@dataclass(frozen=True, eq=False)
class Plan:
    """One scene in metres."""

    camera: Camera
    light: Light
    street: Street
    skyline: Skyline
    items: tuple[Item, ...]
    """In painting order."""


def draw_plan(draw: random.Random, style: CityStyle, index: int, size: tuple[int, int]) -> Plan:
    """Scene number `index` of a city; what is drawn does not depend on the size."""
    featured = FEATURED[index % len(FEATURED)]
    camera = Camera(
        size=size,
        height=style.camera_height * draw.uniform(0.95, 1.05),
        focal=style.focal,
        horizon=style.horizon + draw.uniform(-0.015, 0.015),
        yaw=draw.gauss(0, 0.03),
        bend=draw.gauss(0, 0.0006),
    )
    light = draw_light(draw, style)
    street = draw_street(draw, style, tram="tram" in featured or draw.random() < style.heavy)
    lots, skyline = draw_lots(draw, style, street, featured, lamps=light.lamps)
    things = [
        *draw_vehicles(draw, style, street, featured, light.weather.glow),
        *draw_riders(draw, style, street, featured),
        *draw_people(draw, style, street),
        *draw_furniture(draw, style, street, light.weather.glow),
    ]
    things.sort(key=lambda thing: -thing[0])
    # Along any line of sight the fronts of the lots lie behind what stands between them.
    standing = [item for _, items in things for item in items]
    items = (*draw_backdrop(draw, style), *lots, *standing)
    return Plan(camera, light, street, skyline, items)
