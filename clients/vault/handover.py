"""From a config and a tree of images to a node folder, for an owner on a machine of its own."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from clients.policy import NodePolicy, load_policy, save_policy
from clients.vault.assignment import Assignment
from clients.vault.drafts import abandon, pictures
from clients.vault.keyring import Vault
from clients.vault.node_folder import LOG, POLICY, agreed, unnamed_folders
from clients.vault.sealing import sealed_view
from clients.vault.shards import outlook, prepare_locked
from clients.vault.wording import size_text
from fl_ppseg.adaptation import linear_form
from fl_ppseg.classes import ClassTable, load_class_table
from fl_ppseg.config import ArmConfig, Config
from fl_ppseg.dataset import Scene, open_dataset
from fl_ppseg.errors import InputError, RunError
from fl_ppseg.files import private_folder
from fl_ppseg.keys import SubKey
from fl_ppseg.messages import Arrays, Role
from fl_ppseg.partition import make_partition
from fl_ppseg.public_weights import initial_model, public_embedding
from fl_ppseg.setr.model import build_architecture
from fl_ppseg.shard_draft import drafted_in


@dataclass(frozen=True)
class Handover:
    """What an owner hands over, and to which folder."""

    city: str
    role: Role
    config: Config
    arms: Mapping[str, ArmConfig]
    root: Path
    """Tree of the images in Cityscapes layout."""
    node: Path
    """The node folder, by its absolute path."""


class Estimate(NamedTuple):
    """What a hand-over will cost."""

    num_scenes: int
    """Images to encrypt, counted once a seed."""
    num_bytes: int
    """Space that it takes on disk."""
    seconds: float


def refuse(name: str, arm: ArmConfig, allow_plain: bool) -> None:
    """Find out whether an owner can hand an arm over to a node.

    Raises:
        InputError: It needs what no owner gives away.
    """
    reason = None
    if arm.key_mode == "shared":
        reason = "its owners share one key, which each of them would have to show to the others"
    elif arm.training == "centralised":
        reason = "it trains on the images of all owners in one place"
    if reason is not None:
        raise InputError(
            f"arm {name}: {reason}; it is for comparison in a simulation only, so leave it out of "
            "--arms"
        )
    if arm.key_mode == "plain" and not allow_plain:
        raise InputError(
            f"arm {name}: stores images as they are; leave it out of --arms, or add --allow-plain "
            "if whoever has the node may see them"
        )


def assignments(vault: Vault, handover: Handover) -> dict[int, Assignment]:
    """What is to be encrypted, by seed.

    Raises:
        InputError: For a broken tree, a city that it lacks, weights that cannot be had, or a cipher
            to which no embedding can be adapted.
    """
    config = handover.config
    table = load_class_table(config.data.classes)
    train, heldout = _split(handover, table)
    model = build_architecture(config.model, table.num_classes, config.data.image_size)
    for arm in handover.arms.values():
        if arm.embedding == "private" and arm.cipher is not None:  # refused before the work
            linear_form(arm.cipher, SubKey.generate(), model.patch_size)
    return {
        seed: Assignment(
            vault=vault.folder,
            city=handover.city,
            train=train,
            heldout=heldout,
            data=config.data,
            block_size=model.patch_size,
            seed=seed,
            protections=handover.arms,
            public=_public(handover, table, seed),
            rounds=None,
            out=handover.node,
        )
        for seed in config.seeds
    }


def estimate(vault: Vault, jobs: Sequence[Assignment], num_workers: int) -> Estimate:
    """Disk and time of what is left to do; the time is that of a first image under throw-away keys.

    Raises:
        InputError: For the first image, or a label map that cannot be read.
    """
    left = [(job, outlook(vault, job)) for job in jobs]
    left = [(job, found) for job, found in left if found.num_scenes]
    seconds = 0.0
    if left:
        job, first = left[0]
        seconds = _measured(job, first.protections)
    num_scenes = sum(found.num_scenes for _, found in left)
    num_bytes = sum(found.num_bytes for _, found in left)
    return Estimate(num_scenes, num_bytes, seconds * num_scenes / max(1, num_workers))


def check_space(node: Path, num_bytes: int) -> int:
    """Free bytes on the disk of a node folder that may not be there yet.

    Raises:
        RunError: They are too few.
    """
    there = next(folder for folder in (node, *node.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise RunError(
            f"no space left on the disk of {node}: {size_text(num_bytes)} are wanted and "
            f"{size_text(free)} free; free some, or choose another --out"
        )
    return free


def hand_over(
    vault: Vault,
    handover: Handover,
    jobs: Mapping[int, Assignment],
    num_workers: int,
    progress: Callable[[int, int, int], None],
) -> None:
    """Encrypt what is missing, write the policy, remove what it does not name any more.

    Args:
        vault: The owner's vault.
        handover: What is handed over.
        jobs: Of `assignments`.
        num_workers: Processes that encrypt.
        progress: Called with (seed, scenes done, scenes in all).

    Raises:
        InputError: As `prepare_shards`, or the node folder is of another city or role.
    """
    node = private_folder(handover.node)
    with vault.lock():
        earlier = earlier_policy(handover)
        prepared = {
            seed: prepare_locked(vault, job, num_workers, partial(progress, seed))
            for seed, job in jobs.items()
        }
        arms = {
            name: agreed(arm, {seed: found[name] for seed, found in prepared.items()})
            for name, arm in handover.arms.items()
        }
        before = earlier or NodePolicy(
            city=handover.city,
            role=handover.role,
            device=handover.config.device,
            log=node / LOG,
            arms={},
        )
        policy = before.model_copy(update={"withdrawn": None, "arms": {**before.arms, **arms}})
        if policy != earlier:
            save_policy(policy, node / POLICY)
        for shard in drafted_in(node / "shards"):
            abandon(vault, shard)
        for folder in unnamed_folders(node, policy):
            shutil.rmtree(folder)
        for folder in (node, vault.folder, vault.folder / "manifests"):
            for left in folder.glob(".*.tmp"):  # of processes that were killed
                left.unlink()


def earlier_policy(handover: Handover) -> NodePolicy | None:
    """The policy that lies in the node folder already: what its owner wrote into it stays.

    Raises:
        InputError: It is of another city or role, or damaged.
    """
    path = handover.node / POLICY
    if not path.exists():
        return None
    found, wanted = load_policy(path), handover
    if (found.city, found.role) != (wanted.city, wanted.role):
        raise InputError(
            f"{path}: is of {found.city} ({found.role}), not of {wanted.city} ({wanted.role}); a "
            "node folder is of one city, so choose another --out"
        )
    return found


def _split(handover: Handover, table: ClassTable) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    """Images to train on and held-out ones; a val city holds out all of its images."""
    cities = open_dataset(handover.root, table, (handover.role,)).split(handover.role)
    city = handover.city
    if city not in cities:
        raise InputError(
            f"{handover.root}: no city {city!r} under {handover.role}; there are "
            f"{', '.join(cities)}; check --city, --split and --data-root"
        )
    if handover.role == "val":
        return (), cities[city]
    scenes = {(scene.city, scene.stem): scene for scene in cities[city]}
    train, heldout = make_partition({city: cities[city]}, 1).split(city)
    return tuple(scenes[ref] for ref in train), tuple(scenes[ref] for ref in heldout)


def _public(handover: Handover, table: ClassTable, seed: int) -> Arrays:
    """The public embedding of round 0, where an arm has a private one."""
    if all(arm.embedding != "private" for arm in handover.arms.values()):
        return {}
    return public_embedding(initial_model(handover.config, table.num_classes, seed))


def _measured(job: Assignment, protections: Sequence[ArmConfig]) -> float:
    """Seconds for the first image under throw-away keys; nothing is stored."""
    start = time.perf_counter()
    for view, (image, _) in enumerate(pictures(job)[0].views()):
        for protection in protections:
            sealed_view(image, protection, job.block_size, lambda _: SubKey.generate(), view)
    return time.perf_counter() - start
