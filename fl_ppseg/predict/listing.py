"""The images that are to be segmented: files, folders of them, trees in Cityscapes layout."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fl_ppseg.data.tree_layout import IMAGE_SUFFIXES, IMAGES, by_stem, listed
from fl_ppseg.system.errors import InputError

SUFFIXES: Final = (*IMAGE_SUFFIXES, ".png", ".jpg", ".jpeg")


def images_in(places: Sequence[Path]) -> dict[str, Path]:
    """Name -> path of the images in files and folders, sorted.

    A name is the path within the folder that was given, parts joined by `/`, without suffix and
    without `_leftImg8bit`; of a file that was given it is the file's own. Of a folder that holds
    `leftImg8bit` that part alone is read, so that no label map is taken for an image. Links to
    folders are not followed.

    Raises:
        InputError: A place does not exist, no image is found, or two have the same name.
    """
    found = by_stem((pair for place in places for pair in _files(place)), SUFFIXES)
    if not found:
        raise InputError(
            f"{', '.join(map(str, places))}: no image found; expected files of .png, .jpg or .jpeg"
        )
    return dict(sorted(found.items()))


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    if place.is_dir():
        yield from _below(place / IMAGES if (place / IMAGES).is_dir() else place, "")
    elif place.exists():
        yield place.name, place
    else:
        raise InputError(f"{place}: no such file or folder; give images, or folders of them")


def _below(folder: Path, before: str) -> Iterator[tuple[str, Path]]:
    for name, path in listed(folder).items():
        if path.is_dir():
            if not path.is_symlink():
                yield from _below(path, f"{before}{name}/")
        else:
            yield before + name, path
