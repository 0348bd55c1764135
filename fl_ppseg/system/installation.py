"""Where this program's own files lie: in a checkout, or where a wheel was installed.

A wheel holds the packages side by side, as a checkout does, and in `fl_ppseg/root` what else of a
checkout the program needs: configs, and what the app's bundle and an image are built from.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import replacing_folder, sha256, user_folder

PACKAGES: Final = ("clients", "fl_ppseg", "strategies")
_PACKAGE: Final = Path(__file__).resolve().parents[1]
_ROOT: Final = _PACKAGE / "root"


def checkout() -> Path | None:
    """The checkout that this program runs from; None: it was installed from a wheel."""
    return None if _ROOT.is_dir() else _PACKAGE.parent


def of_root(name: str) -> Path:
    """A file or folder of a checkout's root."""
    return (checkout() or _ROOT) / name


def installed_files() -> dict[str, Path]:
    """What a wheel has installed, each under its path in a checkout.

    It is all that the app's bundle is packed from, and all that a wheel is built from.
    """
    places = {name: _PACKAGE.parent / name for name in PACKAGES} | {".": _ROOT}
    return {
        (Path(name) / path.relative_to(place)).as_posix(): path
        for name, place in places.items()
        for path in _files(place)
        if place == _ROOT or _ROOT not in path.parents
    }


def write_source(folder: Path) -> Path:
    """Write what a wheel has installed as a checkout would have it, whole or not at all.

    Args:
        folder: To be made; one that holds the same already stays.

    Raises:
        InputError: It holds something else.
    """
    expected = installed_files()
    if folder.exists():
        found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        if _hashes(found) != _hashes(expected):
            raise InputError(f"{folder}: another folder is there already; rename it, or remove it")
        return folder
    with replacing_folder(folder) as made:
        for name, path in expected.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, made / name)
    return folder


def cached_source() -> Path:
    """What a wheel has installed, written into the user's cache, each wheel in a folder of its own.

    Raises:
        InputError: Somebody has changed it there.
    """
    hashes = json.dumps(_hashes(installed_files()), sort_keys=True)
    name = hashlib.sha256(hashes.encode()).hexdigest()[:16]
    return write_source(user_folder("source", "XDG_CACHE_HOME", ".cache") / name)


def _hashes(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: sha256(path) for name, path in files.items()}


def _files(folder: Path) -> Iterator[Path]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return (path for path in found if path.parent.name != "__pycache__")
