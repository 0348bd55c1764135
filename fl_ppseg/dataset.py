"""Reads any data set in Cityscapes layout.

``leftImg8bit/<split>/<city>/<stem>_leftImg8bit.{png,jpg,jpeg}`` and beside it
``gtFine/<split>/<city>/<stem>_gtFine_labelIds.png``. Opening looks at names, loading at pixels.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from fl_ppseg.classes import ClassTable
from fl_ppseg.errors import InputError

logger = logging.getLogger(__name__)

IMAGES, LABELS = "leftImg8bit", "gtFine"
LABEL_SUFFIX = "_gtFine_labelIds.png"
IMAGE_SUFFIXES = tuple(f"_leftImg8bit.{kind}" for kind in ("png", "jpg", "jpeg"))

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot decode."""


@dataclass(frozen=True)
class Scene:
    """One image with its label map.

    Attributes:
        city: Folder of the image, e.g. ``aachen``.
        split: ``train``, ``val`` or another folder of the tree.
        stem: File name without its suffix, e.g. ``aachen_000000_000019``.
        image_path: The image, PNG or JPEG.
        label_path: The map of labelIds, an 8-bit PNG of one channel.
        classes: Table that turns labelIds into trainIds.
    """

    city: str
    split: str
    stem: str
    image_path: Path
    label_path: Path
    classes: ClassTable = field(repr=False, compare=False)

    @property
    def scene_id(self) -> str:
        """``split/city/stem``: names the scene within its data set."""
        return f"{self.split}/{self.city}/{self.stem}"

    def size(self) -> tuple[int, int]:
        """(height, width) of the label map by its header, without its pixels.

        Raises:
            InputError: The file is missing or no picture.
        """
        with _opened(self.label_path, "label map") as picture:
            return picture.height, picture.width

    def check(self) -> None:
        """Finds out whether the pair can be loaded, at a fraction of the cost.

        PNGs are compared with their own checksums, JPEGs are decoded at an eighth of their size. A
        pair that fails there is loaded after all, since decoders forgive some damage.

        Raises:
            InputError: As `load`.
        """
        try:
            self._look()
        except InputError:
            self.load()

    def _look(self) -> None:
        with _opened(self.image_path, "image") as picture:
            size = picture.size
            if picture.format == "JPEG":
                picture.draft("L", (picture.width // 8, picture.height // 8))
                picture.load()
            picture.verify()
        with _opened(self.label_path, "label map") as picture:
            _require_label_ids(picture, self.label_path)
            self._require_size(picture.size, size)
            picture.verify()

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Reads the pair from disk.

        Returns:
            (3, H, W) uint8 RGB and (H, W) uint8 trainIds, 255 = ignored.

        Raises:
            InputError: A file is missing, broken or of the wrong kind, or the sizes differ.
        """
        image, label_ids = read_image(self.image_path), _read_label_ids(self.label_path)
        self._require_size(label_ids.shape[::-1], image.shape[:0:-1])
        return image, self.classes.encode(label_ids)

    def _require_size(self, label_map: tuple[int, ...], image: tuple[int, ...]) -> None:
        """Both (width, height)."""
        if label_map != image:
            raise InputError(
                f"{self.label_path}: {_size(label_map)} but its image is {_size(image)} "
                "(width x height); export image and label map at the same size"
            )


@dataclass(frozen=True)
class Dataset:
    """A tree in Cityscapes layout: its scenes by split and city."""

    root: Path
    classes: ClassTable = field(repr=False, compare=False)
    splits: Mapping[str, Mapping[str, tuple[Scene, ...]]] = field(repr=False)

    def split(self, name: str) -> dict[str, tuple[Scene, ...]]:
        """City -> its scenes by name, cities in alphabetical order.

        Raises:
            InputError: The tree has no such split.
        """
        if name not in self.splits:
            raise _missing_split(self.root, name)
        return dict(self.splits[name])


def open_dataset(root: Path, classes: ClassTable, required: Sequence[str] = ("train",)) -> Dataset:
    """Lists the scenes of a tree and checks, by names only, that each has its label map.

    Args:
        root: Folder that holds ``leftImg8bit`` and ``gtFine``.
        classes: Table that turns labelIds into trainIds.
        required: Splits that must be there; ``train`` and ``val`` are read wherever they are.

    Raises:
        InputError: The layout is broken: a folder or a label map is missing, or a city is empty.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that holds {IMAGES} and {LABELS}")
    for part in (IMAGES, LABELS):
        if not (root / part).is_dir():
            raise InputError(
                f"{root / part}: no such folder; a data set in Cityscapes layout "
                f"holds {IMAGES} and {LABELS} side by side, so check the data root"
            )
    wanted = dict.fromkeys(("train", "val", *required))
    present = [name for name in wanted if (root / IMAGES / name).is_dir()]
    for name in required:
        if name not in present:
            raise _missing_split(root, name)
    return Dataset(root, classes, {name: _open_split(root, name, classes) for name in present})


def read_image(path: Path) -> NDArray[np.uint8]:
    """PNG or JPEG file -> (3, H, W) uint8 RGB.

    Grey, palette and CMYK images become RGB, transparency is dropped, of 16 bits the upper 8 stay.

    Raises:
        InputError: The file is missing, broken, or of a pixel format that has no RGB meaning.
    """
    with _opened(path, "image") as picture:
        pixels = _to_rgb(picture)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # HWC -> CHW


def _to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        grey = (np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("floating-point pixels")
    return np.asarray(picture.convert("RGB"))


def _read_label_ids(path: Path) -> NDArray[np.uint8]:
    """8-bit PNG of one channel, or the indices of a palette PNG -> (H, W) uint8."""
    with _opened(path, "label map") as picture:
        _require_label_ids(picture, path)
        return np.array(picture, dtype=np.uint8)


def _require_label_ids(picture: ImageFile, path: Path) -> None:
    # Pillow stretches grey PNGs of fewer bits to 0..255: ids would change, so not these.
    whole_bytes = picture.mode == "L" and picture.tile[0].args == "L"
    if picture.format != "PNG" or not (whole_bytes or picture.mode == "P"):
        raise InputError(
            f"{path}: {picture.format} of mode {picture.mode}, but labelIds are wanted as a PNG of "
            "one channel and 8 bits (neither the colour map nor the instanceIds)"
        )


@contextmanager
def _opened(path: Path, what: str) -> Iterator[ImageFile]:
    """A picture whose decoder's failures are errors of the user's file."""
    try:
        with Image.open(path) as picture:
            yield picture
    except _UNREADABLE as error:
        raise _unreadable(path, what, error) from error


def _open_split(root: Path, split: str, classes: ClassTable) -> dict[str, tuple[Scene, ...]]:
    folder = root / IMAGES / split
    cities = sorted(name for name in _names(folder) if (folder / name).is_dir())
    if not cities:
        raise InputError(f"{folder}: holds no city folder; put images into {folder / '<city>'}")
    return {city: _open_city(root, split, city, classes) for city in cities}


def _open_city(root: Path, split: str, city: str, classes: ClassTable) -> tuple[Scene, ...]:
    image_folder, label_folder = (root / part / split / city for part in (IMAGES, LABELS))
    images = _images_by_stem(image_folder)
    labels = set(_names(label_folder)) if label_folder.is_dir() else set()
    for stem in images:
        if stem + LABEL_SUFFIX not in labels:
            raise InputError(
                f"{label_folder / (stem + LABEL_SUFFIX)}: missing; "
                f"add this label map or remove its image {image_folder / images[stem]}"
            )
    spare = sum(name.endswith(LABEL_SUFFIX) for name in labels) - len(images)
    if spare:
        logger.warning("%s: %d label maps have no image and are not used", label_folder, spare)
    return tuple(
        Scene(
            city,
            split,
            stem,
            image_folder / images[stem],
            label_folder / (stem + LABEL_SUFFIX),
            classes,
        )
        for stem in sorted(images)
    )


def _images_by_stem(folder: Path) -> dict[str, str]:
    """Stem -> file name of the images in the folder of a city."""
    images: dict[str, str] = {}
    for name in sorted(_names(folder)):
        suffix = next((end for end in IMAGE_SUFFIXES if name.lower().endswith(end.lower())), None)
        if suffix is None:
            continue
        stem = name[: -len(suffix)]
        if stem in images:
            raise InputError(f"{folder / name}: {images[stem]} is the same scene; remove one")
        images[stem] = name
    if not images:
        raise InputError(
            f"{folder}: empty city, no *_leftImg8bit.png, .jpg or .jpeg in it; "
            "add its images or remove the folder"
        )
    return images


def _names(folder: Path) -> list[str]:
    """Names in a folder, hidden ones (such as ``._x.png`` of archives) left out."""
    try:
        return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); check it") from error


def _missing_split(root: Path, name: str) -> InputError:
    return InputError(
        f"{root / IMAGES / name}: no such folder; the data set has no {name!r} split, "
        f"so add {IMAGES}/{name}/<city> and {LABELS}/{name}/<city>"
    )


def _unreadable(path: Path, what: str, error: BaseException) -> InputError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return InputError(f"{path}: unreadable {what} ({reason}); restore the file or remove the scene")


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
