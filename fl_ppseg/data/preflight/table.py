"""A scan as lines for a terminal and a log."""

from typing import Final

from fl_ppseg.data.preflight.scan import CityLabels, Scan
from fl_ppseg.data.tree_layout import bounded

MAX_CITIES: Final = 30
"""Lines for cities, the first of each split."""
MAX_IDS: Final = 12
MAX_NAMES: Final = 3
HEADINGS: Final = (
    "split",
    "city",
    "images",
    "labelled",
    "labelIds met",
    "classes that never occur",
)
ON_THE_RIGHT: Final = (2, 3)
"""Columns of numbers."""


def scan_table(found: Scan) -> str:
    """By city: images, share of labelled pixels, labelIds met, classes that never occur."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    lines: list[str] = []
    for split in dict.fromkeys(city.split for city in found.cities):
        cities = found.of_split(split)
        rows += [_row(city) for city in cities[:MAX_CITIES]]
        if len(cities) > MAX_CITIES:
            rows.append((split, f"{len(cities) - MAX_CITIES} more", "", "", "", ""))
        if len(cities) > 1:
            never = [n for n in cities[0].missing if all(n in city.missing for city in cities)]
            lines += [f"no city of {split} has: {bounded(never, 19)}"] if never else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([*(_aligned(row, widths) for row in rows), *lines])


def _row(city: CityLabels) -> tuple[str, ...]:
    ids, names = city.label_ids, city.missing
    more = f" +{len(ids) - MAX_IDS}" if len(ids) > MAX_IDS else ""
    return (
        city.split,
        city.city,
        f"{city.num_images}",
        f"{100 * city.labelled:.1f} %",
        " ".join(map(str, ids[:MAX_IDS])) + more,
        f"{len(names)}: {bounded(names, MAX_NAMES)}" if names else "none",
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        text.rjust(width) if column in ON_THE_RIGHT else text.ljust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
