"""Cities: their sizes, as published for Cityscapes, and their styles, drawn from their names."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fl_ppseg.errors import InputError
from fl_ppseg.wording import counted

RGB = tuple[int, int, int]

TRAIN_CITIES: dict[str, int] = {
    "aachen": 174,
    "bochum": 96,
    "bremen": 316,
    "cologne": 154,
    "darmstadt": 85,
    "dusseldorf": 221,
    "erfurt": 109,
    "hamburg": 248,
    "hanover": 196,
    "jena": 119,
    "krefeld": 99,
    "monchengladbach": 94,
    "strasbourg": 365,
    "stuttgart": 196,
    "tubingen": 144,
    "ulm": 95,
    "weimar": 142,
    "zurich": 122,
}
"""Images of each city in the Cityscapes train split."""

VAL_CITIES: dict[str, int] = {"frankfurt": 267, "lindau": 59, "munster": 174}
"""Images of each city in the Cityscapes val split."""

MIN_CITY_SIZE = 2
"""Every city gets at least so many scenes: one to train on and one to hold out."""


@dataclass(frozen=True)
class Weather:
    """Light of the day: colours are linear in 0..255, strengths relative to a white surface."""

    zenith: RGB
    horizon: RGB
    cloudiness: float
    """Share of the sky that clouds cover, 0..1."""
    ambient: float
    """Light from the whole sky."""
    direct: float
    """Light from the sun on a surface that faces it."""
    elevation: tuple[float, float]
    """Range of the sun's height in degrees."""
    haze: float
    """Extinction per metre."""
    balance: tuple[float, float, float]
    """White balance of the picture: factors of red, green, blue."""


WEATHERS: dict[str, Weather] = {
    "clear": Weather(
        (84, 136, 214), (188, 213, 240), 0.12, 0.62, 0.72, (30, 60), 0.0015, (1.02, 1.0, 0.98)
    ),
    "cloudy": Weather(
        (110, 150, 205), (205, 215, 226), 0.55, 0.7, 0.45, (30, 55), 0.003, (1.0, 1.0, 1.0)
    ),
    "overcast": Weather(
        (176, 182, 190), (218, 220, 223), 0.95, 0.98, 0.08, (35, 55), 0.005, (0.98, 1.0, 1.02)
    ),
    "hazy": Weather(
        (196, 200, 202), (226, 226, 221), 0.5, 0.84, 0.22, (25, 50), 0.013, (1.0, 1.0, 0.97)
    ),
    "evening": Weather(
        (104, 124, 178), (250, 206, 152), 0.35, 0.58, 0.7, (10, 22), 0.004, (1.12, 0.99, 0.84)
    ),
    "rain": Weather(
        (132, 138, 146), (186, 190, 194), 0.98, 0.84, 0.0, (35, 55), 0.009, (0.95, 1.0, 1.05)
    ),
}

FACADES: dict[str, tuple[RGB, ...]] = {
    "sandstone": ((206, 184, 142), (190, 166, 124), (218, 200, 164), (176, 156, 122)),
    "brick": ((158, 88, 68), (140, 76, 60), (172, 108, 84), (186, 140, 112)),
    "pastel": ((226, 204, 162), (208, 172, 156), (178, 196, 182), (222, 190, 130), (190, 184, 204)),
    "concrete": ((168, 166, 160), (148, 148, 148), (186, 184, 178), (130, 134, 140)),
    "white": ((228, 226, 218), (214, 212, 206), (236, 232, 222), (200, 202, 204)),
    "ochre": ((204, 158, 92), (188, 128, 84), (220, 184, 126), (170, 108, 76)),
}
ROOFS: tuple[RGB, ...] = ((140, 70, 52), (88, 84, 84), (116, 92, 78), (72, 74, 84))
FOLIAGE: tuple[RGB, ...] = (
    (74, 104, 44),
    (92, 116, 50),
    (58, 88, 48),
    (122, 116, 48),
    (136, 100, 48),
)
ASPHALT: tuple[RGB, ...] = ((108, 108, 112), (124, 122, 120), (96, 98, 104), (132, 128, 124))
PAVING: tuple[RGB, ...] = ((168, 158, 150), (150, 146, 144), (176, 150, 138), (138, 138, 142))
GRASS: tuple[RGB, ...] = ((112, 132, 64), (132, 136, 74), (96, 122, 58), (148, 134, 86))
LIVERIES: tuple[RGB, ...] = (
    (196, 40, 36),
    (232, 190, 40),
    (40, 92, 168),
    (226, 226, 222),
    (30, 130, 96),
    (222, 120, 30),
)


@dataclass(frozen=True)
class CityStyle:
    """What makes the streets of one city look alike; lengths in metres."""

    name: str
    weather: str
    camera_height: float
    focal: float
    """Focal length in picture heights (Cityscapes: 2.2)."""
    horizon: float
    """Height of the horizon from the top, in picture heights."""
    hood: float
    """Height of the camera car's bonnet, in picture heights; 0 where it is out of view."""
    num_lanes: int
    lane_width: float
    sidewalk_width: float
    verge_width: float
    """Green strip between road and sidewalk; 0 for none."""
    setback: float
    """From the sidewalk to the facades."""
    parking: float
    """Chance that a parking place along the kerb is taken; 0 for no parking lane."""
    facades: tuple[RGB, ...]
    roof: RGB
    floors: tuple[int, int]
    built: float
    """Chance that a lot carries a building; else a park, a wall or a fence."""
    foliage: RGB
    tree_spacing: float
    asphalt: RGB
    paving: RGB
    paving_size: float
    grass: RGB
    livery: RGB
    """Colour of buses and trams."""
    traffic: float
    """Cars in a lane for each 100 m."""
    persons: float
    """Expected number of people on foot."""
    riders: float
    """Expected number of people on two wheels."""
    heavy: float
    """Chance of each of truck, bus and tram beyond those that the rotation of scenes brings."""
    saturation: float
    noise: float
    """Standard deviation of the sensor noise at mid grey, in grey levels."""


def city_style(name: str) -> CityStyle:
    """The style of any city, a deterministic function of its name.

    Raises:
        InputError: the name is not lower-case letters, digits and hyphens.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(
            f"city name {name!r} must be lower-case letters, digits and single hyphens: rename it"
        )
    draw = random.Random(f"fl_ppseg city style 1/{name}")
    low_floors = draw.randint(2, 4)
    return CityStyle(
        name=name,
        weather=draw.choice(tuple(WEATHERS)),
        camera_height=draw.uniform(1.2, 2.0),
        focal=draw.uniform(1.45, 1.95),
        horizon=draw.uniform(0.38, 0.48),
        hood=draw.choice((0.0, 0.05, 0.07, 0.09)),
        num_lanes=draw.choice((2, 2, 2, 3, 4)),
        lane_width=draw.uniform(2.75, 3.4),
        sidewalk_width=draw.uniform(2.0, 4.5),
        verge_width=draw.choice((0.0, 0.0, 1.2, 2.0)),
        setback=draw.choice((0.0, 0.0, 1.5, 4.0)),
        parking=draw.choice((0.0, 0.0, 0.4, 0.7)),
        facades=FACADES[draw.choice(tuple(FACADES))],
        roof=draw.choice(ROOFS),
        floors=(low_floors, low_floors + draw.randint(1, 3)),
        built=draw.uniform(0.5, 0.9),
        foliage=draw.choice(FOLIAGE),
        tree_spacing=draw.uniform(9, 30),
        asphalt=draw.choice(ASPHALT),
        paving=draw.choice(PAVING),
        paving_size=draw.uniform(0.4, 1.2),
        grass=draw.choice(GRASS),
        livery=draw.choice(LIVERIES),
        traffic=draw.uniform(1.5, 5.0),
        persons=draw.uniform(3, 11),
        riders=draw.uniform(0.8, 2.6),
        heavy=draw.uniform(0.04, 0.2),
        saturation=draw.uniform(0.75, 1.1),
        noise=draw.uniform(1.5, 4.5),
    )


def split_sizes(total: int, counts: Mapping[str, int]) -> dict[str, int]:
    """Share `total` scenes out in proportion to `counts` (largest remainder, at least 2 a city).

    Raises:
        InputError: `total` is neither 0 nor enough for two scenes a city.

    >>> split_sizes(10, {"a": 30, "b": 60, "c": 1})
    {'a': 2, 'b': 6, 'c': 2}
    """
    if total == 0:
        return {}
    if not counts or total < MIN_CITY_SIZE * len(counts):
        raise InputError(
            f"{counted(total, 'scene')} for {counted(len(counts), 'city')}: each city needs at "
            f"least {MIN_CITY_SIZE}, ask for 0 or at least {max(1, MIN_CITY_SIZE * len(counts))}"
        )
    quota = {city: total * count / sum(counts.values()) for city, count in counts.items()}
    sizes = {city: max(MIN_CITY_SIZE, int(share)) for city, share in quota.items()}
    while (missing := total - sum(sizes.values())) > 0:
        for city in sorted(sizes, key=lambda c: sizes[c] - quota[c])[:missing]:
            sizes[city] += 1
    while sum(sizes.values()) > total:
        generous = [city for city in sizes if sizes[city] > MIN_CITY_SIZE]
        sizes[max(generous, key=lambda c: sizes[c] - quota[c])] -= 1
    return sizes
