"""A shard while it is written: scene by scene, in any order, by several processes, resumable.

    <place>/draft.json      the manifest that it is to have, written first; `finished.json` once the
                            shard is whole and may have moved
    <place>/<its name>/     arrays of their final size; a whole shard when all scenes are done
    <place>/done.npy        (num_scenes,) uint8: 1 once a scene lies on disk; made last, a draft
                            without it is none

Scenes are numbered: training images first, then held-out ones. What is in a draft is as encrypted
as the shard will be. However its writers end, the draft can be resumed, and records which
record of salts belongs to it.
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

from fl_ppseg.data.manifest import MANIFEST, Manifest, load_manifest
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import sha256, sync
from fl_ppseg.system.spans import span

ABOUT: Final = "draft.json"
FINISHED: Final = "finished.json"
DONE: Final = "done.npy"


class ShardDraft:
    """Writes a shard; see the module's docstring."""

    def __init__(self, place: Path) -> None:
        """Open a draft.

        Args:
            place: Its folder, of the shard's own name.

        Raises:
            InputError: There is none, or it is damaged.
        """
        self.place = place
        self.manifest = _manifest(place)
        self._paths = [place / place.name / name for name in self.manifest.files]
        try:
            self._done = _map(place / DONE)
            arrays = [_map(path) for path in self._paths]
            self._check(arrays)
        except (OSError, ValueError, EOFError, TokenError) as error:
            raise InputError(f"{place}: damaged draft of a shard ({error}); remove it") from None
        self._images, self._labels, self._heldout, self._maps = arrays
        ends = np.cumsum([0, *(height * width for height, width in self.manifest.heldout_sizes)])
        self._bounds: list[int] = ends.tolist()

    @classmethod
    def begin(cls, place: Path, manifest: Manifest, image_size: tuple[int, int]) -> Self:
        """Reserve the space of a whole shard; a draft that is there goes.

        Raises:
            OSError: The disk is full, or not writable; nothing is left then.
        """
        with Directory.open(place.parent, make=0o700) as parent:
            if parent.find(place.name) is not None:
                parent.remove_tree(place.name)
            try:
                with parent.make_child(place.name) as draft:
                    draft.write(ABOUT, _json(manifest))  # before anything that it names
                    parent.sync()
                    for name, shape in manifest.shapes(image_size).items():
                        _create(draft, f"{place.name}/{name}", shape)
                    _create(draft, DONE, (manifest.num_images + manifest.num_heldout,))
            except OSError:
                parent.remove_tree(place.name)
                raise
        return cls(place)

    @classmethod
    def resume(cls, place: Path) -> Self | None:
        """The draft that interrupted writers left; None where there is no whole one."""
        with suppress(InputError):
            return cls(place)
        return None

    @property
    def missing(self) -> list[int]:
        """Numbers of the scenes that are not done."""
        places: list[int] = np.flatnonzero(self._done == 0).tolist()
        return places

    @property
    def is_finished(self) -> bool:
        """Whether the shard is whole, and only waits to be moved."""
        return (self.place / FINISHED).exists()

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
        start, end = self._bounds[number], self._bounds[number + 1]
        if self.manifest.frames:
            self._heldout[3 * start : 3 * end] = image.ravel()
        else:
            self._heldout[number] = image
        self._maps[start:end] = labels.ravel()

    def mark(self, scenes: Iterable[int]) -> None:
        """Mark scenes as done, after their data are on disk."""
        with span("data"):
            for path in self._paths:
                sync(path)
            self._done[list(scenes)] = 1
            sync(self.place / DONE)

    def finish(self) -> Path:
        """Give the shard its hashes and its manifest; it is whole then, and waits to be moved.

        Returns:
            Its folder, in the draft's.

        Raises:
            ValueError: If scenes are missing.
        """
        if self.missing:
            raise ValueError(f"{self.place}: scenes {self.missing} are missing")
        shard = self.place / self.place.name
        with span("data"):
            hashes = {path.relative_to(shard).as_posix(): sha256(path) for path in self._paths}
        with Directory.open(shard) as folder:
            for entry in folder.entries():
                if entry.kind == "file":  # a manifest or a part of one: that writer was killed
                    folder.remove(entry.name)
            folder.write(MANIFEST, _json(replace(self.manifest, sha256=hashes)))
        with suppress(FileNotFoundError):
            (self.place / ABOUT).rename(self.place / FINISHED)
        sync(self.place)
        return shard

    def reopen(self) -> None:
        """Take back that it is finished, where the shard could not be moved."""
        (self.place / FINISHED).rename(self.place / ABOUT)

    def discard(self) -> None:
        """Remove the draft, and the folder of drafts where it was the last."""
        remove_draft(self.place)

    def _check(self, arrays: list[np.ndarray]) -> None:
        """See that the arrays are those of the manifest.

        Raises:
            ValueError: They are not.
        """
        height, width = arrays[0].shape[-2:]
        expected = self.manifest.shapes((height, width)).values()
        num_scenes = self.manifest.num_images + self.manifest.num_heldout
        if [array.shape for array in arrays] != list(expected) or self._done.shape != (num_scenes,):
            raise ValueError("its arrays do not fit its manifest")


def remove_draft(place: Path) -> None:
    """Remove what there is of a draft, and the folder of drafts where it was the last."""
    shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):
        place.parent.rmdir()


def has_moved(place: Path) -> bool:
    """Whether a draft is what is left of one that was finished, and whose shard was moved."""
    return (place / FINISHED).exists() and not (place / place.name).exists()


def record_of(place: Path) -> str | None:
    """The record of salts that belongs to a draft, which may be half made; none: it has none.

    That of a finished one is not named: the shard may lie in its place already, and needs it. Nor
    is that of a round's, which is its owner's for all rounds.
    """
    try:
        manifest = load_manifest(place / ABOUT, finished=False)
        return None if manifest.is_of_round else manifest.record
    except InputError:
        return None


def _manifest(place: Path) -> Manifest:
    finished = place / FINISHED
    path = finished if finished.exists() else place / ABOUT
    return load_manifest(path, finished=False)


def _json(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest))


def _create(draft: Directory, name: str, shape: tuple[int, ...]) -> None:
    """A file of zeros with its folders, its owner's alone whatever the umask."""
    *folders, _ = name.split("/")
    _make(draft, folders)
    path = draft.path / name
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS, where a full disk may end in a bus error
        with path.open("r+b") as file:  # here it is an error, before the first write
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None


def _make(folder: Directory, names: list[str]) -> None:
    if names:
        with folder.make_child(names[0]) as child:
            _make(child, names[1:])


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.lib.format.open_memmap(path, mode="r+")
    if array.dtype != np.uint8:
        raise ValueError(f"{path.name} does not hold bytes of images")
    return array
