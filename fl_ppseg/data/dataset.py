"""Reads any data set in Cityscapes layout.

``leftImg8bit/<split>/<city>/<stem>_leftImg8bit.{png,jpg,jpeg}`` and beside it
``gtFine/<split>/<city>/<stem>_gtFine_labelIds.png``. Opening looks at names, loading at pixels.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.data.classes import ClassTable
from fl_ppseg.data.image_files import (
    PHOTOGRAPHS,
    decode_image,
    opened,
    orientation,
    read_file,
    shown_size,
)
from fl_ppseg.data.label_maps import decode_label_ids, require_label_ids, require_same_size
from fl_ppseg.data.tree_layout import (
    IMAGES,
    Missing,
    cities_of,
    find_parts,
    listed,
    missing_labels,
    missing_split,
    pairs_of,
)
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.spans import span


class Files(NamedTuple):
    """The bytes of a scene."""

    image: bytes
    label_map: bytes

    @property
    def content(self) -> str:
        """Hex digest that names both."""
        each = (hashlib.sha256(data).digest() for data in self)
        return hashlib.sha256(b"".join(each)).hexdigest()


@dataclass(frozen=True)
class Scene:
    """One image with its label map.

    Attributes:
        city: Name of the folder of the image, e.g. ``aachen``.
        split: ``train``, ``val`` or another folder of the tree.
        stem: File name without its suffix, e.g. ``aachen_000000_000019``.
        image_path: The image, PNG or JPEG.
        label_path: The map of labelIds, an 8-bit PNG of one channel.
        classes: Table that turns labelIds into trainIds.
        content: Digest of both files when they were looked at; files of another are refused.
    """

    city: str
    split: str
    stem: str
    image_path: Path
    label_path: Path
    classes: ClassTable = field(repr=False, compare=False)
    content: str | None = field(default=None, repr=False, compare=False)

    @property
    def scene_id(self) -> str:
        """``split/city/stem``: names the scene within its data set."""
        return f"{self.split}/{self.city}/{self.stem}"

    def identified(self) -> "Scene":
        """The scene with the digest of what its files hold now.

        Raises:
            InputError: A file is missing or cannot be read.
        """
        with span("data"):
            return replace(self, content=self._files().content)

    def size(self) -> tuple[int, int]:
        """(height, width) of the label map by its header, without its pixels.

        Raises:
            InputError: The file is missing or no picture.
        """
        data = read_file(self.label_path, "label map")
        with opened(data, self.label_path, "label map") as picture:
            return picture.height, picture.width

    def check(self) -> None:
        """Finds out whether the pair can be loaded, at a fraction of the cost.

        PNGs are compared with their own checksums, JPEGs are decoded at an eighth of their size. A
        pair that fails there is loaded after all, since decoders forgive some damage.

        Raises:
            InputError: As `load`.
        """
        files = self.files()
        try:
            self._look(files)
        except InputError:
            self.decode(files)

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Reads the pair from disk.

        Returns:
            (3, H, W) uint8 RGB, upright, and (H, W) uint8 trainIds, 255 = ignored.

        Raises:
            InputError: A file is missing, broken or of the wrong kind, the sizes differ, or it is
                not what it was when it was looked at.
        """
        with span("data"):
            image, label_ids = self.decode(self.files())
            return image, self.classes.encode(label_ids)

    def label_map(self) -> NDArray[np.uint8]:
        """(H, W) uint8 trainIds, 255 = ignored; the image is not decoded.

        Raises:
            InputError: As `files`, or the label map is broken or of the wrong kind.
        """
        with span("data"):
            found = self.files().label_map
            return self.classes.encode(decode_label_ids(found, self.label_path, self.classes))

    def files(self) -> Files:
        """The bytes of the pair.

        Raises:
            InputError: They cannot be read, or are not what they were when they were looked at.
        """
        files = self._files()
        if self.content is not None and files.content != self.content:
            raise InputError(
                f"{self.image_path} or its label map {self.label_path}: changed after the "
                f"preflight "
                "check; run the command again"
            )
        return files

    def decode(self, files: Files) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """`load` of bytes, with labelIds in the place of trainIds."""
        image = decode_image(files.image, self.image_path)
        label_ids = decode_label_ids(files.label_map, self.label_path, self.classes)
        self._require_same_size(label_ids.shape[::-1], image.shape[:0:-1], files.image)
        return image, label_ids

    def look(self, files: Files) -> tuple[NDArray[np.uint8], int]:
        """(H, W) uint8 labelIds of the pair and its image's EXIF orientation, 1 = upright.

        Raises:
            InputError: As `load`: the image can be loaded as well.
        """
        try:
            self._look(files)
            label_ids = decode_label_ids(files.label_map, self.label_path, self.classes)
        except InputError:
            label_ids = self.decode(files)[1]
        with opened(files.image, self.image_path, "image") as picture:
            return label_ids, orientation(files.image, picture)

    def _files(self) -> Files:
        return Files(read_file(self.image_path, "image"), read_file(self.label_path, "label map"))

    def _look(self, files: Files) -> None:
        with opened(files.image, self.image_path, "image") as picture:
            size = shown_size(files.image, picture)
            if picture.format in PHOTOGRAPHS:
                picture.draft("L", (picture.width // 8, picture.height // 8))
                picture.load()
            picture.verify()
        with opened(files.label_map, self.label_path, "label map") as picture:
            require_label_ids(files.label_map, picture, self.label_path)
            self._require_same_size(picture.size, size, files.image)
            picture.verify()

    def _require_same_size(
        self, label_map: tuple[int, ...], image: tuple[int, ...], data: bytes
    ) -> None:
        require_same_size(label_map, image, data, self.image_path, self.label_path)


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
            raise missing_split(self.root / IMAGES, name)
        return dict(self.splits[name])

    def scenes(self) -> tuple[Scene, ...]:
        """All of them, by split and city."""
        return tuple(s for cities in self.splits.values() for city in cities.values() for s in city)

    def replaced(self, scenes: Iterable[Scene]) -> "Dataset":
        """The same data set with other objects for scenes of the same ids."""
        by_id = {scene.scene_id: scene for scene in scenes}
        splits = {
            split: {city: tuple(by_id[s.scene_id] for s in own) for city, own in cities.items()}
            for split, cities in self.splits.items()
        }
        return replace(self, splits=splits)


def open_dataset(root: Path, classes: ClassTable, required: Sequence[str] = ("train",)) -> Dataset:
    """Lists the scenes of a tree and checks, by names only, that each has its label map.

    Args:
        root: Folder that holds ``leftImg8bit`` and ``gtFine``.
        classes: Table that turns labelIds into trainIds.
        required: Splits that must be there; ``train`` and ``val`` are read wherever they are.

    Raises:
        InputError: The layout is broken: a folder is missing, label maps are, or a city is empty.
    """
    root = Path(root)
    images, labels = find_parts(root)
    names = dict.fromkeys(("train", "val", *required))
    present = [name for name in names if (images / name).is_dir()]
    for name in required:
        if name not in present:
            raise missing_split(images, name)
    missing: list[Missing] = []
    splits = {name: _open_split(images / name, labels / name, classes, missing) for name in present}
    if missing:
        raise missing_labels(missing)
    return Dataset(root, classes, splits)


def _open_split(
    images: Path, labels: Path, classes: ClassTable, missing: list[Missing]
) -> dict[str, tuple[Scene, ...]]:
    """City -> its scenes; images without label map are added to `missing`."""
    label_folders = listed(labels) if labels.is_dir() else {}
    cities = {}
    for city, folder in cities_of(images).items():
        pairs, lacking = pairs_of(folder, label_folders.get(city, labels / city))
        missing += lacking
        cities[city] = tuple(
            Scene(city, images.name, stem, image, label, classes) for stem, image, label in pairs
        )
    return cities
