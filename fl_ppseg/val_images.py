"""Every val image of a run scored by itself, under the newest weights and those of the start.

Done on the owners' side after the training: the coordinator gets none of it. What has been scored
is kept in the run folder and not scored again, so that a run which is interrupted here goes on.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clients.vault.keyring import shared_subkey
from fl_ppseg.checkpoints import models_in
from fl_ppseg.config.loading import arms_of
from fl_ppseg.data_notes import scored_scenes
from fl_ppseg.dataset import Scene
from fl_ppseg.keys import SubKey
from fl_ppseg.preparation import Experiment
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.run_folder import Checkpoint
from fl_ppseg.scoring import counts_by_image, queries
from fl_ppseg.val_counts import (
    NO_IMAGE,
    ValCounts,
    digest_of,
    digest_of_images,
    load_counts,
    name_of,
    save_counts,
)


class _Task(NamedTuple):
    """Weights that are to answer for all val images."""

    name: str
    checkpoint: Checkpoint
    shared: SubKey | None


def count_val_images(experiment: Experiment, progress: StepProgress) -> ValCounts:
    """Counts of each val image for every trained arm and seed, and without an image.

    Images are encrypted as `fl_ppseg.scoring` says, with keys that no training saw.

    Args:
        experiment: A run whose arms are trained.
        progress: Shows the step.

    Raises:
        InputError: An image cannot be read, or the counts of before are damaged.
    """
    cities = scored_scenes(experiment.dataset, experiment.config.data)
    counts = _begun(experiment, cities)
    tasks = list(_tasks(experiment))
    for done, task in enumerate(tasks):
        digest = digest_of(task.checkpoint.arrays)
        if counts.weights.get(task.name) != digest:
            look = partial(_look, progress, done, len(tasks))
            look(0, 1)
            table = _table(task, cities, experiment.config.device)
            counts = counts.including(task.name, table, digest)
            save_counts(experiment.folder.path, counts)
    return counts


def _look(progress: StepProgress, before: int, total: int, done: int, of: int) -> None:
    progress.update("scoring each val image", before + (done == of), total)


def _begun(experiment: Experiment, cities: Mapping[str, tuple[Scene, ...]]) -> ValCounts:
    """What was scored before, of the same images, and the answer without an image."""
    images = digest_of_images((s.city, s.content) for own in cities.values() for s in own)
    found = load_counts(experiment.folder.path)
    if found is None or found.images != images:
        found = ValCounts(images, {city: len(scenes) for city, scenes in cities.items()})
    without = experiment.counts_without_image
    digest = digest_of({NO_IMAGE: without})
    if found.weights.get(NO_IMAGE) != digest:
        found = found.including(NO_IMAGE, without[None], digest)
        save_counts(experiment.folder.path, found)
    return found


def _tasks(experiment: Experiment) -> Iterator[_Task]:
    config, folder = experiment.config, experiment.folder
    for arm, protection in arms_of(config).items():
        is_shared = protection.key_mode == "shared"
        shared = shared_subkey(experiment.vault_dir, protection) if is_shared else None
        for seed in config.seeds:
            newest = folder.latest(arm, seed)
            if newest is None or newest.round == 0:
                continue
            yield _Task(name_of(arm, seed, "newest"), newest, shared)
            if (start := folder.start(arm, seed)) is not None:
                yield _Task(name_of(arm, seed, "start"), start, shared)


def _table(task: _Task, cities: Mapping[str, tuple[Scene, ...]], device: str) -> NDArray[np.int64]:
    """(M, N, C, C) counts by each model that the weights are."""
    return np.stack(
        [
            np.concatenate(list(counts_by_image(model, cities, new_query, device).values()))
            for model in models_in(task.checkpoint)
            for new_query in [queries(model, task.shared)]
        ]
    )
