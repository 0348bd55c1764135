"""Preparation of a run: data, partition, vaults, policies, initial weights.

Used by commands only: it wires the owners' side and the coordinator's, which never meet elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.vault.simulations.inventory import lock_for_preparation
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.loading import dump_config
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import ClassTable, load_class_table
from fl_ppseg.data.dataset import Dataset, open_dataset
from fl_ppseg.data.partition.partitioner import make_partition
from fl_ppseg.data.partition.record import Partition
from fl_ppseg.data.tree_layout import IMAGES, LABELS
from fl_ppseg.data.views import scaled_labels
from fl_ppseg.experiment.assignments import assignments, encrypt
from fl_ppseg.experiment.data_notes import DataNotes, examine, scored_scenes
from fl_ppseg.experiment.initial_weights import initial_models, save_initial
from fl_ppseg.experiment.resuming import check_resumed, record_resumption
from fl_ppseg.experiment.simulated_nodes import (
    Node,
    earlier_arms,
    policies_of,
    write_node_folders,
    write_start_weights,
)
from fl_ppseg.experiment.views_plan import ViewsPlan, views_plan
from fl_ppseg.federation.cohort_keys import save_cohort_keys
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_identity import save_identity
from fl_ppseg.learning.evaluation import Scores, score
from fl_ppseg.learning.no_image import (
    counts_without_image,
    label_maps_of,
    load_answer,
    majority,
    save_answer,
)
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.scenes.cities import TRAIN_CITIES, VAL_CITIES
from fl_ppseg.scenes.tree import GENERATOR, synthesize
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import user_folder
from fl_ppseg.system.places import check_run


@dataclass(frozen=True)
class Experiment:
    """A prepared run: every image encrypted, every policy written, weights of round 0 in place."""

    config: Config
    folder: RunFolder
    dataset: Dataset
    partition: Partition
    classes: ClassTable
    nodes: Path
    """Folder of the node policies, for the owners' side."""
    num_nodes: int
    vault_dir: Path
    """Folder of the owners' vaults, where the shared key lies too."""
    about: DataNotes
    """Notes on the images and on how they are scored."""
    counts_without_image: NDArray[np.int64]
    """(N, C, C) counts of each scored val image for the answer without an image."""
    views: ViewsPlan | None = None
    """What is encrypted while rounds train; None: every view is made."""

    @property
    def no_image(self) -> Scores:
        """Scores of the answer without an image."""
        return score(self.counts_without_image.sum(axis=0))


def prepare(
    config: Config,
    folder: RunFolder,
    vault_dir: Path,
    num_workers: int,
    progress: StepProgress,
    tell: Callable[[str], None] = lambda text: None,
) -> Experiment:
    """Prepare a new run, or resume the preparation of an interrupted one.

    Args:
        config: The experiment.
        folder: Its run folder; an existing folder of the run is resumed.
        vault_dir: The owners' side: keys and encrypted shards.
        num_workers: Processes that draw and encrypt.
        progress: Shows the counted steps.
        tell: Called with the notes on images and label maps, before anything is encrypted.

    Raises:
        InputError: Data, settings or weights do not fit, or the vault lies inside the run folder or
            is open to other users.
    """
    check_run(vault_dir, folder.path)
    if folder.config.exists():
        check_resumed(config, folder)
    classes = load_class_table(config.data.classes)
    models = initial_models(config, classes.num_classes)
    root = data_root(config.data, num_workers, progress)
    dataset = open_dataset(root, classes, required=("train", "val"))
    _check_places(dataset)
    dataset, about = examine(dataset, config.data, num_workers, progress, tell)
    partition = _partition(config, folder, dataset)
    nodes = _nodes(dataset, partition, config.data)
    with lock_for_preparation(vault_dir, folder.path):
        jobs = assignments(config, nodes, vault_dir, models, folder)
        prepared = encrypt(jobs, num_workers, progress)
        patch_size = next(iter(jobs.values())).block_size
        starts = write_start_weights(config, models, folder, vault_dir)
        policies = policies_of(
            *(config, nodes, prepared, classes.num_classes, patch_size, starts, vault_dir),
            earlier_arms(folder, vault_dir),
        )
        place, identity = write_node_folders(policies, folder, vault_dir)
        if not folder.config.exists():
            folder.create(dump_config(config), partition.to_json())
        else:
            record_resumption(config, folder)
        save_identity(folder.path, identity)
        for cohort in [each.cohort for each in policies if each.cohort is not None][:1]:
            save_cohort_keys(cohort.keys, folder.path)  # the same for all
        save_initial(config, folder, classes, models, vault_dir)
    no_image = _without_image(config, folder, nodes, classes, num_workers, progress)
    plan = views_plan(config, folder.path, jobs, prepared)
    return Experiment(
        *(config, folder, dataset, partition, classes, place, len(nodes), vault_dir, about),
        no_image,
        plan,
    )


def data_root(data: DataConfig, num_workers: int, progress: StepProgress) -> Path:
    """The images' folder: the user's, or procedural scenes made once and cached.

    Raises:
        InputError: Procedural scenes have other classes, or are smaller, than the config says.
    """
    if data.root is not None:
        return data.root
    (height, width), size = data.scene_size, data.view_size
    if data.classes != "cityscapes" or size[0] > height or size[1] > width:
        raise InputError(
            f"procedural scenes have the classes of cityscapes and {height}x{width} pixels, this "
            f"config has {data.classes} and {size[0]}x{size[1]}; give --data-root"
        )
    number = f"{data.num_train}+{data.num_val}_{height}x{width}"
    val = dict(islice(VAL_CITIES.items(), data.num_val_cities))
    some = "" if val == VAL_CITIES else f"_{len(val)}val"
    name = f"v{GENERATOR}_{number}_seed{data.scene_seed}{some}"
    root = user_folder("scenes", "XDG_CACHE_HOME", ".cache") / name
    synthesize(
        root,
        num_train=data.num_train,
        num_val=data.num_val,
        size=data.scene_size,
        seed=data.scene_seed,
        cities=(TRAIN_CITIES, val),
        workers=num_workers,
        progress=lambda done, total: progress.update("drawing street scenes", done, total),
    )
    return root


def _partition(config: Config, folder: RunFolder, dataset: Dataset) -> Partition:
    if folder.partition.exists():
        return Partition.from_json(folder.partition.read_text("utf-8"), str(folder.partition))
    settings = config.partition
    seed = config.seeds[0]
    return make_partition(
        dataset.split("train"), config.clients, settings.kind, settings.alpha, seed
    )


def _nodes(dataset: Dataset, partition: Partition, data: DataConfig) -> list[Node]:
    """Training nodes, most images first so that the longest work starts first; then val clients."""
    scenes = {(s.city, s.stem): s for split in dataset.split("train").values() for s in split}
    nodes = []
    for client in partition.clients:
        train, heldout = partition.split(client)
        try:
            found = [tuple(scenes[ref] for ref in part) for part in (train, heldout)]
        except KeyError as missing:
            raise InputError(
                f"the partition names {missing}, which {dataset.root} lacks; give the same "
                "--data-root as at the start"
            ) from None
        nodes.append(Node(client, "train", *found))
    nodes.sort(key=lambda node: (-len(node.train), node.client))
    val = [
        Node(client, "val", (), scenes) for client, scenes in scored_scenes(dataset, data).items()
    ]
    taken = {node.client for node in nodes} & {node.client for node in val}
    if taken:
        raise InputError(
            f"{dataset.root}: {', '.join(sorted(taken))} is the name of a training node and of a "
            "val client; rename the val client in both of its folders"
        )
    return nodes + val


def _check_places(dataset: Dataset) -> None:
    """Refuse a city under both train and val: val clients must be places that never train."""
    both = sorted(dataset.split("train").keys() & dataset.split("val").keys())
    if both:
        root, city = dataset.root, both[0]
        parts = " and ".join(str(root / part / "val" / city) for part in (IMAGES, LABELS))
        raise InputError(
            f"{root}: {', '.join(both)} is under train and under val; expected val clients at "
            f"other places than training; if they are, rename {parts} to e.g. {city}-val"
        )


def _without_image(
    config: Config,
    folder: RunFolder,
    nodes: Sequence[Node],
    classes: ClassTable,
    num_workers: int,
    progress: StepProgress,
) -> NDArray[np.int64]:
    """Write the answer without an image into the run folder; its counts on each val image."""
    size = config.data.image_size
    answer = load_answer(folder.path, classes.num_classes)
    if answer is None:
        look = partial(progress.update, "counting training label maps")
        train = [scene for node in nodes for scene in node.train]
        maps = label_maps_of(train, num_workers, look)
        answer = majority((scaled_labels(each, size) for each in maps), classes.num_classes)
        save_answer(folder.path, answer)
    val = [scene for node in nodes if node.role == "val" for scene in node.heldout]
    maps = label_maps_of(val, num_workers)
    return counts_without_image(answer, maps, classes.num_classes)
