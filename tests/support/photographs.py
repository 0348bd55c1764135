"""Trees of photographs that lie beside the checkout, or where FL_PPSEG_PHOTOGRAPHS says."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FL_PPSEG_PHOTOGRAPHS", Path(__file__).parents[3] / "shared/data"))
SIZES = {"camvid-drives": (530, 171, 11), "labelme-facade": (816, 129, 8)}
"""Tree -> training photographs of 18 places, val photographs of 3 others, classes."""
TABLES = {"camvid-drives": "camvid", "labelme-facade": "labelme-facade"}
"""Tree -> its class table."""


def tree(name: str) -> Path:
    """A tree; the test is skipped where it is not there."""
    if not (FOLDER / name).is_dir():
        pytest.skip(f"no {name} in {FOLDER}")
    return FOLDER / name


def part_of(root: Path, copy: Path, most: int) -> Path:
    """A tree of links to the first few scenes of each city."""
    for folder in (p for part in ("leftImg8bit", "gtFine") for p in (root / part).glob("*/*")):
        target = copy / folder.relative_to(root)
        target.mkdir(parents=True)
        for file in sorted(folder.iterdir())[:most]:
            (target / file.name).symlink_to(file)
    return copy
