"""Traffic, people and furniture between the fronts of a street."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from math import exp

from fl_ppseg.scenes.cities import CityStyle
from fl_ppseg.scenes.figures import draw_rider, draw_walker
from fl_ppseg.scenes.furniture import draw_bin, draw_lamp, draw_sign, draw_traffic_light
from fl_ppseg.scenes.lots import FAR
from fl_ppseg.scenes.mesh import Item
from fl_ppseg.scenes.plants import draw_tree
from fl_ppseg.scenes.street import Lane, Street
from fl_ppseg.scenes.vehicles import draw_bus, draw_car, draw_tram, draw_truck

Thing = tuple[float, list[Item]]
"""Distance and what stands there, far to near."""
Maker = Callable[[random.Random, float, float, float], list[Item]]
"""Draws a vehicle at x, z with a heading."""


class Lanes:
    """Places vehicles without overlap, where the camera sees them."""

    def __init__(self, draw: random.Random, style: CityStyle) -> None:
        self._draw = draw
        self._view = style.focal * 1.05
        self._taken: dict[float, list[tuple[float, float]]] = {}

    def put(
        self, lane: Lane, length: float, near: float, far: float, make: Maker
    ) -> Iterator[Thing]:
        """One vehicle in a lane, `near` to `far` metres away; none if 6 tries find no room."""
        draw, taken = self._draw, self._taken.setdefault(lane.u, [])
        first = max(near, abs(lane.u) * self._view) + length / 2
        for _ in range(6):
            z = draw.uniform(first, max(far, first + 6))
            low, high = z - length / 2 - 1, z + length / 2 + 1
            if all(high < start or stop < low for start, stop in taken):
                taken.append((low, high))
                x = lane.u + draw.uniform(-0.2, 0.2)
                yield z, make(draw, x, z, lane.heading + draw.uniform(-0.02, 0.02))
                return


def draw_vehicles(
    draw: random.Random, style: CityStyle, street: Street, featured: frozenset[str], glow: float
) -> Iterator[Thing]:
    """Tram, bus, truck, cars in the lanes and cars along the kerb; `glow` of their lamps."""
    lanes = Lanes(draw, style)
    tram, bus = (partial(make, glow=glow, livery=style.livery) for make in (draw_tram, draw_bus))
    truck, car = partial(draw_truck, glow=glow), partial(draw_car, glow=glow)
    for track in street.tracks:
        yield from lanes.put(track, 27, 8, 32, tram)
    if "bus" in featured or draw.random() < style.heavy:
        yield from lanes.put(draw.choice(street.lanes), 11, 9, 32, bus)
    if "truck" in featured or draw.random() < style.heavy:
        yield from lanes.put(draw.choice(street.lanes), 7.5, 9, 28, truck)
    for lane in street.lanes:
        for _ in range(_poisson(draw, style.traffic)):
            yield from lanes.put(lane, 4.6, 8 if lane.heading else 11, 90, car)
    for lane in street.parking:
        for _ in range(round(style.parking * 13)):
            yield from lanes.put(lane, 4.8, 4, 80, car)


def draw_riders(
    draw: random.Random, style: CityStyle, street: Street, featured: frozenset[str]
) -> Iterator[Thing]:
    """People on two wheels beside the lanes, at least one nearby; machines on the sidewalks."""
    for k in range(max(_poisson(draw, style.riders), 1)):
        motor = "motorcycle" in featured if k == 0 else draw.random() < 0.35
        u = draw.choice(street.lanes).u + draw.choice((-1, 1)) * draw.uniform(0.9, 1.5)
        near = max(6.0, abs(u) * style.focal * 1.1)
        z = near + draw.uniform(0, 10 if k == 0 else 26)
        yield z, draw_rider(draw, u, z, motor=motor, side=draw.random() < 0.5)
    for low, high in street.sidewalks:
        if draw.random() < 0.45:
            u, motor = draw.uniform(low, high), draw.random() < 0.35
            start = max(7.0, abs(u) * style.focal * 1.15) + draw.uniform(0, 14)
            for k in range(draw.randint(1, 4)):
                z = start + 0.9 * k
                yield z, draw_rider(draw, u, z, motor=motor, side=True, ridden=False)


def draw_people(draw: random.Random, style: CityStyle, street: Street) -> Iterator[Thing]:
    """People on the sidewalks and on the crossing."""
    for low, high in street.sidewalks:
        for _ in range(_poisson(draw, style.persons / 2)):
            u = draw.uniform(low + 0.3, high - 0.3)
            z = max(6.0, abs(u) * style.focal * 1.05) + draw.expovariate(1 / 12)
            yield z, draw_walker(draw, u, z)
    for _ in range(_poisson(draw, style.persons / 4) if street.crossing[1] else 0):
        z = draw.uniform(*street.crossing)
        yield z, draw_walker(draw, draw.uniform(*street.road), z)


def draw_furniture(
    draw: random.Random, style: CityStyle, street: Street, glow: float
) -> Iterator[Thing]:
    """Trees, lamps, signs, traffic lights and bins along both kerbs; `glow` of the lit ones."""
    for side, kerb in ((-1, street.sidewalks[0][1]), (1, street.sidewalks[1][0])):
        z = draw.uniform(4, 4 + style.tree_spacing)
        while z < FAR:
            if not street.junction[0] < z < street.junction[1]:
                size = draw.uniform(0.6, 1.0)
                yield z, draw_tree(draw, kerb + side * 0.9, z, style.foliage, size)
            z += style.tree_spacing * draw.uniform(0.8, 1.3)
        near = max(6.0, abs(kerb) * style.focal * 1.02)
        for make, number, spread in ((draw_lamp, 2, 50), (draw_sign, 2, 24), (draw_bin, 1, 18)):
            for _ in range(number):
                z = near + draw.uniform(0, spread)
                yield z, make(draw, kerb + side * 0.45, z)
        limits = [start - 1.0 for start, stop in (street.junction, street.crossing) if stop]
        for stop in limits or [near + draw.uniform(2, 18)]:
            z = max(stop, near)
            yield z, draw_traffic_light(draw, kerb + side * 0.4, z, glow)


def _poisson(draw: random.Random, mean: float) -> int:
    """A Poisson number (Knuth's product of uniforms)."""
    number, product, floor = 0, draw.random(), exp(-mean)
    while product > floor:
        number, product = number + 1, product * draw.random()
    return number
