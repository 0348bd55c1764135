"""Everything before the first round: data, partition, vaults, policies, initial weights.

Used by commands only: it wires the owners' side and the coordinator's, which never meet elsewhere.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from clients.policy import ArmPolicy, NodePolicy, nodes_folder, policy_path, save_policy
from clients.vault import Assignment, prepare_shards
from fl_ppseg.classes import ClassTable, load_class_table
from fl_ppseg.config import ArmConfig, Config, DataConfig, ModelConfig, arms_of, dump_config
from fl_ppseg.dataset import Dataset, Scene, open_dataset
from fl_ppseg.errors import InputError, RunError
from fl_ppseg.files import user_folder
from fl_ppseg.messages import Role
from fl_ppseg.partition import Partition, make_partition
from fl_ppseg.progress import StepProgress
from fl_ppseg.run_folder import Arrays, Checkpoint, RunFolder
from fl_ppseg.setr.model import SETR, build_setr
from fl_ppseg.setr.weights import load_weights
from fl_ppseg.synthesize import synthesize

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "setr_procedural.safetensors"
"""Made by `python -m fl_ppseg.pretrain` from plain, public, procedural scenes."""


NODES_LOG = "nodes.log"
"""File beside the policies where the nodes of a simulation write what went wrong."""


@dataclass(frozen=True)
class Node:
    """A node of the simulation: who it is and which images it holds."""

    city: str
    role: Role
    train: tuple[Scene, ...]
    heldout: tuple[Scene, ...]


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


def prepare(
    config: Config, folder: RunFolder, vault_dir: Path, num_workers: int, progress: StepProgress
) -> Experiment:
    """Prepare a new run, or what an interrupted one needs to go on.

    Args:
        config: The experiment.
        folder: Its run folder; one that holds the run already is gone on with.
        vault_dir: The owners' side: keys and encrypted shards.
        num_workers: Processes that draw and encrypt.
        progress: Shows the counted steps.

    Raises:
        InputError: For data, settings or weights that do not fit.
    """
    classes = load_class_table(config.data.classes)
    models = {seed: initial_model(config, classes.num_classes, seed) for seed in config.seeds}
    root = data_root(config.data, num_workers, progress)
    dataset = open_dataset(root, classes, required=("train", "val"))
    partition = _partition(config, folder, dataset)
    nodes = _nodes(dataset, partition)
    block_size = models[config.seeds[0]].patch_size
    jobs = _assignments(config, nodes, vault_dir, block_size)
    shards = _encrypt(jobs, num_workers, progress)
    policies = _write_policies(config, nodes, shards, vault_dir, folder)
    if not folder.config.exists():
        folder.create(dump_config(config), partition.to_json())
    for seed, model in models.items():
        _save_initial(config, folder, classes, model, seed)
    return Experiment(config, folder, dataset, partition, classes, policies, len(nodes))


def data_root(data: DataConfig, num_workers: int, progress: StepProgress) -> Path:
    """The images' folder: the user's, or procedural scenes made once and cached."""
    if data.root is not None:
        return data.root
    height, width = data.scene_size
    name = f"{data.num_train}+{data.num_val}_{height}x{width}_seed{data.scene_seed}"
    root = user_folder("scenes", "XDG_CACHE_HOME", ".cache") / name
    synthesize(
        root,
        num_train=data.num_train,
        num_val=data.num_val,
        size=data.scene_size,
        seed=data.scene_seed,
        workers=num_workers,
        progress=lambda done, total: progress.update("drawing street scenes", done, total),
    )
    return root


def initial_model(config: Config, num_classes: int, seed: int) -> SETR:
    """The model of round 0, with the weights that the config names.

    Raises:
        InputError: If sizes do not fit, or weights cannot be had.
    """
    model = build_setr(config.model, num_classes, config.data.image_size, seed=seed)
    if config.model.weights is not None:
        shipped = config.model.weights == "shipped"
        load_weights(model, SHIPPED_WEIGHTS if shipped else Path(config.model.weights))
    return model


def _partition(config: Config, folder: RunFolder, dataset: Dataset) -> Partition:
    if folder.partition.exists():
        return Partition.from_json(folder.partition.read_text("utf-8"), str(folder.partition))
    settings = config.partition
    seed = config.seeds[0]
    return make_partition(
        dataset.split("train"), config.clients, settings.kind, settings.alpha, seed
    )


def _nodes(dataset: Dataset, partition: Partition) -> list[Node]:
    """Training nodes, most images first so that the longest work starts first; then val cities."""
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
    nodes.sort(key=lambda node: (-len(node.train), node.city))
    val = [Node(city, "val", (), images) for city, images in dataset.split("val").items()]
    taken = {node.city for node in nodes} & {node.city for node in val}
    if taken:
        raise InputError(
            f"{dataset.root}: {', '.join(sorted(taken))} stands under train and val; "
            "val cities must be others"
        )
    return nodes + val


def _assignments(
    config: Config, nodes: Sequence[Node], vault_dir: Path, block_size: int
) -> dict[tuple[str, int], Assignment]:
    return {
        (node.city, seed): Assignment(
            vault=vault_dir / node.city,
            city=node.city,
            train=node.train,
            heldout=node.heldout,
            data=config.data,
            block_size=block_size,
            seed=seed,
            protections=arms_of(config),
        )
        for node in nodes
        for seed in config.seeds
    }


def _encrypt(
    jobs: Mapping[tuple[str, int], Assignment], num_workers: int, progress: StepProgress
) -> dict[tuple[str, int], dict[str, Path]]:
    """Run the owners' vaults, several at a time; each is a process of its own."""
    total = sum(len(job.train) + len(job.heldout) for job in jobs.values())
    done, shards = 0, {}
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(prepare_shards, job): key for key, job in jobs.items()}
        try:
            for future in as_completed(futures):
                key = futures[future]
                shards[key] = future.result()
                done += len(jobs[key].train) + len(jobs[key].heldout)
                progress.update("encrypting in the vaults", done, total)
        except BrokenProcessPool:
            raise RunError("a vault's process died; check the memory, or num_workers=1") from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return shards


def _write_policies(
    config: Config,
    nodes: Sequence[Node],
    shards: Mapping[tuple[str, int], Mapping[str, Path]],
    vault_dir: Path,
    folder: RunFolder,
) -> Path:
    """One policy a node; the first training node also holds all shards for centralised arms."""
    place = nodes_folder(vault_dir, folder.path)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    training = sorted(node.city for node in nodes if node.role == "train")
    for partition_id, node in enumerate(nodes):
        arms = {}
        for name, arm in arms_of(config).items():
            cities = _holds(arm, node, training)
            by_seed = {
                seed: tuple(shards[city, seed][name] for city in cities) for seed in config.seeds
            }
            if cities:
                arms[name] = ArmPolicy(
                    key_mode=arm.key_mode, embedding=arm.embedding, shards=by_seed
                )
        policy = NodePolicy(
            city=node.city,
            role=node.role,
            device=config.device,
            log=place / NODES_LOG,
            arms=arms,
        )
        save_policy(policy, policy_path(place, partition_id))
    return place


def _holds(arm: ArmConfig, node: Node, training: list[str]) -> list[str]:
    """Cities whose shards a node holds in an arm."""
    if arm.training != "centralised" or node.role == "val":
        return [node.city]
    return training if node.city == training[0] else []


def _save_initial(
    config: Config, folder: RunFolder, classes: ClassTable, model: SETR, seed: int
) -> None:
    weights: Arrays = {name: np.array(value.numpy()) for name, value in model.state_dict().items()}
    for name, arm in arms_of(config).items():
        if folder.latest(name, seed) is None:
            description = {
                "arm": name,
                "seed": seed,
                "model": _resolved(config.model, model).model_dump(mode="json"),
                "classes": list(classes.names),
                "image_size": list(config.data.image_size),
                "fit": config.data.fit,
                "protection": arm.model_dump(mode="json"),
            }
            folder.save(Checkpoint(0, weights, {}, description), keep=1)


def _resolved(config: ModelConfig, model: SETR) -> ModelConfig:
    """The model settings with the patch size that the backbone really has."""
    return config.model_copy(update={"patch_size": model.patch_size})
