"""From a config and a tree of images to a node folder, for an owner on a machine of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clients.policy.policy import NodePolicy
from clients.vault.assignment import Assignment
from clients.vault.consent.floor import Floor, bound_by
from clients.vault.consent.terms import Terms, largest_elsewhere, terms_of
from clients.vault.handover.start import hand_over_start
from clients.vault.keys.keyring import Vault
from clients.vault.node_folders.handed_over import handed_over, note_shard
from clients.vault.node_folders.node_directory import NodeDirectory
from clients.vault.node_folders.node_folder import (
    POLICY,
    agreed,
    named_folders,
    policy_of,
    write_policy,
)
from clients.vault.shards.drafts import abandon_all
from clients.vault.shards.shards import prepare_locked
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.arm_models import embedding_reads
from fl_ppseg.data.classes import ClassTable, load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.data.manifest import read_manifest
from fl_ppseg.data.partition.partitioner import make_partition
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError


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
    readers: int | None = None
    """Id of a group that may read the node folder; none: its owner alone."""


def refuse_plain(arms: Mapping[str, ArmConfig]) -> None:
    """Refuse arms that would hand over images as they are.

    Raises:
        InputError: One does.
    """
    for name, arm in arms.items():
        if arm.key_mode == "plain":
            raise InputError(
                f"arm {name}: stores images as they are; leave it out of --arms, or add "
                "--allow-plain if whoever has the node may see them"
            )


def assignments(vault: Vault, handover: Handover) -> dict[int, Assignment]:
    """What is to be encrypted, by seed.

    Raises:
        InputError: For a broken tree, a city that it lacks, weights that cannot be had, or a cipher
            to which no embedding can be adapted.
    """
    from clients.vault.shards.embedding import require_linear  # loads PyTorch
    from clients.vault.shards.start_model import patch_size_of

    config = handover.config
    table = load_class_table(config.data.classes)
    train, heldout = _split(handover, table)
    patch_size = patch_size_of(config, table.num_classes)
    for arm in handover.arms.values():
        if arm.embedding == "private" and arm.cipher is not None:  # refused before the work
            require_linear(arm.cipher, patch_size)
    return {
        seed: Assignment(
            vault=vault.folder,
            city=handover.city,
            train=train,
            heldout=heldout,
            data=config.data,
            block_size=patch_size,
            seed=seed,
            protections=handover.arms,
            public=_public(handover, table, seed),
            out=handover.node,
            readers=handover.readers,
        )
        for seed in config.seeds
    }


def terms(handover: Handover, job: Assignment, floor: Floor) -> dict[str, Terms]:
    """What the config asks the owner to agree to, by arm.

    Args:
        handover: What is handed over.
        job: One of `assignments`.
        floor: The owner's.

    Raises:
        InputError: As `terms_of`.
    """
    config, role = handover.config, handover.role
    num_classes = load_class_table(config.data.classes).num_classes
    size, largest = job.block_size, largest_elsewhere(len(job.train))
    return {
        name: terms_of(config, name, arm, num_classes, size, role, largest, floor.max_change)
        for name, arm in handover.arms.items()
    }


def hand_over(
    vault: Vault,
    handover: Handover,
    jobs: Mapping[int, Assignment],
    agreement: Mapping[str, Terms],
    floor: Floor,
    num_workers: int,
    progress: Callable[[int, int, int], None],
) -> None:
    """Encrypt what is missing, write the policy, remove what it does not name any more.

    Args:
        vault: The owner's vault.
        handover: What is handed over.
        jobs: Of `assignments`.
        agreement: What the owner has agreed to, by arm.
        floor: The owner's.
        num_workers: Processes that encrypt.
        progress: Called with (seed, scenes done, scenes in all).

    Raises:
        InputError: As `prepare_shards`, or the node folder is of another city or role.
    """
    with (
        vault.lock(),
        NodeDirectory.prepare(handover.node, handover.city, handover.readers) as node,
    ):
        earlier = earlier_policy(handover)
        prepared = {
            seed: prepare_locked(vault, job, num_workers, partial(progress, seed))
            for seed, job in jobs.items()
        }
        for shard in {p.shard for found in prepared.values() for p in found.values()}:
            if (manifest := read_manifest(shard)) is not None:  # a vault that was restored
                note_shard(vault.folder, shard.name, manifest.record)
        starts = _starts(vault, handover, agreement, node)
        arms = {
            name: agreed(
                arm,
                {seed: found[name] for seed, found in prepared.items()},
                agreement[name],
                starts[name],
            )
            for name, arm in handover.arms.items()
        }
        before = earlier or NodePolicy(
            city=handover.city,
            role=handover.role,
            device=handover.config.device,
            arms={},
        )
        update = {"withdrawn": None, "arms": {**before.arms, **arms}}
        policy = bound_by(floor, before.model_copy(update=update))
        if policy != earlier:
            write_policy(node, policy)
        abandon_all(vault)
        node.remove(handed_over(vault.folder), kept=named_folders(policy, handover.node))
        node.grant(handover.readers)


def _starts(
    vault: Vault, handover: Handover, agreement: Mapping[str, Terms], node: NodeDirectory
) -> dict[str, dict[int, Path]]:
    """Folders of the start weights by arm and seed, for arms whose weights are bounded."""
    from clients.vault.shards.start_model import start_of  # loads PyTorch

    config = handover.config
    made: dict[tuple[int, str | None], Path] = {}
    found: dict[str, dict[int, Path]] = {name: {} for name in handover.arms}
    for name, arm in handover.arms.items():
        if agreement[name].max_change is None:
            continue
        for seed in config.seeds:
            kind = seed, embedding_reads(agreement[name].model, arm)
            if kind not in made:
                weights = start_of(config, name, arm, agreement[name].num_classes, seed)
                made[kind] = hand_over_start(vault.folder, node, weights, handover.readers)
            found[name][seed] = made[kind]
    return found


def earlier_policy(handover: Handover) -> NodePolicy | None:
    """The policy that lies in the node folder already: what its owner wrote into it stays.

    Raises:
        InputError: It is of another city or role, or damaged.
    """
    path = handover.node / POLICY
    if not path.exists():
        return None
    found = policy_of(handover.node, handover.city)
    if found.role != handover.role:
        raise InputError(
            f"{path}: is of {found.city} ({found.role}), not of {handover.city} ({handover.role}); "
            "a node folder is of one city, so choose another --out"
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
    from clients.vault.shards.start_model import embedding_of  # loads PyTorch

    return embedding_of(handover.config, table.num_classes, seed)
