"""Confusion counts of every single val image of a run, under the newest and the start weights.

Computed on the owners' side after training: the coordinator receives none of it. Counts are kept in
the run folder, so that an interrupted run resumes here.
"""

import logging
from collections.abc import Mapping
from itertools import product
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.loading import arms_of
from fl_ppseg.data.dataset import Scene
from fl_ppseg.experiment.data_notes import scored_scenes
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.experiment.scoring import counts_by_image, queries
from fl_ppseg.experiment.val_counts import (
    NO_IMAGE,
    ValCounts,
    digest_of,
    digest_of_images,
    load_counts,
    name_of,
    save_counts,
)
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.checkpoints import models_in
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.system.errors import InputError

logger = logging.getLogger(__name__)

WHICH: Final[tuple[Literal["newest", "start"], ...]] = ("newest", "start")


class _Task(NamedTuple):
    """Weights to score all val images with, loaded when needed."""

    arm: str
    seed: int
    which: Literal["newest", "start"]


def count_val_images(experiment: Experiment, progress: StepProgress) -> ValCounts:
    """Counts of each val image for every trained arm and seed, and without an image.

    Images are encrypted as `fl_ppseg.experiment.scoring` says, with keys that no training saw.

    Args:
        experiment: A run whose arms are trained.
        progress: Shows the step.

    Raises:
        InputError: An image cannot be read, or the earlier counts are damaged.
    """
    clients = scored_scenes(experiment.dataset, experiment.config.data)
    counts = _begun(experiment, clients)
    tasks = _tasks(experiment)
    for done, task in enumerate(tasks):
        progress.update("scoring each val image", done, len(tasks))
        checkpoint = _checkpoint(experiment, task)
        if checkpoint is None:
            continue
        name, digest = name_of(*task), digest_of(checkpoint.arrays)
        if counts.weights.get(name) != digest:
            table = _table(experiment, task, checkpoint, clients)
            counts = counts.including(name, table, digest)
            save_counts(experiment.folder.path, counts)
    progress.update("scoring each val image", len(tasks), len(tasks))
    return counts


def _begun(experiment: Experiment, clients: Mapping[str, tuple[Scene, ...]]) -> ValCounts:
    """Earlier counts of the same images, and those of the answer without an image."""
    images = digest_of_images((s.city, s.content) for own in clients.values() for s in own)
    sizes = {client: len(scenes) for client, scenes in clients.items()}
    num_classes = experiment.classes.num_classes
    found = load_counts(experiment.folder.path)
    if found is None or not found.is_of(images, sizes, num_classes):
        found = ValCounts(images, sizes)
    without = experiment.counts_without_image
    digest = digest_of({NO_IMAGE: without})
    if found.weights.get(NO_IMAGE) != digest:
        found = found.including(NO_IMAGE, without[None], digest)
        save_counts(experiment.folder.path, found)
    return found


def _tasks(experiment: Experiment) -> list[_Task]:
    config = experiment.config
    return [
        _Task(arm, seed, which)
        for arm, seed in product(config.arms, config.seeds)
        for which in WHICH
    ]


def _checkpoint(experiment: Experiment, task: _Task) -> Checkpoint | None:
    """The weights of a task; None if they are missing, or if a start is damaged."""
    newest = experiment.folder.latest(task.arm, task.seed)
    if newest is None or newest.round == 0:
        return None
    if task.which == "newest":
        return newest
    try:
        return experiment.folder.start(task.arm, task.seed)
    except InputError as error:
        logger.warning("%s; the gain of arm %s has no interval over val images", error, task.arm)
        return None


def _table(
    experiment: Experiment,
    task: _Task,
    checkpoint: Checkpoint,
    clients: Mapping[str, tuple[Scene, ...]],
) -> NDArray[np.int64]:
    """(M, N, C, C) counts of each of the M models of the weights."""
    protection = arms_of(experiment.config)[task.arm]
    is_shared = protection.key_mode == "shared"
    shared = ensure_shared_subkey(experiment.vault_dir, protection) if is_shared else None
    device = experiment.config.device
    return np.stack(
        [
            np.concatenate(list(counts_by_image(model, clients, new_query, device).values()))
            for model in models_in(checkpoint)
            for new_query in [queries(model, shared)]
        ]
    )
