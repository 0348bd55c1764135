"""An encrypted shard: what the vault hands to a training node, memory-mapped.

    manifest.json
    leftImg8bit/train/<city>.npy   (num_images, num_views, 3, H, W) uint8, encrypted views
    gtFine/train/<city>.npy        (num_images, num_views, H, W) uint8, trainIds, 255 ignored
    leftImg8bit/val/<city>.npy     (num_heldout, 3, H, W) uint8, encrypted held-out images
    gtFine/val/<city>.npy          flat uint8, label maps at their own sizes (in the manifest)

A shard knows no key and no file name of the owner's images. Its folder is 0700, its files 0600.
`fl_ppseg.shard_draft` writes it. The hashes in its manifest tell of damage, not of malice; opening
a shard does not look at them, `damaged_files` does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError

import numpy as np

from fl_ppseg.errors import InputError
from fl_ppseg.files import sha256

SCHEMA = 2
MANIFEST = "manifest.json"


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
    record: str | None = None
    """Names the owner's own record of its derived keys' salts; none: it has none."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Hex digest of each array by its file, e.g. `gtFine/val/aachen.npy`."""

    @property
    def num_heldout(self) -> int:
        """Number of held-out images."""
        return len(self.heldout_sizes)

    def shapes(self, image_size: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes of the four arrays by their file.

        Args:
            image_size: (height, width) of the encrypted images, in pixels.
        """
        train = (self.num_images, self.num_views)
        num_labels = sum(height * width for height, width in self.heldout_sizes)
        return {
            f"leftImg8bit/train/{self.city}.npy": (*train, 3, *image_size),
            f"gtFine/train/{self.city}.npy": (*train, *image_size),
            f"leftImg8bit/val/{self.city}.npy": (self.num_heldout, 3, *image_size),
            f"gtFine/val/{self.city}.npy": (num_labels,),
        }


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


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a shard, or None where there is no whole shard of this version."""
    return parse_manifest(folder / MANIFEST)


def parse_manifest(path: Path) -> Manifest | None:
    """The manifest in a file, or None where there is none of this version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
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


def damaged_files(folder: Path) -> list[Path]:
    """Files of a shard that are not as they were written: changed, missing or added. Reads it all.

    Raises:
        InputError: There is no shard.
    """
    manifest = _manifest_of(folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = manifest.sha256
    intact = {name for name in there & wanted.keys() if sha256(folder / name) == wanted[name]}
    return [folder / name for name in sorted((there | wanted.keys()) - intact - {MANIFEST})]


def _open(folder: Path) -> ShardPart:
    manifest = _manifest_of(folder)
    try:
        arrays = [_map(folder / name) for name in manifest.shapes((0, 0))]
        shapes = manifest.shapes(arrays[0].shape[-2:])
        if [array.shape for array in arrays] != list(shapes.values()):
            raise ValueError("its arrays do not fit its manifest")
    except (OSError, ValueError, EOFError, TokenError) as error:
        raise InputError(f"{folder}: damaged shard ({error}); encrypt the images again") from None
    return ShardPart(manifest, *arrays)


def _manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no encrypted shard; encrypt the images again")
    return manifest


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode=None if path.stat().st_size < 4096 else "r")
    return array
