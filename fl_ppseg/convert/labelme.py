"""LabelMeFacade: places follow from the names of LabelMe's folders, before `__` in file names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.convert.listing import MASKS, PHOTOGRAPHS, paired, pictures
from fl_ppseg.convert.masks import Coding, Colour, no_class
from fl_ppseg.convert.plan import Item, Plan, chosen, divide
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.system.errors import InputError

TABLE: Final = "labelme-facade"
VAL_PLACES: Final = ("catalonia", "galicia", "london")
COLOURS: Final[dict[str, Colour]] = {
    "building": (128, 0, 0),
    "car": (128, 0, 128),
    "door": (128, 128, 0),
    "pavement": (128, 128, 128),
    "road": (128, 64, 0),
    "sky": (0, 128, 128),
    "vegetation": (0, 128, 0),
    "window": (0, 0, 128),
}
VARIOUS: Final[Colour] = (0, 0, 0)
NOTICE: Final = (
    "Source: LabelMeFacade (Froehlich, Rodner, Denzler, ICPR 2010; Brust et al., CVPR-WS 2015), "
    "github.com/cvjena/labelmefacade, a part of LabelMe.",
    "Licence: its README allows non-commercial use and research experiments only; it holds for "
    "this tree too.",
    "Photographs of `unknown` and `web-...` train, of unknown places.",
)
ANYWHERE: Final = "unknown places"
"""Area of photographs that may be of any town, including those of validation."""


class Rule(NamedTuple):
    """A rule for places; the first with a word in the folder's name applies."""

    place: str
    area: str
    words: tuple[str, ...]


RULES: Final = (
    Rule("boston-june", "Boston", ("05june05_static_street_boston",)),
    Rule("boston-april", "Boston", ("boston_street_april",)),
    Rule(
        "boston-urban",
        "Boston",
        ("city_street_boston", "static_boston_street", "waterfront_boston", "houses_boston"),
    ),
    Rule("boston-street", "Boston", ("boston",)),
    Rule("somerville-davis", "Boston", ("davis",)),
    Rule("cambridge-uk", "Cambridge", ("cambridge_uk",)),
    Rule(
        "cambridge-usa",
        "Boston",
        (
            *("cambridge", "porter", "harvard", "statacenter", "kendall", "techsquare"),
            "cars_highland",
        ),
    ),
    Rule("palma", "Mallorca", ("palma_",)),
    Rule("puigpunyent", "Mallorca", ("puigpunyent",)),
    Rule("mallorca-roads", "Mallorca", ("mallorca",)),
    Rule("catalonia", "Catalonia", ("barcelona", "gerona", "palafrugel")),
    Rule("galicia", "Galicia", ("coruna", "galicia")),
    Rule("london", "London", ("london",)),
    Rule("madrid-castile", "northern Spain", ("madrid", "valladolid", "leon_spain", "laredo")),
    Rule("california", "California", ("learningdepth", "bay_area", "berkeley")),
    Rule(
        "north-america",
        "North America",
        (
            *("dartmouth", "montana_usa", "newyork", "mineapolis", "pittsburgh", "vancouver"),
            "sarasota",
        ),
    ),
    Rule(
        "europe-rest",
        "Europe",
        ("paris", "italy", "budapest", "montenegro", "freiberg"),
    ),
)
WEB: Final = "spatial_envelope"
"""Folder of images from the web, by the kind of their scene."""


def labelme_facade(source: Path, val: Iterable[str] = VAL_PLACES) -> Plan:
    """The tree of a download.

    Args:
        source: The repository: holds images and labels.
        val: Places that are scored and never trained on.

    Raises:
        InputError: Folders or names are not as expected, or places cannot be divided so.
    """
    pairs = paired(pictures(source / "images", PHOTOGRAPHS), pictures(source / "labels", MASKS))
    items = [_item(name, image, mask) for name, (image, mask) in pairs.items()]
    scored = chosen(val, {item.place for item in items}, "place")
    for item in items:
        if item.place in scored and item.area == ANYWHERE:
            raise InputError(
                f"--val {item.place}: its photographs may be of any town, those of training "
                "included; choose a place whose town is known"
            )
    table = load_class_table(TABLE)
    label_ids = dict(zip(table.names, table.train_to_label.tolist(), strict=False))
    meaning = {colour: label_ids[name] for name, colour in COLOURS.items()}
    coding = Coding.of_colours(meaning | {VARIOUS: no_class(table)}, table)
    splits = divide(items, lambda item: item.place in scored)
    return Plan("LabelMeFacade by place", NOTICE, TABLE, None, coding, splits)


def _item(name: str, image: Path, mask: Path) -> Item:
    folder, parts, rest = name.partition("__")
    if not (folder and parts and rest) or "/" in name:
        raise InputError(
            f"{image}: not a name of LabelMeFacade; expected LabelMe's folder, two "
            f"underscores and a "
            "name"
        )
    return Item(image, mask, name, *_place(folder.lower(), rest.lower()))


def _place(folder: str, rest: str) -> tuple[str, str]:
    """(place, area).

    >>> _place("static_harvard_outdoor_street", "img_1"), _place("nov6_static_outdoor", "p1")
    (('cambridge-usa', 'Boston'), ('unknown', 'unknown places'))
    """
    if folder.startswith(WEB):
        if not rest.startswith("insidecity"):
            return "web-street", ANYWHERE
        number = int("0" + "".join(letter for letter in rest if letter in "0123456789"))
        return f"web-insidecity-{'a' if number % 2 else 'b'}", ANYWHERE
    for rule in RULES:
        if any(word in folder for word in rule.words):
            return rule.place, rule.area
    return "unknown", ANYWHERE
