"""The nodes of a simulation: their policies and state folders.

<vault>/.nodes/<run>/node_<nnnn>.yaml        policies of the owners
<vault>/.nodes/<run>/start/<digest>/         weights of round 0, for the trust regions
<vault>/.nodes/<run>/rounds/<digest>/        fresh views (fl_ppseg.experiment.fresh_views)
<vault>/.nodes/<run>/state/node_<nnnn>/      ledger, log and trained private embeddings of the apps
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clients.policy.fresh_views import ROUNDS
from clients.policy.ledger import make_ledger
from clients.policy.node_policy import (
    ArmPolicy,
    CohortPolicy,
    NodePolicy,
    load_policy,
    nodes_folder,
    policy_path,
    save_policy,
    state_path,
)
from clients.policy.start_weights import START, write_start
from clients.private_state import set_aside_after, trained_folder
from clients.vault.assignment import Prepared
from clients.vault.consent.terms import terms_of
from clients.vault.keys.cohort import ensure_cohort_key, public_cohort_key
from clients.vault.keys.keyring import Vault
from clients.vault.node_folders.policies import arm_policy
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.client_names import folder_name
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import CODEC, MEMORY, Config
from fl_ppseg.data.dataset import Scene
from fl_ppseg.experiment.fresh_views import stop_views
from fl_ppseg.experiment.initial_weights import Models
from fl_ppseg.federation.roles import Role
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_identity import Identity, new_name, read_identity
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.files import make_private_folder

PreparedShards = Mapping[tuple[str, int], Mapping[str, Prepared]]
"""By client and seed, then by arm."""
Starts = Mapping[str, dict[int, Path]]
"""Folders of the weights of round 0, by arm and seed."""


@dataclass(frozen=True)
class Node:
    """A node of the simulation: its name, role and images."""

    client: str
    role: Role
    train: tuple[Scene, ...]
    heldout: tuple[Scene, ...]


def policies_of(
    config: Config,
    nodes: Sequence[Node],
    prepared: PreparedShards,
    num_classes: int,
    patch_size: int,
    starts: Starts,
    vault_dir: Path,
    earlier: Mapping[str, ArmPolicy] = MappingProxyType({}),
) -> list[NodePolicy]:
    """One policy per node; the first training node also has all shards for centralised arms.

    Args:
        config: The experiment; every owner agrees to its terms.
        nodes: In the order of their partition ids.
        prepared: What the vaults made.
        num_classes: Of the class table.
        patch_size: Of the model, in pixels.
        starts: Of `write_start_weights`.
        vault_dir: The owners' side.
        earlier: Of `earlier_arms`, if the run goes on.
    """
    cohorts = _cohorts(config, nodes, vault_dir)
    training = sorted(node.client for node in nodes if node.role == "train")
    policies = []
    for node in nodes:
        arms = {}
        for name, arm in arms_of(config).items():
            found = {seed: prepared[node.client, seed][name] for seed in config.seeds}
            together = _centralised(arm, node, training, prepared, name, config.seeds)
            largest = _largest(arm, nodes)
            terms = terms_of(config, name, arm, num_classes, patch_size, node.role, largest)
            if (was := earlier.get(name)) is not None:
                # rounds of a longer training have moved weights further than those of a shorter one
                may_fall = was.change_falls and was.num_rounds <= terms.num_rounds
                terms = terms._replace(change_falls=terms.change_falls and may_fall)
            arms[name] = arm_policy(arm, found, terms, starts[name], together)
        policies.append(
            NodePolicy(
                client=node.client,
                role=node.role,
                device=config.device,
                cohort=cohorts.get(node.client),
                arms=arms,
            )
        )
    return policies


def write_start_weights(
    config: Config, models: Models, folder: RunFolder, vault_dir: Path
) -> Starts:
    """Write the weights that training starts from, once for all nodes.

    A resumed run keeps its own: the weights that its config names may have changed since.

    Args:
        config: The experiment.
        models: Of `initial_models`.
        folder: The run; new if it holds no config yet.
        vault_dir: The owners' side.
    """
    place = nodes_folder(vault_dir, folder.path)
    for closed in (place.parent, place, place / START):
        make_private_folder(closed)
    earlier = _earlier_starts(folder, place)
    starts: dict[str, dict[int, Path]] = {}
    for name in arms_of(config):
        starts[name] = {
            seed: earlier[name, seed]
            if (name, seed) in earlier and folder.latest(name, seed) is not None
            else write_start(place / START, _arrays(models[seed, name]))
            for seed in config.seeds
        }
    return starts


def write_node_folders(
    policies: Sequence[NodePolicy], folder: RunFolder, vault_dir: Path
) -> tuple[Path, Identity]:
    """Write the policies of the run, and make missing state folders.

    Args:
        policies: Of `policies_of`.
        folder: The run; new, without states, if it holds no config yet.
        vault_dir: The owners' side.

    Returns:
        The folder of the policies, and what the run's requests carry.
    """
    place = nodes_folder(vault_dir, folder.path)
    states = state_path(place, 0).parent
    if not folder.config.exists():
        for left in (states, place / ROUNDS):
            if left.exists():
                shutil.rmtree(left)
    for closed in (place.parent, place, states):
        make_private_folder(closed)
    if any(arm.rounds is not None for policy in policies for arm in policy.arms.values()):
        stop_views(place / ROUNDS, "nothing makes them now")
    earlier = read_identity(folder.path)
    identity = Identity(earlier.run if earlier else new_name(), _hash(policies))
    for partition_id, policy in enumerate(policies):
        bound = policy.model_copy(update={"run": str(identity)})
        save_policy(bound, policy_path(place, partition_id))
        _write_state_folder(folder, policy, state_path(place, partition_id))
    return place, identity


def _cohorts(config: Config, nodes: Sequence[Node], vault_dir: Path) -> dict[str, CohortPolicy]:
    """With whom each training node's updates are added up, by client; none without sums."""
    federation = config.federation
    if not federation.secure_aggregation:
        return {}
    vaults = {
        node.client: Vault(vault_dir / folder_name(node.client))
        for node in nodes
        if node.role == "train"
    }
    files = {}
    for client, vault in vaults.items():
        with vault.lock():
            files[client] = ensure_cohort_key(vault.folder)
    keys = {client: public_cohort_key(vault.folder) for client, vault in vaults.items()}
    return {
        client: CohortPolicy(
            key=file, keys=keys, least=federation.least_cohort, bound=federation.update_bound
        )
        for client, file in files.items()
    }


def earlier_arms(folder: RunFolder, vault_dir: Path) -> dict[str, ArmPolicy]:
    """What the nodes of a resumed run agreed to before, by arm that has begun."""
    path = policy_path(nodes_folder(vault_dir, folder.path), 0)
    if not (folder.config.exists() and path.exists()):
        return {}
    found = load_policy(path).arms
    return {n: arm for n, arm in found.items() if any(map(partial(folder.latest, n), arm.shards))}


def _earlier_starts(folder: RunFolder, place: Path) -> dict[tuple[str, int], Path]:
    """The weights of round 0 that the nodes of a resumed run have, by arm and seed."""
    path = policy_path(place, 0)
    if not (folder.config.exists() and path.exists()):
        return {}
    arms = load_policy(path).arms.items()
    return {(name, seed): each for name, arm in arms for seed, each in (arm.start or {}).items()}


def _arrays(model: SETR) -> Arrays:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def _largest(arm: ArmConfig, nodes: Iterable[Node]) -> int:
    """Most images that one client of an arm trains on."""
    sizes = [len(node.train) for node in nodes]
    return sum(sizes) if arm.training == "centralised" else max(sizes)


def _hash(policies: Iterable[NodePolicy]) -> str:
    digest = hashlib.sha256()
    for policy in policies:
        # As before there were cohorts, codecs, fresh views...: a run goes on as the same run.
        unused: dict[str, Any] = {"cohort": True} if policy.cohort is None else {}
        if policy.max_loss_ratio is None:
            unused["max_loss_ratio"] = True
        of_arms: dict[str, Any] = {"change_falls": True, "training": {*MEMORY}}
        if all(arm.rounds is None for arm in policy.arms.values()):
            of_arms["rounds"] = True
        if all(arm.training.travels_as_it_is for arm in policy.arms.values()):
            of_arms["training"] = {*CODEC, *MEMORY}
        unused["arms"] = {"__all__": of_arms}
        digest.update(policy.model_dump_json(exclude=unused).encode("utf-8") + b"\n")
    return digest.hexdigest()


def _write_state_folder(folder: RunFolder, policy: NodePolicy, state: Path) -> None:
    """A node's state folder with its ledger, and no further than the coordinator has come."""
    make_ledger(make_private_folder(state))
    for name, arm in policy.arms.items():
        for seed, start in (arm.private or {}).items():
            newest = folder.latest(name, seed)
            set_aside_after(trained_folder(state, start), newest.round if newest else 0)


def _centralised(
    arm: ArmConfig,
    node: Node,
    training: Sequence[str],
    prepared: PreparedShards,
    name: str,
    seeds: Sequence[int],
) -> dict[int, tuple[Path, ...]] | None:
    """Training shards in a centralised arm: all for the first training node, none for the rest."""
    if arm.training != "centralised":
        return None
    if node.client != training[0]:
        return {}
    return {
        seed: tuple(prepared[client, seed][name].shard for client in training) for seed in seeds
    }
