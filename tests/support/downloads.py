"""Small data sets as people download them, drawn here: what `fl_ppseg.convert` reads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fl_ppseg.convert.command import main
from fl_ppseg.system.command_line import run

HEIGHT, WIDTH = 12, 16
RED, GREEN, BLACK = (200, 0, 0), (0, 200, 0), (0, 0, 0)
TABLE = """\
name: two
classes:
  - {name: wall, train_id: 0, label_ids: [4, 5], colour: [200, 0, 0]}
  - {name: lawn, train_id: 1, label_ids: [9], colour: [0, 200, 0]}
"""
PLACE = r"^(?P<place>[^_]+)_"
DRIVES = {"0001TP": 4, "0006R0": 3, "0016E5": 9, "Seq05VD": 4}
FACADES = (
    "05june05_static_street_boston__p1",
    "static_boston_street_april__p1",
    "static_palma_outdoor_august_2005__img_1",
    "nov6_static_outdoor__p1",
    "spatial_envelope_256x256_static_8outdoorcategories__insidecity_a223049",
    "spatial_envelope_256x256_static_8outdoorcategories__street_art1030",
    "static_outdoor_street_city_gerona_spain__IMG_1",
    "static_outdoor_urban_city_street_coruna_spain__IMG_1",
    "static_outdoor_urban_city_london_uk__IMG_1",
)


def photograph(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) uint8, another one for each number; smooth, as JPEG likes it."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 7, columns * 5, np.full_like(rows, number * 3)], -1).astype(np.uint8)


def halves(left: object, right: object, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 of two values or colours."""
    columns = np.arange(width) < width // 2
    is_left = np.broadcast_to(columns, (height, width))
    shape = (height, width, *np.shape(left))
    return (
        np.where(is_left.reshape(height, width, *[1] * np.ndim(left)), left, right)
        .reshape(shape)
        .astype(np.uint8)
    )


def save(pixels: np.ndarray, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def two_folders(root: Path, kind: str = "jpg") -> Path:
    """Photographs of three places, two of each, masks of colours, a class table."""
    for number, name in enumerate(f"{p}_{k}" for p in ("ulm", "jena", "bonn") for k in (1, 2)):
        save(photograph(number), root / "images" / f"{name}.{kind}")
        save(halves(RED, GREEN), root / "masks" / f"{name}.png")
    (root / "two.yaml").write_text(TABLE)
    return root


def camvid(root: Path) -> Path:
    """Frames dealt among the tutorial's folders; masks hold 0 to 11."""
    names = [
        f"{d}_{'f' * (d in ('0006R0', 'Seq05VD'))}{30 * k:05}"
        for d, n in DRIVES.items()
        for k in range(n)
    ]
    for number, name in enumerate(names):
        folder = ("train", "val", "test")[number % 3]
        save(photograph(number), root / folder / f"{name}.png")
        save(halves(number % 11, 11), root / f"{folder}annot" / f"{name}.png")
    return root


def labelme(root: Path) -> Path:
    """A photograph of each of nine folders."""
    for number, name in enumerate(FACADES):
        save(photograph(number), root / "images" / f"{name}.jpg")
        save(halves((128, 64, 0), (0, 0, 0)), root / "labels" / f"{name}.png")
    return root


def folder_options(root: Path, *more: str, **changes: str) -> list[str]:
    """Arguments of the verb `folder`."""
    given = {
        "images": str(root / "images"),
        "masks": str(root / "masks"),
        "classes": str(root / "two.yaml"),
        "masks-hold": "colours",
        "place": PLACE,
        "val": "bonn",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return [
        "folder",
        *(word for name, value in given.items() for word in (f"--{name}", value)),
        *more,
    ]


def convert(out: Path, *arguments: str) -> int:
    """Exit status of the command."""
    return run(main, [*arguments, "--out", str(out), "--workers", "2"])


def files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of a tree."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(root)), path.read_bytes()
