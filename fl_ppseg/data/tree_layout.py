"""Cityscapes layout by names only: which image files belong to which label maps.

Names are compared in Unicode's composed form (NFC): macOS decomposes them, and `ls` shows both
alike. What file managers, archives and network drives leave behind is passed over. Links are
followed, so that a tree may be put together of links to data that lie elsewhere.
"""

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.system.errors import InputError

logger = logging.getLogger(__name__)

IMAGES, LABELS = "leftImg8bit", "gtFine"
LABEL_SUFFIX = "_gtFine_labelIds.png"
POLYGON_SUFFIX = "_gtFine_polygons.json"
IMAGE_SUFFIXES = tuple(f"_leftImg8bit.{kind}" for kind in ("png", "jpg", "jpeg"))
FOREIGN: Final = frozenset(
    {
        "@eaDir", "@Recycle", "@tmp", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX",
        "lost+found", "System Volume Information",
    }
)  # fmt: skip
"""Folders of file managers and network drives; hidden ones are passed over as well."""
NAMED: Final = 10
"""Names that a line has room for."""


class Pair(NamedTuple):
    """The two files of a scene."""

    stem: str
    image: Path
    label: Path


class Missing(NamedTuple):
    """An image without its label map."""

    image: Path
    label: Path
    """Where the label map should be."""
    has_polygons: bool


def find_parts(root: Path) -> tuple[Path, Path]:
    """The folders of images and of label maps.

    Those of the official archives, each unpacked into a folder of its own name, are found as well.

    Raises:
        InputError: The tree does not exist.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; give the folder that holds {IMAGES} and {LABELS}"
        )
    return _part(root, IMAGES), _part(root, LABELS)


def cities_of(folder: Path) -> dict[str, Path]:
    """City -> its folder, in alphabetical order.

    Raises:
        InputError: There is none, or two have the same name.
    """
    cities = {name: path for name, path in listed(folder).items() if path.is_dir()}
    if not cities:
        raise InputError(f"{folder}: holds no city folder; put images into {folder / '<city>'}")
    return cities


def pairs_of(images: Path, labels: Path) -> tuple[list[Pair], list[Missing]]:
    """The scenes of a city by name, and the images that have no label map.

    Args:
        images: Folder of the city's images.
        labels: Folder of its label maps, which may be missing.

    Raises:
        InputError: It has no image, or an image twice.
    """
    by_stem = _images_by_stem(images)
    there = listed(labels) if labels.is_dir() else {}
    found = {_stem(name, LABEL_SUFFIX): path for name, path in there.items()}
    polygons = {_stem(name, POLYGON_SUFFIX) for name in there}
    spare = len(found.keys() - by_stem.keys() - {None})
    if spare:
        logger.warning("%s: %d label maps have no image and are not used", labels, spare)
    pairs, missing = [], []
    for stem, image in sorted(by_stem.items()):
        if (label := found.get(stem)) is not None:
            pairs.append(Pair(stem, image, label))
        else:
            missing.append(Missing(image, labels / (stem + LABEL_SUFFIX), stem in polygons))
    return pairs, missing


def listed(folder: Path) -> dict[str, Path]:
    """Name in composed form -> path of what a folder holds, sorted, foreign things left out.

    Raises:
        InputError: The folder cannot be listed, a name cannot be printed, or two look alike.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); check it") from error
    found: dict[str, Path] = {}
    for path in paths:
        name = unicodedata.normalize("NFC", path.name)
        if name.startswith(".") or name in FOREIGN:
            continue
        if not name.isprintable():
            raise InputError(
                f"{str(folder)!a}: holds {path.name!a}, a name with characters that cannot be "
                "printed; rename it"
            )
        if name in found:
            raise InputError(
                f"{path}: there are two of this name, in different Unicode forms (NFC and NFD); "
                "merge or remove one"
            )
        found[name] = path
    return dict(sorted(found.items()))


def by_stem(files: Iterable[tuple[str, Path]], suffixes: Sequence[str]) -> dict[str, Path]:
    """Name without suffix -> path of the files that have one of the suffixes.

    Args:
        files: Name and path of each.
        suffixes: In small letters or capitals, which do not matter; the first that fits is cut off.

    Raises:
        InputError: Two have the same name.
    """
    found: dict[str, Path] = {}
    for name, path in files:
        stem = next((s for end in suffixes if (s := _stem(name, end)) is not None), None)
        if stem is None:
            continue
        if stem in found:
            raise InputError(f"{path}: has the same name as {found[stem].name}; remove one of them")
        found[stem] = path
    return found


def missing_labels(missing: Sequence[Missing]) -> InputError:
    """The error of all images that have no label map, which names the first few."""
    first = missing[0]
    if all(each.has_polygons for each in missing):
        return InputError(
            f"{first.label}: missing, and so for {counted(len(missing), 'image')} that have "
            f"*{POLYGON_SUFFIX}: make label maps of the polygons with cityscapesScripts, for each "
            "of them `python -m cityscapesscripts.preparation.json2labelImg "
            "X_gtFine_polygons.json X_gtFine_labelIds.png`"
        )
    if len(missing) == 1:
        return InputError(
            f"{first.label}: missing; add this label map or remove its image {first.image}"
        )
    names = bounded([_shown_stem(each.image) for each in missing])
    return InputError(
        f"{first.label}: missing; {len(missing)} images have no label map: {names}; add these "
        "label maps or remove the images"
    )


def missing_split(part: Path, name: str) -> InputError:
    """The error of a split that is not there."""
    return InputError(
        f"{part / name}: no such folder; the data set has no {name!r} split, "
        f"so add {IMAGES}/{name}/<city> and {LABELS}/{name}/<city>"
    )


def bounded(names: Sequence[str], most: int = NAMED) -> str:
    """Names in a line that has room for some.

    >>> bounded(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """A number and what is counted.

    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _part(root: Path, part: str) -> Path:
    if (root / part).is_dir():
        return root / part
    apart = [path for path in sorted(root.glob(f"{part}_*/{part}")) if path.is_dir()]
    if len(apart) == 1:
        logger.info("%s: found in %s", part, apart[0])
        return apart[0]
    if apart:
        raise InputError(
            f"{root / part}: no such folder, but there are {bounded(list(map(str, apart)))}; move "
            f"the splits that are meant into {root / part}"
        )
    inside = root.name in (IMAGES, LABELS)
    hint = f"give its parent {root.parent}" if inside else "so check the data root"
    raise InputError(
        f"{root / part}: no such folder; a data set in Cityscapes layout "
        f"holds {IMAGES} and {LABELS} side by side, {hint}"
    )


def _images_by_stem(folder: Path) -> Mapping[str, Path]:
    images = by_stem(listed(folder).items(), IMAGE_SUFFIXES)
    if not images:
        raise InputError(
            f"{folder}: empty city, no *_leftImg8bit.png, .jpg or .jpeg in it; "
            "add its images or remove the folder"
        )
    return images


def _stem(name: str, suffix: str) -> str | None:
    """What stands before a suffix, however that is capitalised; None without it."""
    return name[: -len(suffix)] if name.lower().endswith(suffix.lower()) else None


def _shown_stem(image: Path) -> str:
    return next((s for end in IMAGE_SUFFIXES if (s := _stem(image.name, end))), image.name)
