"""A procedural street-scene data set in Cityscapes layout, drawn by one process or several.

Everything is written to a hidden folder beside the target and renamed at the end, so the target is
either absent or complete; `dataset.json` marks it as complete.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from fl_ppseg.scenes.cities import TRAIN_CITIES, VAL_CITIES, city_style, split_sizes
from fl_ppseg.scenes.files import LABELS, PHOTOS, SceneFiles, write_scenes
from fl_ppseg.system.errors import DISK_FULL, InputError, RunError
from fl_ppseg.system.files import Progress, hold_lock, replacing_folder
from fl_ppseg.system.workers import work_at_once

log = logging.getLogger(__name__)

MARKER = "dataset.json"
GENERATOR = 2
"""Version of the scenes: raised whenever the same settings give other pictures."""
BATCH = 8 * 128 * 256
"""Pixels that a worker draws between two reports of progress: about 0.2 s of work."""

Cities = tuple[Mapping[str, int], Mapping[str, int]]


def synthesize(
    root: Path,
    *,
    num_train: int = 600,
    num_val: int = 60,
    size: tuple[int, int] = (128, 256),
    seed: int = 0,
    cities: Cities | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> None:
    """Write scenes to `root`, or leave a complete tree of the same settings as it is.

    The pictures depend on (seed, city, index, size) only, never on `workers`. Workers are spawned
    processes that import numpy and Pillow, and the caller's main module: keep its imports light.
    Of concurrent calls for one root the first draws, and the others wait for it.

    Args:
        root: folder to be made; its parent is made too.
        num_train: scenes in all training cities together, shared out by `split_sizes`.
        num_val: the same for the val cities.
        size: (H, W) in pixels, 32x32 to 1024x2048.
        seed: 0 or more.
        cities: relative sizes of the training and of the val cities; Cityscapes' own by default.
        workers: number of processes; 1 draws in this one.
        progress: called with (scenes done, scenes in all) as work goes on.

    Raises:
        InputError: impossible settings; or `root` exists and is not a complete tree of them.
        RunError: the disk is full, or a worker died.
    """
    tables = cities or (TRAIN_CITIES, VAL_CITIES)
    settings = _settings((num_train, num_val), size, seed, tables, workers)
    if _is_complete(root, settings):
        log.info("%s is complete: nothing to do", root)
        return
    try:
        with hold_lock(root.with_name(f".{root.name}.lock")):
            if _is_complete(root, settings):
                return
            with replacing_folder(root) as temporary:
                _write_tree(temporary, settings, workers, progress or (lambda done, total: None))
    except OSError as problem:
        if problem.errno not in DISK_FULL:
            raise RunError(f"cannot write {root}: {problem}") from problem
        raise RunError(
            f"no space left on the disk of {root}: free some, or ask for fewer or smaller scenes"
        ) from problem


def _settings(
    totals: tuple[int, int], size: tuple[int, int], seed: int, tables: Cities, workers: int
) -> dict[str, Any]:
    """The settings that determine the tree, as in the marker file."""
    rows, columns = size
    if not (32 <= rows <= 1024 and 32 <= columns <= 2048):
        raise InputError(f"expected a size from 32x32 to 1024x2048, got {rows}x{columns}")
    if seed < 0:
        raise InputError(f"expected a seed of 0 or more, got {seed}")
    if workers < 1:
        raise InputError(f"expected 1 or more workers, got {workers}")
    if sum(totals) == 0:
        raise InputError("no scenes asked for: choose more than 0 for training or validation")
    both = sorted(set(tables[0]) & set(tables[1]))
    if both:
        raise InputError(f"{both[0]} is a training and a val city: a city belongs to one split")
    splits = zip(("train", "val"), totals, tables, strict=True)
    sizes = {split: split_sizes(total, counts) for split, total, counts in splits}
    for city in (*sizes["train"], *sizes["val"]):
        city_style(city)
    return {"generator": GENERATOR, "size": [rows, columns], "seed": seed, "cities": sizes}


def _is_complete(root: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the tree is there with these settings; False if there is nothing at all."""
    remedy = "choose another folder or delete this one"
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    from fl_ppseg.config.documents import (  # not above: workers need none of it
        parse_json,
        read_text,
    )

    marker = root / MARKER
    if not marker.is_file():
        raise InputError(f"{root} exists, but holds no {MARKER} of a complete data set: {remedy}")
    try:
        found = parse_json(read_text(marker), str(marker))
        differing = [key for key in settings if found["settings"].get(key) != settings[key]]
        count = int(found["count"])
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(f"{marker} is corrupt: delete {root} and run again") from problem
    if differing:
        raise InputError(f"{root} was made with another {', '.join(differing)}: {remedy}")
    for folder in (PHOTOS, LABELS):
        present = sum(1 for _ in (root / folder).glob("*/*/*.png"))
        if present != count:
            raise InputError(
                f"{root / folder} holds {present} pictures instead of {count}: "
                f"delete {root} and run again"
            )
    return True


def _write_tree(root: Path, settings: Mapping[str, Any], workers: int, progress: Progress) -> None:
    """All scenes, then the marker."""
    scenes = [
        SceneFiles(root, split, city, index, settings["seed"], tuple(settings["size"]))
        for split, sizes in settings["cities"].items()
        for city, number in sizes.items()
        for index in range(number)
    ]
    size = max(1, BATCH // prod(settings["size"]))
    batches = [scenes[start : start + size] for start in range(0, len(scenes), size)]
    for scene in scenes:
        scene.make_folders()
    done = 0
    progress(done, len(scenes))
    for number in _draw(batches, workers):
        done += number
        progress(done, len(scenes))
    marker = {"schema": 1, "settings": settings, "count": len(scenes)}
    (root / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _draw(batches: Sequence[list[SceneFiles]], workers: int) -> Iterator[int]:
    """Write all batches; yields the size of each as it ends."""
    if workers == 1:
        return map(write_scenes, batches)
    return (number for _, number in work_at_once(write_scenes, batches, workers, "drawing"))
