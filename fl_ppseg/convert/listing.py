"""The pictures of a downloaded folder: at any depth, without following links."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from fl_ppseg.data.tree_layout import bounded, by_stem, counted, listed
from fl_ppseg.system.errors import InputError

log = logging.getLogger(__name__)

PHOTOGRAPHS: Final = (".png", ".jpg", ".jpeg")
MASKS: Final = (".png",)


def pictures(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Name -> path of the pictures in a folder and in those below it, sorted.

    A name is the path relative to the folder, parts joined by `/`, without the suffix. Hidden
    files, files of file managers and files of other kinds are ignored.

    Raises:
        InputError: The folder does not exist or has no picture, something in it is a link, or two
            pictures have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one of pictures")
    found = by_stem(_files(folder, ""), suffixes)
    if not found:
        raise InputError(f"{folder}: no picture in it, expected files of {', '.join(suffixes)}")
    return dict(sorted(found.items()))


def paired(
    photographs: Mapping[str, Path], masks: Mapping[str, Path], suffix: str = ""
) -> dict[str, tuple[Path, Path]]:
    """Name -> photograph and mask, of each photograph; masks without one are logged.

    Args:
        photographs: By name.
        masks: By name.
        suffix: What follows the photograph's name in that of its mask.

    Raises:
        InputError: Photographs have no mask; all are counted, some named.
    """
    lacking = [name for name in photographs if name + suffix not in masks]
    if lacking:
        raise InputError(
            f"{counted(len(lacking), 'photograph')} without a mask: {bounded(lacking)}; each "
            f"photograph X needs a mask X{suffix}.png"
        )
    pairs = {name: (path, masks[name + suffix]) for name, path in photographs.items()}
    spare = sum(name.endswith(suffix) for name in masks) - len(pairs)
    if spare:
        log.warning("%s without a photograph, not used", counted(spare, "mask"))
    return pairs


def _files(folder: Path, before: str) -> Iterator[tuple[str, Path]]:
    """Everything but folders, with its path."""
    for name, path in listed(folder).items():
        if path.is_symlink():
            raise InputError(
                f"{path}: is a link, which may lead out of the folder; put what it points to there"
            )
        if path.is_dir():
            yield from _files(path, f"{before}{name}/")
        else:
            yield before + name, path
