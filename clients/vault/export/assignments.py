"""What an owner exports to a node folder, and what it encrypts for that."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clients.policy.fresh_views import ROUNDS
from clients.vault.assignment import Assignment, FreshViews
from clients.vault.consent.cohort import Cohort
from clients.vault.keys.keyring import Vault
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import ClassTable, load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.data.partition.partitioner import make_partition
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError


@dataclass(frozen=True)
class Export:
    """What an owner exports, and to which folder."""

    client: str
    role: Role
    config: Config
    arms: Mapping[str, ArmConfig]
    root: Path
    """Tree of the images in Cityscapes layout."""
    node: Path
    """The node folder, by its absolute path."""
    readers: int | None = None
    """Id of a group that may read the node folder; None: only its owner may."""
    cohort: Cohort | None = None
    """With whom the node's updates may be added up; None: each leaves it on its own."""


def assignments(vault: Vault, export: Export) -> dict[int, Assignment]:
    """What to encrypt, by seed.

    Raises:
        InputError: For a broken tree, a city that it lacks, weights that cannot be loaded, or a
            cipher to which no embedding can be adapted.
    """
    from clients.vault.shards.embedding import require_linear  # loads PyTorch
    from clients.vault.shards.start_model import patch_size_of

    config = export.config
    table = load_class_table(config.data.classes)
    train, heldout = _split(export, table)
    patch_size = patch_size_of(config, table.num_classes)
    for arm in export.arms.values():
        if arm.embedding == "private" and arm.cipher is not None:  # refused before the work
            require_linear(arm.cipher, patch_size)
    fresh = FreshViews(config.training.local_epochs, export.node / ROUNDS)
    return {
        seed: Assignment(
            vault=vault.folder,
            client=export.client,
            train=train,
            heldout=heldout,
            data=config.data,
            block_size=patch_size,
            seed=seed,
            protections=export.arms,
            public=_public(export, table, seed),
            out=export.node,
            readers=export.readers,
            fresh=fresh if config.data.fresh_views else None,
        )
        for seed in config.seeds
    }


def _split(export: Export, table: ClassTable) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    """Images to train on and held-out ones; a val client holds out all of its images."""
    cities = open_dataset(export.root, table, (export.role,)).split(export.role)
    client = export.client
    if client not in cities:
        raise InputError(
            f"{export.root}: no folder of client {client!r} under {export.role}; expected one of "
            f"{', '.join(cities)}; check --client, --split and --data-root"
        )
    if export.role == "val":
        return (), cities[client]
    scenes = {(scene.city, scene.stem): scene for scene in cities[client]}
    train, heldout = make_partition({client: cities[client]}, 1).split(client)
    return tuple(scenes[ref] for ref in train), tuple(scenes[ref] for ref in heldout)


def _public(export: Export, table: ClassTable, seed: int) -> Arrays:
    """The public embedding of round 0 if an arm has a private one, else nothing."""
    if all(arm.embedding != "private" for arm in export.arms.values()):
        return {}
    from clients.vault.shards.start_model import embedding_of  # loads PyTorch

    return embedding_of(export.config, table.num_classes, seed)
