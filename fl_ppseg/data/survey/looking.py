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
from fl_ppseg.data.survey.cache import Look, SurveyCache
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


class Survey(NamedTuple):
    """What a data set holds."""

    cities: tuple[CityLabels, ...]
    """By split and city."""
    scenes: tuple[Scene, ...]
    """All scenes, each with the digest of what its files held when they were looked at."""

    def of_split(self, split: str) -> list[CityLabels]:
        """The cities of one split."""
        return [city for city in self.cities if city.split == split]


def survey(
    splits: Splits,
    num_workers: int = 1,
    progress: Progress = lambda done, total: None,
    cache: SurveyCache | None = None,
) -> Survey:
    """Look at all images and label maps, of any number of splits.

    Files are read whole and named by their content, so that neither size nor time of a file that
    was changed can hide it; what a content holds is looked up where it is known.

    Args:
        splits: Split -> city -> scenes.
        num_workers: Threads; decoding and hashing let others run.
        progress: Called with (scenes looked at, scenes in all).
        cache: What earlier surveys found, to be asked and added to.

    Raises:
        InputError: Names all that cannot be read, the first file with the reason.
    """
    known = cache or SurveyCache(None)
    scenes = [s for cities in splits.values() for own in cities.values() for s in own]
    looks: list[Look] = []
    broken: dict[str, str] = {}
    with closing(_at_once(lambda scene: _tried(scene, known), scenes, num_workers)) as found:
        for number, (scene, look) in enumerate(zip(scenes, found, strict=True)):
            progress(number, len(scenes))
            if isinstance(look, Look):
                looks.append(look)
            else:
                broken[scene.stem] = look
    progress(len(scenes), len(scenes))
    if broken:
        raise _all_broken(broken)
    known.save(looks)
    named = [replace(s, content=look.content) for s, look in zip(scenes, looks, strict=True)]
    pairs = zip(named, looks, strict=True)
    groups = groupby(pairs, key=lambda pair: (pair[0].split, pair[0].city))
    return Survey(tuple(_city(list(group)) for _, group in groups), tuple(named))


def _tried(scene: Scene, cache: SurveyCache) -> Look | str:
    """What a scene holds, or why it cannot be read."""
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
    return Look(content, size, orientation != 1, ids)


def _at_once(
    look: Callable[[Scene], Look | str], scenes: Sequence[Scene], num_workers: int
) -> Generator[Look | str]:
    """Looks in the order of the scenes; those that nobody waits for any more are not begun."""
    if num_workers == 1:
        yield from map(look, scenes)
        return
    pool = ThreadPoolExecutor(num_workers)
    try:
        yield from pool.map(look, scenes)
    finally:
        pool.shutdown(cancel_futures=True)


def _city(found: list[tuple[Scene, Look]]) -> CityLabels:
    scene = found[0][0]
    counts = np.zeros(256, dtype=np.int64)
    for _, look in found:
        counts[list(look.label_ids)] += list(look.label_ids.values())
    return CityLabels(
        split=scene.split,
        city=scene.city,
        folder=scene.label_path.parent,
        num_images=len(found),
        num_turned=sum(look.is_turned for _, look in found),
        counts=counts,
        sizes=tuple(look.size for _, look in found),
        classes=scene.classes,
    )


def _all_broken(broken: Mapping[str, str]) -> InputError:
    """None is left out on its own: which images are used would depend on the day's disk."""
    first, *others = broken
    names = ", ".join([*others[:NAMED], *["..."] * (len(others) > NAMED)])
    more = f"; {len(others)} more like it: {names}" if others else ""
    return InputError(f"{broken[first]}{more}")
