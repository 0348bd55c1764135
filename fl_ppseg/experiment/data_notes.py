"""Notes on a run's images and on how they are scored, for terminal, log and report."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fl_ppseg.config.data import DataConfig
from fl_ppseg.data.dataset import Dataset, Scene
from fl_ppseg.data.preflight.cache import ScanCache
from fl_ppseg.data.preflight.rules import refuse_unusable, warnings
from fl_ppseg.data.preflight.scan import Scan, scan_data
from fl_ppseg.data.preflight.table import scan_table
from fl_ppseg.data.tree_layout import bounded
from fl_ppseg.learning.scores import MEAN_OF
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.system.spans import span


class DataNotes(NamedTuple):
    """Notes on a run's images."""

    table: str
    """By client; empty for procedural scenes."""
    notes: tuple[str, ...]
    """How they are scored, one sentence per note."""


def examine(
    dataset: Dataset,
    data: DataConfig,
    num_workers: int,
    progress: StepProgress,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Dataset, DataNotes]:
    """Check all files before they are used.

    Procedural scenes are only identified by their content.

    Args:
        dataset: The tree.
        data: How it is used.
        num_workers: Threads.
        progress: Shows the step.
        tell: Called with the table and the warnings, before anything is refused.

    Returns:
        The data set with every scene identified by its content, and the notes.

    Raises:
        InputError: Files cannot be read, or label maps are implausible.
    """
    if data.root is None:
        with ThreadPoolExecutor(num_workers) as pool:
            named = list(pool.map(Scene.identified, dataset.scenes()))
        return dataset.replaced(named), DataNotes("", (MEAN_OF,))
    cache = ScanCache.of_table(dataset.classes)
    with span("data"):
        found = scan_data(
            dataset.splits,
            num_workers,
            lambda done, total: progress.update("looking at images and label maps", done, total),
            cache,
        )
    table = "\n".join([scan_table(found), *warnings(found)])
    tell(table)
    refuse_unusable(found)
    return dataset.replaced(found.scenes), DataNotes(table, scoring_notes(found, dataset, data))


def reserved_scene(scenes: Sequence[Scene], data: DataConfig) -> Scene | None:
    """The scene of a val client that a report shows plain, and that therefore no shard holds.

    The middle one of three or more; a client of fewer has none to spare. Only a user's own data
    need it: procedural scenes are public, and all of them are scored.
    """
    if data.root is None or not data.show_val_scene or len(scenes) < 3:
        return None
    return scenes[len(scenes) // 2]


def scored_scenes(dataset: Dataset, data: DataConfig) -> dict[str, tuple[Scene, ...]]:
    """Val client -> the scenes that are scored: all but the reserved one."""
    clients = dataset.split("val").items()
    reserved = {client: reserved_scene(scenes, data) for client, scenes in clients}
    return {client: tuple(s for s in scenes if s != reserved[client]) for client, scenes in clients}


def scoring_notes(found: Scan, dataset: Dataset, data: DataConfig) -> tuple[str, ...]:
    """How the user's own data are scored: which val images are not, and at which size.

    Args:
        found: Result of the scan.
        dataset: The tree.
        data: Size and fit of the model's input.
    """
    notes = [MEAN_OF]
    val = dataset.split("val")
    num_val = sum(map(len, val.values()))
    if reserved := _reserved(val, data):
        notes.append(
            f"{len(reserved)} of {num_val} val images are not scored: the middle one of each val "
            f"client of three or more is reserved for the report: {bounded(reserved)}; "
            "data.show_val_scene=false scores all"
        )
    height, width = data.image_size
    sizes = [size for city in found.cities for size in city.sizes]
    largest = max(sizes, key=lambda size: size[0] * size[1])
    if data.fit == "crop":
        frame = data.frame_size
        of_frames = "" if frame is None else f" of encrypted frames of {frame[0]}x{frame[1]}"
        notes.append(
            f"data.fit=crop: training uses windows of {height}x{width} pixels{of_frames}; val "
            "label maps are scored whole, every pixel, by overlapping windows of that size that "
            "slide over each image, with averaged logits"
        )
    elif largest[0] > height or largest[1] > width:
        notes.append(
            f"images of up to {largest[0]}x{largest[1]} are trained on and segmented at "
            f"{height}x{width} (data.image_size) and scored at the size of their label maps; thin "
            "objects may be lost"
        )
    return tuple(notes)


def _reserved(val: Mapping[str, Sequence[Scene]], data: DataConfig) -> list[str]:
    found = {client: reserved_scene(scenes, data) for client, scenes in val.items()}
    return [f"{client}: {scene.stem}" for client, scene in found.items() if scene is not None]
