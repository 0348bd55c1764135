"""The plan of one scene: camera, light, street, and everything that stands on it, far to near."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi

import numpy as np

from fl_ppseg.scenes.buildings import Front, draw_fence, draw_house, draw_wall
from fl_ppseg.scenes.camera import Camera
from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.figures import draw_rider, draw_walker
from fl_ppseg.scenes.furniture import draw_bin, draw_lamp, draw_sign, draw_traffic_light
from fl_ppseg.scenes.ground import Skyline
from fl_ppseg.scenes.light import Light, draw_light
from fl_ppseg.scenes.mesh import Item
from fl_ppseg.scenes.plants import draw_bush, draw_tree
from fl_ppseg.scenes.street import Lane, Street, draw_street
from fl_ppseg.scenes.vehicles import draw_bus, draw_car, draw_tram, draw_truck

FAR = 130.0
"""Distance in metres where the street's own houses end."""

FEATURED = (
    frozenset({"bus", "wall", "motorcycle"}),
    frozenset({"truck", "fence", "bicycle"}),
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
    wanted = FEATURED[index % len(FEATURED)]
    camera = Camera(
        size=size,
        height=style.camera_height * draw.uniform(0.95, 1.05),
        focal=style.focal,
        horizon=style.horizon + draw.uniform(-0.015, 0.015),
        yaw=draw.gauss(0, 0.03),
        bend=draw.gauss(0, 0.0006),
    )
    light = draw_light(draw, style)
    tram = "tram" in wanted or draw.random() < style.heavy
    street = draw_street(draw, style, tram=tram)
    lots, skyline = _draw_lots(draw, style, street, wanted, light)
    things = [*_draw_traffic(draw, style, street, wanted, tram)]
    things += _draw_pavement(draw, style, street, wanted)
    things.sort(key=lambda thing: -thing[0])
    items = [*_draw_backdrop(draw, style), *lots]
    items += [item for _, group in things for item in group]
    return Plan(camera, light, street, skyline, tuple(items))


def _draw_backdrop(draw: random.Random, style: CityStyle) -> list[Item]:
    """What closes the view at the end of the street: houses and trees side by side."""
    items: list[Item] = []
    for x in range(-110, 111, 10):
        items += draw_tree(
            draw, x + draw.uniform(-4, 4), FAR + 25, style.foliage, draw.uniform(0.9, 1.7)
        )
    return items


def _draw_lots(
    draw: random.Random,
    style: CityStyle,
    street: Street,
    wanted: frozenset[str],
    light: Light,
) -> tuple[list[Item], Skyline]:
    """Both sides of the street, far lots first, and their heights."""
    lots: list[tuple[float, list[Item]]] = []
    ends: list[list[float]] = [[], []]
    heights: list[list[float]] = [[], []]
    lit = light.weather.elevation[1] < 25
    for side, distance in ((-1, -street.facades[0]), (1, street.facades[1])):
        showcase = [kind for kind in ("wall", "fence") if kind in wanted and draw.random() < 0.75]
        near = 1.0
        while near < FAR:
            far = near + draw.uniform(9, 22)
            if street.junction[0] - 9 < far and near < street.junction[1]:
                far = street.junction[0] if near < street.junction[0] - 3 else street.junction[1]
            front = Front(side, distance, near, far)
            open_lot = near >= street.junction[0] and far <= street.junction[1]
            kind = "none" if open_lot else _lot_kind(draw, style, showcase, near)
            items, height = _draw_lot(draw, style, front, kind, lit)
            lots.append((far, items))
            ends[side > 0].append(far)
            heights[side > 0].append(height)
            near = far
    lots.sort(key=lambda lot: -lot[0])
    skyline = Skyline(
        (np.float32(ends[0]), np.float32(ends[1])), (np.float32(heights[0]), np.float32(heights[1]))
    )
    return [item for _, items in lots for item in items], skyline


def _lot_kind(draw: random.Random, style: CityStyle, showcase: list[str], near: float) -> str:
    """house, park, wall or fence; a wanted kind comes first where the camera sees it well."""
    if showcase and near > 12:
        return showcase.pop()
    if draw.random() < style.built:
        return "house"
    return draw.choice(("park", "park", "wall", "fence"))


def _draw_lot(
    draw: random.Random, style: CityStyle, front: Front, kind: str, lit: bool
) -> tuple[list[Item], float]:
    """The things on one lot, far to near, and the height of its shadow."""
    if kind == "none":
        return [], 0.0
    if kind == "house":
        house, height = draw_house(draw, style, front, lit)
        return [house], height
    items: list[Item] = []
    pitch = 3.5 if front.near < 40 else 7.0
    for z in np.arange(front.far, front.near, -pitch).tolist():
        x = front.side * (front.distance + draw.uniform(1.5, 9))
        items += draw_tree(draw, x, z - 1, style.foliage, draw.uniform(0.7, 1.1))
        beside = front.side * (front.distance + draw.uniform(0.7, 2.0))
        items += draw_bush(draw, beside, z - 2.4, style.foliage)
    if kind == "wall":
        items.append(draw_wall(draw, style, front))
    if kind == "fence":
        items.append(draw_fence(draw, front))
    return items, 4.0


Thing = tuple[float, list[Item]]
"""Distance and what stands there, far to near."""


class Kerbside:
    """Free places along lines u = const: nothing is put into what is there already."""

    def __init__(self, draw: random.Random, style: CityStyle) -> None:
        self._draw = draw
        self._view = style.focal * 1.05
        self._taken: dict[float, list[tuple[float, float]]] = {}

    def place(self, u: float, length: float, near: float, far: float) -> float | None:
        """Middle of a free place of `length` metres that the camera sees, or None after 6 tries."""
        taken = self._taken.setdefault(u, [])
        first = max(near, abs(u) * self._view) + length / 2
        for _ in range(6):
            z = self._draw.uniform(first, max(far, first + 6))
            span = (z - length / 2 - 1.0, z + length / 2 + 1.0)
            if all(span[1] < low or high < span[0] for low, high in taken):
                taken.append(span)
                return z
        return None


def _draw_traffic(
    draw: random.Random,
    style: CityStyle,
    street: Street,
    wanted: frozenset[str],
    tram: bool,
) -> Iterator[Thing]:
    """Vehicles in lanes and along the kerb, riders at the side of the lanes."""
    places = Kerbside(draw, style)
    oncoming = [lane for lane in street.lanes if lane.heading]

    def put(
        lane: Lane,
        length: float,
        near: float,
        far: float,
        make: Callable[..., list[Item]],
        *more: object,
    ) -> Iterator[Thing]:
        z = places.place(lane.u, length, near, far)
        if z is not None:
            wobble = draw.uniform(-0.02, 0.02)
            x = lane.u + draw.uniform(-0.2, 0.2)
            yield z, make(draw, x, z, lane.heading + wobble, *more)

    if tram and street.rails:
        track = Lane(street.rails[0], pi)
        yield from put(track, 27, 8, 32, draw_tram, style.livery)
    if "bus" in wanted or draw.random() < style.heavy:
        yield from put(draw.choice(street.lanes), 11, 9, 32, draw_bus, style.livery)
    if "truck" in wanted or draw.random() < style.heavy:
        yield from put(draw.choice(street.lanes), 7.5, 9, 28, draw_truck)
    for lane in street.lanes:
        for _ in range(_poisson(draw, style.traffic)):
            yield from put(lane, 4.6, 8 if lane.heading else 11, 90, draw_car)
    for lane in street.parking:
        for _ in range(round(style.parking * 13)):
            yield from put(lane, 4.8, 4, 80, draw_car)
    yield from _draw_riders(draw, style, street, wanted, oncoming)


def _draw_riders(
    draw: random.Random,
    style: CityStyle,
    street: Street,
    wanted: frozenset[str],
    oncoming: list[Lane],
) -> Iterator[Thing]:
    """People on two wheels between the lanes and the kerb, and machines parked on the sidewalk."""
    number = max(_poisson(draw, style.riders), 1)
    for k in range(number):
        motor = ("motorcycle" in wanted) if k == 0 else draw.random() < 0.35
        lane = draw.choice(street.lanes)
        u = lane.u + draw.choice((-1, 1)) * draw.uniform(0.9, 1.5)
        near = max(6.0, abs(u) * style.focal * 1.1)
        z = draw.uniform(near, near + (10 if k == 0 else 26))
        yield z, draw_rider(draw, u, z, motor=motor, side=draw.random() < 0.5)
    for low, high in street.sidewalks:
        if draw.random() < 0.45:
            u = draw.uniform(low, high)
            start = max(7.0, abs(u) * style.focal * 1.15) + draw.uniform(0, 14)
            motor = draw.random() < 0.35
            for k in range(draw.randint(1, 4)):
                z = start + 0.9 * k
                yield z, draw_rider(draw, u, z, motor=motor, side=True, ridden=False)


def _draw_pavement(
    draw: random.Random, style: CityStyle, street: Street, wanted: frozenset[str]
) -> Iterator[Thing]:
    """People, trees and furniture on both sidewalks, and people who cross the street."""
    for side, (low, high) in zip((-1, 1), street.sidewalks, strict=True):
        kerb, wall = (high, low) if side < 0 else (low, high)
        near = abs(kerb) * style.focal * 1.02
        for _ in range(_poisson(draw, style.persons / 2)):
            u = draw.uniform(low + 0.3, high - 0.3)
            z = max(6.0, abs(u) * style.focal * 1.05) + draw.expovariate(1 / 12)
            yield z, draw_walker(draw, u, z)
        z = draw.uniform(4, 4 + style.tree_spacing)
        while z < FAR:
            if not street.junction[0] < z < street.junction[1]:
                at = kerb + side * 0.9
                yield z, draw_tree(draw, at, z, style.foliage, draw.uniform(0.6, 1.0))
            z += style.tree_spacing * draw.uniform(0.8, 1.3)
        for make, number, spread in (
            (draw_lamp, 2, 50.0),
            (draw_sign, 2, 24.0),
            (draw_bin, 1, 18.0),
        ):
            for _ in range(number):
                z = max(6.0, near) + draw.uniform(0, spread)
                yield z, make(draw, kerb + side * 0.45, z)
        yield from _draw_signals(draw, street, kerb + side * 0.4, max(near, 7.0))
    if street.crossing[1]:
        for _ in range(_poisson(draw, style.persons / 4)):
            z = draw.uniform(*street.crossing)
            yield z, draw_walker(draw, draw.uniform(*street.road), z)


def _draw_signals(draw: random.Random, street: Street, u: float, near: float) -> Iterator[Thing]:
    """Traffic lights before the junction and the crossing, or one somewhere ahead."""
    places = [limits[0] - 1.0 for limits in (street.junction, street.crossing) if limits[1]]
    for z in places or [near + draw.uniform(2, 18)]:
        at = max(z, near)
        yield at, draw_traffic_light(draw, u, at)


def _poisson(draw: random.Random, mean: float) -> int:
    """A Poisson number (Knuth's product of uniforms)."""
    number, product, floor = 0, draw.random(), float(np.exp(-mean))
    while product > floor:
        number, product = number + 1, product * draw.random()
    return number
