"""An encrypted shard: what the vault hands to a training node, memory-mapped.

    manifest.json
    leftImg8bit/train/<city>.npy   (num_images, num_views, 3, H, W) uint8, encrypted views
    gtFine/train/<city>.npy        (num_images, num_views, H, W) uint8, trainIds, 255 ignored
    leftImg8bit/val/<city>.npy     (num_heldout, 3, H, W) uint8, encrypted held-out images
    gtFine/val/<city>.npy          flat uint8, label maps at their own sizes (in the manifest)

A shard knows no key and no file name of the owner's images. Its folder is 0700, its files 0600.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from fl_ppseg.errors import InputError
from fl_ppseg.files import replacing_folder, sync, write_atomically

SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """What a node may know of a shard beside its arrays."""

    schema: int
    city: str
    settings: str
    """Digest of everything the shard was made from and with."""
    block_size: int
    num_images: int
    num_views: int
    heldout_sizes: list[tuple[int, int]]
    """Height and width of each held-out label map."""


@dataclass(frozen=True)
class ShardPart:
    """One city's shard on disk."""

    manifest: Manifest
    images: np.ndarray
    labels: np.ndarray
    heldout_images: np.ndarray
    heldout_labels: np.ndarray

    def heldout(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Held-out pairs: image (3, H, W) and label map (h, w) at its own size."""
        start = 0
        for image, (height, width) in zip(
            self.heldout_images, self.manifest.heldout_sizes, strict=True
        ):
            end = start + height * width
            yield image, self.heldout_labels[start:end].reshape(height, width)
            start = end


class Shard:
    """One or several cities' shards, seen as one."""

    def __init__(self, parts: Sequence[ShardPart]) -> None:
        self.parts = tuple(parts)
        self._index = [(p, i) for p, part in enumerate(parts) for i in range(len(part.images))]
        self.num_views = parts[0].images.shape[1]
        self.num_heldout = sum(len(part.heldout_images) for part in parts)

    def __len__(self) -> int:
        """Number of training images."""
        return len(self._index)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the encrypted images, in pixels."""
        height, width = self.parts[0].heldout_images.shape[-2:]
        return int(height), int(width)

    def batch(self, indices: Sequence[int], views: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Encrypted views (B, 3, H, W) and their trainIds (B, H, W) of training images."""
        chosen = [(*self._index[i], v) for i, v in zip(indices, views, strict=True)]
        images = np.stack([self.parts[p].images[i, v] for p, i, v in chosen])
        labels = np.stack([self.parts[p].labels[i, v] for p, i, v in chosen])
        return images, labels

    def heldout(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Held-out pairs of all parts: image (3, H, W) uint8, trainIds (h, w) uint8."""
        for part in self.parts:
            yield from part.heldout()


class ShardWriter:
    """Writes a shard view by view; see `writing_shard`."""

    def __init__(self, root: Path, manifest: Manifest, image_size: tuple[int, int]) -> None:
        self._num_views = manifest.num_views
        shapes = _shapes(manifest, image_size)
        self._paths = [_file(root, kind, manifest) for kind in shapes]
        self._arrays = [_create(*each) for each in zip(self._paths, shapes.values(), strict=True)]
        self._images, self._labels, self._heldout, self._maps = self._arrays
        self._next = self._next_heldout = self._next_label = 0

    def add_view(self, image: np.ndarray, labels: np.ndarray) -> None:
        """Append an encrypted view (3, H, W) and its trainIds (H, W), image by image."""
        place = divmod(self._next, self._num_views)
        self._images[place], self._labels[place] = image, labels
        self._next += 1

    def add_heldout(self, image: np.ndarray, labels: np.ndarray) -> None:
        """Append an encrypted held-out image (3, H, W) and its label map (h, w)."""
        self._heldout[self._next_heldout] = image
        end = self._next_label + labels.size
        self._maps[self._next_label : end] = labels.ravel()
        self._next_heldout, self._next_label = self._next_heldout + 1, end

    def finish(self) -> None:
        """Bring everything to disk, once every view and held-out image that was promised is here.

        Raises:
            ValueError: If some are missing.
        """
        written = (self._next, self._next_heldout)
        promised = (self._images.shape[0] * self._num_views, len(self._heldout))
        if written != promised:
            raise ValueError(f"{written} views and held-out images written, {promised} promised")
        for path, array in zip(self._paths, self._arrays, strict=True):
            if isinstance(array, np.memmap):
                array.flush()
            sync(path)


@contextmanager
def writing_shard(
    folder: Path, manifest: Manifest, image_size: tuple[int, int]
) -> Iterator[ShardWriter]:
    """A writer for a new shard; the folder appears whole at the end, or not at all."""
    with replacing_folder(folder, mode=0o700) as temporary:
        writer = ShardWriter(temporary, manifest, image_size)
        yield writer
        writer.finish()
        write_atomically(temporary / "manifest.json", json.dumps(asdict(manifest)), mode=0o600)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a shard, or None where there is no whole shard of this version."""
    try:
        values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        values["heldout_sizes"] = [(int(h), int(w)) for h, w in values["heldout_sizes"]]
        manifest = Manifest(**values)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return manifest if manifest.schema == SCHEMA else None


def open_shard(folders: Sequence[Path]) -> Shard:
    """Memory-map the shards of one or several cities as one.

    Raises:
        InputError: If one is missing or damaged.
    """
    return Shard([_open(folder) for folder in folders])


def _open(folder: Path) -> ShardPart:
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no encrypted shard; encrypt the images again")
    try:
        arrays = [_map(_file(folder, kind, manifest)) for kind in _shapes(manifest, (0, 0))]
        shapes = _shapes(manifest, arrays[0].shape[-2:])
        if [array.shape for array in arrays] != list(shapes.values()):
            raise ValueError("its arrays do not fit its manifest")
    except (OSError, ValueError, EOFError, TokenError) as error:
        raise InputError(f"{folder}: damaged shard ({error}); encrypt the images again") from None
    return ShardPart(manifest, *arrays)


def _shapes(manifest: Manifest, image_size: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the four arrays of a shard by their folder."""
    train = (manifest.num_images, manifest.num_views)
    num_labels = sum(height * width for height, width in manifest.heldout_sizes)
    return {
        "leftImg8bit/train": (*train, 3, *image_size),
        "gtFine/train": (*train, *image_size),
        "leftImg8bit/val": (len(manifest.heldout_sizes), 3, *image_size),
        "gtFine/val": (num_labels,),
    }


def _file(root: Path, kind: str, manifest: Manifest) -> Path:
    return root / kind / f"{manifest.city}.npy"


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode=None if path.stat().st_size < 4096 else "r")
    return array


def _create(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    path.parent.mkdir(parents=True)
    path.touch(mode=0o600)
    if 0 in shape:
        np.save(path, np.zeros(shape, np.uint8))
        return np.zeros(shape, np.uint8)
    array: np.ndarray = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS, where a full disk may end in a bus error
        with path.open("r+b") as file:  # here it is an error, before the first write
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
