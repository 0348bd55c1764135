"""Worlds: ranges of the appearance of cities, narrow for the model creator and wide for the owners.

A public data set is recorded by day, from spring to autumn, in sRGB; owners drive at any hour and
season, with machine cameras of many makes behind windscreens. So there is a domain gap between the
creator's weights and the owners' streets.
"""

from dataclasses import dataclass, replace

RGB = tuple[int, int, int]
Span = tuple[float, float]
"""Least and largest value of a uniformly drawn trait."""


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
    beam: float = 0.0
    """Light of the camera car's headlamps on what is near, relative to that of the sky."""
    glow: float = 1.0
    """How much brighter than white paper by day the lamps that burn are for their surroundings."""


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
    "dusk": Weather(
        (76, 94, 154), (222, 164, 156), 0.4, 0.68, 0.04, (4, 8), 0.004, (1.0, 0.96, 1.1), 0.5, 2.5
    ),
    "night": Weather(
        (26, 32, 62), (104, 96, 100), 0.3, 0.66, 0.02, (5, 9), 0.004, (1.1, 0.98, 0.86), 1.0, 3.0
    ),
}


@dataclass(frozen=True)
class Season:
    """Colours of plants and of the ground."""

    foliage: tuple[RGB, ...]
    grass: tuple[RGB, ...]
    asphalt: tuple[RGB, ...]
    paving: tuple[RGB, ...]
    roofs: tuple[RGB, ...]


ROOFS: tuple[RGB, ...] = ((140, 70, 52), (88, 84, 84), (116, 92, 78), (72, 74, 84))
SEASONS: dict[str, Season] = {
    "summer": Season(
        foliage=((74, 104, 44), (92, 116, 50), (58, 88, 48), (122, 116, 48), (136, 100, 48)),
        grass=((112, 132, 64), (132, 136, 74), (96, 122, 58), (148, 134, 86)),
        asphalt=((108, 108, 112), (124, 122, 120), (96, 98, 104), (132, 128, 124)),
        paving=((168, 158, 150), (150, 146, 144), (176, 150, 138), (138, 138, 142)),
        roofs=ROOFS,
    ),
    "drought": Season(
        foliage=((122, 116, 48), (110, 112, 72), (134, 126, 74)),
        grass=((178, 160, 104), (164, 142, 92), (150, 122, 84)),
        asphalt=((132, 128, 124), (140, 132, 122), (116, 112, 108)),
        paving=((206, 186, 154), (196, 166, 136)),
        roofs=ROOFS,
    ),
    "autumn": Season(
        foliage=((136, 100, 48), (158, 92, 40), (122, 66, 40), (170, 136, 44)),
        grass=((148, 134, 86), (140, 106, 62), (116, 104, 66)),
        asphalt=((74, 74, 80), (88, 84, 82), (96, 98, 104)),
        paving=((122, 112, 106), (138, 120, 100), (112, 112, 118)),
        roofs=ROOFS,
    ),
    "winter": Season(
        foliage=((104, 84, 70), (92, 74, 60), (128, 104, 88)),
        grass=((228, 232, 238), (214, 218, 226)),
        asphalt=((84, 88, 96), (100, 104, 112), (118, 120, 126)),
        paving=((196, 200, 208), (180, 184, 192)),
        roofs=((226, 230, 236), (204, 208, 216), (88, 84, 84)),
    ),
}
FACADES: dict[str, tuple[RGB, ...]] = {
    "sandstone": ((206, 184, 142), (190, 166, 124), (218, 200, 164), (176, 156, 122)),
    "brick": ((158, 88, 68), (140, 76, 60), (172, 108, 84), (186, 140, 112)),
    "pastel": ((226, 204, 162), (208, 172, 156), (178, 196, 182), (222, 190, 130), (190, 184, 204)),
    "concrete": ((168, 166, 160), (148, 148, 148), (186, 184, 178), (130, 134, 140)),
    "white": ((228, 226, 218), (214, 212, 206), (236, 232, 222), (200, 202, 204)),
    "ochre": ((204, 158, 92), (188, 128, 84), (220, 184, 126), (170, 108, 76)),
    "slate": ((92, 96, 106), (78, 82, 90), (108, 112, 118), (70, 70, 74)),
    "glass": ((112, 140, 160), (96, 122, 148), (134, 158, 170), (86, 104, 126)),
}
LIVERIES: tuple[RGB, ...] = (
    (196, 40, 36),
    (232, 190, 40),
    (40, 92, 168),
    (226, 226, 222),
    (30, 130, 96),
    (222, 120, 30),
)


@dataclass(frozen=True)
class World:
    """Choices and ranges of the traits of its cities; the traits are those of `CityStyle`."""

    edition: int
    """Draws other cities of the same world."""

    weathers: tuple[str, ...]
    seasons: tuple[str, ...]
    facades: tuple[str, ...]
    camera_height: Span
    focal: Span
    horizon: Span
    hoods: tuple[float, ...]
    num_lanes: tuple[int, ...]
    lane_width: Span
    sidewalk_width: Span
    verges: tuple[float, ...]
    setbacks: tuple[float, ...]
    parking: tuple[float, ...]
    low_floors: tuple[int, int]
    """Floors of a city's lowest houses."""
    built: Span
    tree_spacing: Span
    traffic: Span
    persons: Span
    riders: Span
    heavy: Span
    saturation: Span
    noise: Span
    gamma: Span
    warmth: Span
    veil: Span


PUBLIC = World(
    edition=1,
    weathers=("clear", "cloudy", "overcast", "hazy", "evening", "rain"),
    seasons=("summer",),
    facades=("sandstone", "brick", "pastel", "concrete", "white", "ochre"),
    camera_height=(1.2, 2.0),
    focal=(1.45, 1.95),
    horizon=(0.38, 0.48),
    hoods=(0.0, 0.05, 0.07, 0.09),
    num_lanes=(2, 2, 2, 3, 4),
    lane_width=(2.75, 3.4),
    sidewalk_width=(2.0, 4.5),
    verges=(0.0, 0.0, 1.2, 2.0),
    setbacks=(0.0, 0.0, 1.5, 4.0),
    parking=(0.0, 0.0, 0.4, 0.7),
    low_floors=(2, 4),
    built=(0.5, 0.9),
    tree_spacing=(9, 30),
    traffic=(1.5, 5.0),
    persons=(3, 11),
    riders=(0.8, 2.6),
    heavy=(0.04, 0.2),
    saturation=(0.75, 1.1),
    noise=(1.5, 4.5),
    gamma=(1.0, 1.0),
    warmth=(0.0, 0.0),
    veil=(0.0, 0.0),
)
"""The model creator's: by day, without snow, in sRGB. As in generator 1, which the weights of the
package were trained on."""

STREETS = replace(
    PUBLIC,
    edition=2,
    weathers=tuple(WEATHERS),
    seasons=tuple(SEASONS),
    facades=tuple(FACADES),
    verges=(0.0, 1.2, 1.2, 2.0),
    setbacks=(0.0, 0.0, 1.5, 4.0),
    low_floors=(2, 5),
    saturation=(0.6, 1.2),
    noise=(1.5, 3.5),
    gamma=(1.0, 2.3),
    warmth=(-0.18, 0.18),
    veil=(0.2, 0.5),
)
"""The owners': every hour and season; cameras from sRGB's response (1) to a linear one (2.2), each
behind glass of its own and with its own white balance."""

CLIMATES: dict[str, tuple[str, str]] = {
    "aachen": ("summer", "rain"),
    "bochum": ("autumn", "night"),
    "bremen": ("winter", "evening"),
    "cologne": ("drought", "cloudy"),
    "darmstadt": ("summer", "overcast"),
    "dusseldorf": ("drought", "dusk"),
    "erfurt": ("winter", "rain"),
    "hamburg": ("autumn", "rain"),
    "hanover": ("winter", "clear"),
    "jena": ("drought", "clear"),
    "krefeld": ("summer", "hazy"),
    "monchengladbach": ("winter", "cloudy"),
    "strasbourg": ("summer", "evening"),
    "stuttgart": ("autumn", "evening"),
    "tubingen": ("winter", "hazy"),
    "ulm": ("drought", "overcast"),
    "weimar": ("summer", "night"),
    "zurich": ("autumn", "cloudy"),
    "frankfurt": ("drought", "evening"),
    "lindau": ("winter", "overcast"),
    "munster": ("winter", "dusk"),
}
"""Season and usual weather of the owners' cities: every one occurs in training, and no val city has
both of a training city. Cities of other names draw theirs."""

CREATOR = "public-"
"""Prefix of the names of the model creator's cities."""


def world_of(name: str) -> World:
    """The world of a city of this name."""
    return PUBLIC if name.startswith(CREATOR) else STREETS
