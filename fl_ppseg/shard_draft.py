"""A shard while it is written: scene by scene, in any order, by several processes, resumable.

    <parent>/.<name>.draft/
        draft.json    the manifest that it is to have; written last, a draft without it is none
        done.npy      (num_scenes,) uint8: 1 once a scene lies on disk
        shard/        arrays of their final size; becomes <parent>/<name> when all scenes are done

Scenes are numbered: training images first, then held-out ones. What is in a draft is as encrypted
as the shard will be. Whatever ends its writers, the draft can be gone on with.
"""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tokenize import TokenError
from typing import Final, Self

import numpy as np

from fl_ppseg.errors import InputError
from fl_ppseg.files import sha256, sync, write_atomically
from fl_ppseg.shard import MANIFEST, Manifest, parse_manifest

ABOUT: Final = "draft.json"
DONE: Final = "done.npy"


class ShardDraft:
    """Writes a shard; see the module's docstring."""

    def __init__(self, folder: Path) -> None:
        """Open the draft of a shard.

        Args:
            folder: Of the shard that it is to become.

        Raises:
            InputError: There is none, or it is damaged.
        """
        self.folder, self._place = folder, draft_folder(folder)
        manifest = parse_manifest(self._place / ABOUT)
        if manifest is None:
            raise InputError(f"{folder}: no draft of a shard; encrypt the images again")
        self.manifest = manifest
        self._paths = [self._place / "shard" / name for name in manifest.shapes((0, 0))]
        try:
            self._done = _map(self._place / DONE)
            arrays = [_map(path) for path in self._paths]
        except (OSError, ValueError, EOFError, TokenError) as error:
            raise InputError(f"{folder}: damaged draft ({error}); remove {self._place}") from None
        self._images, self._labels, self._heldout, self._maps = arrays
        ends = np.cumsum([0, *(height * width for height, width in manifest.heldout_sizes)])
        self._bounds: list[int] = ends.tolist()

    @classmethod
    def begin(cls, folder: Path, manifest: Manifest, image_size: tuple[int, int]) -> Self:
        """Reserve the space of a whole shard; a draft that is there goes.

        Raises:
            OSError: The disk is full, or not writable; nothing is left then.
        """
        place = draft_folder(folder)
        shutil.rmtree(place, ignore_errors=True)
        try:
            place.mkdir(parents=True, mode=0o700)
            (place / "shard").mkdir(mode=0o700)
            for name, shape in manifest.shapes(image_size).items():
                _create(place / "shard" / name, shape)
            _create(place / DONE, (manifest.num_images + manifest.num_heldout,))
            _write_manifest(place / ABOUT, manifest)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return cls(folder)

    @classmethod
    def resume(cls, folder: Path) -> Self | None:
        """The draft that interrupted writers left; None where there is no whole one."""
        with suppress(InputError):
            return cls(folder)
        return None

    @property
    def missing(self) -> list[int]:
        """Numbers of the scenes that are not done."""
        places: list[int] = np.flatnonzero(self._done == 0).tolist()
        return places

    def put(self, scene: int, view: int, image: np.ndarray, labels: np.ndarray) -> None:
        """Write one view of a scene in its place.

        Args:
            scene: Number of the scene.
            view: Number of the view; 0 for a held-out image.
            image: (3, H, W) uint8, encrypted.
            labels: (H, W) uint8 trainIds; of a held-out image at the label map's own size.
        """
        number = scene - self.manifest.num_images
        if number < 0:
            self._images[scene, view], self._labels[scene, view] = image, labels
            return
        self._heldout[number] = image
        self._maps[self._bounds[number] : self._bounds[number + 1]] = labels.ravel()

    def mark(self, scenes: Iterable[int]) -> None:
        """Note scenes as done, after they themselves are on disk, whoever wrote them."""
        for path in self._paths:
            sync(path)
        self._done[list(scenes)] = 1
        sync(self._place / DONE)

    def finish(self) -> None:
        """Give the shard its hashes, its manifest and its place; one that is there goes.

        Raises:
            ValueError: If scenes are missing.
        """
        if self.missing:
            raise ValueError(f"{self.folder}: scenes {self.missing} are missing")
        shard = self._place / "shard"
        hashes = {path.relative_to(shard).as_posix(): sha256(path) for path in self._paths}
        manifest = replace(self.manifest, sha256=hashes)
        _write_manifest(shard / MANIFEST, manifest)
        shutil.rmtree(self.folder, ignore_errors=True)
        shard.rename(self.folder)
        self.discard()

    def discard(self) -> None:
        """Remove the draft."""
        shutil.rmtree(self._place, ignore_errors=True)


def draft_folder(folder: Path) -> Path:
    """Where the draft of a shard lies: beside its place, hidden."""
    return folder.with_name(f".{folder.name}.draft")


def drafted_in(folder: Path) -> list[Path]:
    """Folders of the shards whose drafts lie in a folder."""
    names = (path.name for path in sorted(folder.glob(".*.draft")))
    return [folder / name.removeprefix(".").removesuffix(".draft") for name in names]


def _write_manifest(path: Path, manifest: Manifest) -> None:
    """What a power cut takes back of a draft is made again."""
    write_atomically(path, json.dumps(asdict(manifest)), mode=0o600, lasting=False)


def _create(path: Path, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS, where a full disk may end in a bus error
        with path.open("r+b") as file:  # here it is an error, before the first write
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.lib.format.open_memmap(path, mode="r+")
    return array
