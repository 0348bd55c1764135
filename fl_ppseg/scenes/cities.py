"""Cities: their sizes, as published for Cityscapes, and their styles, drawn from their names."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fl_ppseg.scenes.worlds import CLIMATES, FACADES, LIVERIES, RGB, SEASONS, Span, world_of
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.wording import counted

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
class CityStyle:
    """What makes the streets of one city look alike; lengths in metres."""

    name: str
    weather: str
    """What most scenes have."""
    weathers: tuple[str, ...]
    """What the others may have."""
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
    """Of the camera's colours: 1 as the scene's own, 0 grey."""
    noise: float
    """Standard deviation of the sensor noise at mid grey, in grey levels."""
    gamma: float
    """Exponent of the camera's response: above 1 darker mid-tones."""
    warmth: float
    """White balance of the camera: red times 1 + warmth, blue times 1 - warmth."""
    veil: float
    """Share of white that stray light in the lens and the windscreen lays over the picture."""


def city_style(name: str) -> CityStyle:
    """The style of any city, a deterministic function of its name.

    Raises:
        InputError: the name is not lower-case letters, digits and hyphens.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(
            f"city name {name!r} must be lower-case letters, digits and single hyphens: rename it"
        )
    world = world_of(name)
    draw = random.Random(f"fl_ppseg city style {world.edition}/{name}")
    low_floors, weather = draw.randint(*world.low_floors), draw.choice(world.weathers)
    season = random.Random(f"fl_ppseg season 1/{name}").choice(world.seasons)
    season, weather = CLIMATES.get(name, (season, weather))
    grown = SEASONS[season]

    def within(span: Span) -> float:
        return draw.uniform(*span)

    return CityStyle(
        name=name,
        weather=weather,
        weathers=world.weathers,
        camera_height=within(world.camera_height),
        focal=within(world.focal),
        horizon=within(world.horizon),
        hood=draw.choice(world.hoods),
        num_lanes=draw.choice(world.num_lanes),
        lane_width=within(world.lane_width),
        sidewalk_width=within(world.sidewalk_width),
        verge_width=draw.choice(world.verges),
        setback=draw.choice(world.setbacks),
        parking=draw.choice(world.parking),
        facades=FACADES[draw.choice(world.facades)],
        roof=draw.choice(grown.roofs),
        floors=(low_floors, low_floors + draw.randint(1, 3)),
        built=within(world.built),
        foliage=draw.choice(grown.foliage),
        tree_spacing=within(world.tree_spacing),
        asphalt=draw.choice(grown.asphalt),
        paving=draw.choice(grown.paving),
        paving_size=draw.uniform(0.4, 1.2),
        grass=draw.choice(grown.grass),
        livery=draw.choice(LIVERIES),
        traffic=within(world.traffic),
        persons=within(world.persons),
        riders=within(world.riders),
        heavy=within(world.heavy),
        saturation=within(world.saturation),
        noise=within(world.noise),
        gamma=within(world.gamma),
        warmth=within(world.warmth),
        veil=within(world.veil),
    )


def split_sizes(total: int, counts: Mapping[str, int]) -> dict[str, int]:
    """Share `total` scenes out in proportion to `counts` (largest remainder, at least 2 per city).

    Raises:
        InputError: `total` is neither 0 nor enough for two scenes per city.

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
