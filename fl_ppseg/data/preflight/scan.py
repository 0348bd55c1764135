"""One pass over all files of a data set: their digests, and the labelIds of the label maps."""

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl_ppseg.data.classes import IGNORE_INDEX, ClassTable
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.label_maps import count_values
from fl_ppseg.data.preflight.cache import ScanCache, SceneScan
from fl_ppseg.data.tree_layout import NAMED
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import Progress

Splits = Mapping[str, Mapping[str, Sequence[Scene]]]
"""Split -> city -> scenes."""


@dataclass(frozen=True, eq=False)
class CityLabels:
    """What the label maps of a city hold, in one split.

    Attributes:
        split: `train`, `val` or another.
        city: Its name.
        folder: Folder of the label maps.
        num_images: How many there are.
        num_turned: Images that their EXIF orientation turns.
        counts: (256,) int64, pixels of each labelId.
        sizes: (height, width) of each label map, by name.
        classes: The table that they are read with.
    """

    split: str
    city: str
    folder: Path
    num_images: int
    num_turned: int
    counts: NDArray[np.int64]
    sizes: tuple[tuple[int, int], ...]
    classes: ClassTable

    @property
    def label_ids(self) -> list[int]:
        """The labelIds met, ascending."""
        return [int(k) for k in np.flatnonzero(self.counts)]

    @property
    def labelled(self) -> float:
        """Share of pixels that are of a class, 0 to 1."""
        is_scored = self.classes.label_to_train != IGNORE_INDEX
        return float(self.counts[is_scored].sum() / max(1, self.counts.sum()))

    @property
    def missing(self) -> list[str]:
        """Names of the classes that never occur."""
        met = set(self.classes.label_to_train[self.label_ids].tolist())
        return [name for train_id, name in enumerate(self.classes.names) if train_id not in met]


class Scan(NamedTuple):
    """The result of a scan."""

    cities: tuple[CityLabels, ...]
    """By split and city."""
    scenes: tuple[Scene, ...]
    """All scenes, each with the digest of what its files held when they were scanned."""

    def of_split(self, split: str) -> list[CityLabels]:
        """The cities of one split."""
        return [city for city in self.cities if city.split == split]


def scan_data(
    splits: Splits,
    num_workers: int = 1,
    progress: Progress = lambda done, total: None,
    cache: ScanCache | None = None,
) -> Scan:
    """SceneScan at all images and label maps, of any number of splits.

    Files are read whole and identified by their content, so that a changed file is noticed whatever
    its size and time; the result of known content is taken from the cache.

    Args:
        splits: Split -> city -> scenes.
        num_workers: Threads; decoding and hashing let others run.
        progress: Called with (number of scanned scenes, number of scenes).
        cache: Results of earlier scans; read and extended.

    Raises:
        InputError: Scenes cannot be read; names all of them, the first with the reason.
    """
    known = cache or ScanCache(None)
    scenes = [s for cities in splits.values() for own in cities.values() for s in own]
    scans: list[SceneScan] = []
    broken: dict[str, str] = {}
    with closing(_scan_all(lambda scene: _scan(scene, known), scenes, num_workers)) as found:
        for number, (scene, scan) in enumerate(zip(scenes, found, strict=True)):
            progress(number, len(scenes))
            if isinstance(scan, SceneScan):
                scans.append(scan)
            else:
                broken[scene.stem] = scan
    progress(len(scenes), len(scenes))
    if broken:
        raise _all_broken(broken)
    known.save(scans)
    named = [replace(s, content=scan.content) for s, scan in zip(scenes, scans, strict=True)]
    pairs = zip(named, scans, strict=True)
    groups = groupby(pairs, key=lambda pair: (pair[0].split, pair[0].city))
    return Scan(tuple(_city(list(group)) for _, group in groups), tuple(named))


def _scan(scene: Scene, cache: ScanCache) -> SceneScan | str:
    """The scan of a scene, or why it cannot be read."""
    try:
        files = scene.files()
        content = files.content
        if (known := cache.find(content)) is not None:
            return known
        label_ids, orientation = scene.look(files)
    except InputError as error:
        return str(error)
    counts = count_values(label_ids)
    size = int(label_ids.shape[0]), int(label_ids.shape[1])
    ids = {int(k): int(counts[k]) for k in np.flatnonzero(counts)}
    return SceneScan(content, size, orientation != 1, ids)


def _scan_all(
    scan: Callable[[Scene], SceneScan | str], scenes: Sequence[Scene], num_workers: int
) -> Generator[SceneScan | str]:
    """Scan in the order of the scenes; pending scans are cancelled when the caller stops."""
    if num_workers == 1:
        yield from map(scan, scenes)
        return
    pool = ThreadPoolExecutor(num_workers)
    try:
        yield from pool.map(scan, scenes)
    finally:
        pool.shutdown(cancel_futures=True)


def _city(found: list[tuple[Scene, SceneScan]]) -> CityLabels:
    scene = found[0][0]
    counts = np.zeros(256, dtype=np.int64)
    for _, scan in found:
        counts[list(scan.label_ids)] += list(scan.label_ids.values())
    return CityLabels(
        split=scene.split,
        city=scene.city,
        folder=scene.label_path.parent,
        num_images=len(found),
        num_turned=sum(scan.is_turned for _, scan in found),
        counts=counts,
        sizes=tuple(scan.size for _, scan in found),
        classes=scene.classes,
    )


def _all_broken(broken: Mapping[str, str]) -> InputError:
    """Broken scenes are not skipped: else the state of the disk would decide what is used."""
    first, *others = broken
    names = ", ".join([*others[:NAMED], *["..."] * (len(others) > NAMED)])
    more = f"; and {len(others)} more: {names}" if others else ""
    return InputError(f"{broken[first]}{more}")
