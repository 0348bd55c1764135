"""An encrypted shard, memory-mapped: the vault makes it for a training node.

    manifest.json
    leftImg8bit/train/<city>.npy   (num_images, num_views, 3, H, W) uint8, encrypted views
    gtFine/train/<city>.npy        (num_images, num_views, H, W) uint8, trainIds, 255 ignored
    leftImg8bit/val/<city>.npy     (num_heldout, 3, H, W) uint8, encrypted held-out images
    gtFine/val/<city>.npy          flat uint8, label maps at their own sizes (in the manifest)

A shard knows no key and no file name of the owner's images. Its folder is its owner's alone, or
read by a group besides. `fl_ppseg.data.shard_draft` writes it. The hashes in its manifest tell of
damage, not of malice; a process looks at them when it opens the shard for the first time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from fl_ppseg.data.manifest import MANIFEST, Manifest, load_manifest
from fl_ppseg.data.windows import ONE_PLACE, Places, check_frame, choose, num_places
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import sha256
from fl_ppseg.system.spans import span

SMALL = 4096
"""Bytes below which a file is read and not mapped."""

_intact: set[tuple[object, ...]] = set()
"""Files whose hash this process has found to be right, with what tells that none was changed."""


@dataclass(frozen=True)
class ShardPart:
    """One client's shard on disk."""

    manifest: Manifest
    images: np.ndarray
    labels: np.ndarray
    heldout_images: np.ndarray
    heldout_labels: np.ndarray

    def heldout(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Held-out pairs: image (3, H, W) and label map (h, w) at its own size.

        Of frames the two sizes are the same, and those of a model's window or larger.
        """
        start = 0
        for number, (height, width) in enumerate(self.manifest.heldout_sizes):
            end = start + height * width
            labels = self.heldout_labels[start:end].reshape(height, width)
            if self.manifest.frames:
                yield self.heldout_images[3 * start : 3 * end].reshape(3, height, width), labels
            else:
                yield self.heldout_images[number], labels
            start = end


class Shard:
    """One or several clients' shards, seen as one."""

    def __init__(self, parts: Sequence[ShardPart]) -> None:
        self.parts = tuple(parts)
        if len({(part.images.shape[1:], part.manifest.window) for part in parts}) > 1:
            raise InputError("shards of one training differ in their views or windows")
        self._index = [(p, i) for p, part in enumerate(parts) for i in range(len(part.images))]
        self.num_views = parts[0].images.shape[1]
        self.num_heldout = sum(part.manifest.num_heldout for part in parts)

    @property
    def is_of_round(self) -> bool:
        """Whether its views are of one round: one for each pass of it (fresh views)."""
        return self.parts[0].manifest.is_of_round

    def __len__(self) -> int:
        """Number of training images."""
        return len(self._index)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels: of the views, or windows of them."""
        height, width = self.parts[0].manifest.window or self.parts[0].images.shape[-2:]
        return int(height), int(width)

    @property
    def num_places(self) -> tuple[int, int]:
        """Rows and columns in which a window of a training view can begin."""
        manifest, (height, width) = self.parts[0].manifest, self.parts[0].images.shape[-2:]
        if manifest.window is None:
            return ONE_PLACE
        return num_places((height, width), manifest.window, manifest.block_size)

    def batch(self, indices: Sequence[int], views: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Encrypted views (B, 3, H, W) and their trainIds (B, H, W) of training images."""
        chosen = [(*self._index[i], v) for i, v in zip(indices, views, strict=True)]
        images = np.stack([self.parts[p].images[i, v] for p, i, v in chosen])
        labels = np.stack([self.parts[p].labels[i, v] for p, i, v in chosen])
        return images, labels

    def windows(
        self, indices: Sequence[int], views: Sequence[int], places: Places
    ) -> tuple[np.ndarray, np.ndarray]:
        """Windows (B, 3, h, w) of encrypted views, and their trainIds (B, h, w).

        Args:
            indices: Of the training images.
            views: View of each.
            places: (B, tries, 2), of `draw_places`, of which the first that suits is taken.
        """
        size, found = self.image_size, []
        for index, view, some in zip(indices, views, places, strict=True):
            number, image = self._index[index]
            part = self.parts[number]
            labels = part.labels[image, view]
            window = choose(labels, some, size, part.manifest.block_size)
            found.append((part.images[image, view][:, *window], labels[window]))
        images, maps = zip(*found, strict=True)
        return np.stack(images), np.stack(maps)

    def label_counts(self) -> np.ndarray:
        """(256,) pixels of each trainId in the training images, of each its first view."""
        counts = np.zeros(256, np.int64)
        for part in self.parts:
            for views in part.labels:
                counts += np.bincount(views[0].ravel(), minlength=256)
        return counts

    def heldout(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Held-out pairs of all parts: image (3, H, W) uint8, trainIds (h, w) uint8."""
        for part in self.parts:
            yield from part.heldout()


def open_shard(folders: Sequence[Path]) -> Shard:
    """Memory-map the shards of one or several clients as one.

    A process reads every file once and compares it with its hash, then maps it: about a second a
    gigabyte, where training goes over it many times.

    Raises:
        InputError: If one is missing or damaged.
    """
    with span("data"):
        return Shard([_open(folder) for folder in folders])


def damaged_files(folder: Path) -> list[Path]:
    """Files of a shard that are not as they were written: changed, missing or added. Reads it all.

    Raises:
        InputError: The shard is missing.
    """
    expected = load_manifest(folder / MANIFEST).sha256
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    intact = {name for name in there & expected.keys() if sha256(folder / name) == expected[name]}
    return [folder / name for name in sorted((there | expected.keys()) - intact - {MANIFEST})]


def _open(folder: Path) -> ShardPart:
    manifest = load_manifest(folder / MANIFEST)
    try:
        for name in manifest.files:
            _check(folder / name, name, manifest.sha256.get(name))
        arrays = [_map(folder / name) for name in manifest.files]
        height, width = arrays[0].shape[-2:]
        shapes = manifest.shapes((height, width))
        if [array.shape for array in arrays] != list(shapes.values()):
            raise ValueError("its arrays do not fit its manifest")
        if height % manifest.block_size or width % manifest.block_size:
            raise ValueError(f"no blocks of {manifest.block_size} in {height}x{width} pixels")
        if manifest.window is not None:
            check_frame((height, width), manifest.window, manifest.block_size)
    except (OSError, ValueError, EOFError, TokenError, InputError) as error:
        raise InputError(f"{folder}: damaged shard ({error}); encrypt the images again") from None
    return ShardPart(manifest, *arrays)


def _check(path: Path, name: str, expected: str | None) -> None:
    """Compare a file with its hash, where this process has not done so since it was changed.

    Raises:
        ValueError: It is another.
        OSError: It cannot be read.
    """
    found = path.stat()
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if (identity, expected) in _intact:
        return
    if sha256(path) != expected:
        raise ValueError(f"{name} was changed since it was written")
    _intact.add((identity, expected))


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode=None if path.stat().st_size < SMALL else "r")
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        raise ValueError(f"{path.name} does not hold bytes of images")
    return array
