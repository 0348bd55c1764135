"""What a training node gets from an owner on another machine: a folder without any key.

<node>/policy.yaml             what the node may do, its paths relative to this folder
<node>/shards/<digest>/        encrypted shards
<node>/private/<digest>/       private embeddings: key material, for a node that is trusted
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clients.policy import ArmPolicy, NodePolicy, load_policy, save_policy
from clients.vault.assignment import Prepared
from clients.vault.terms import Terms
from fl_ppseg.config import ArmConfig
from fl_ppseg.errors import InputError

POLICY: Final = "policy.yaml"
CONTENT: Final = ("shards", "private")


def agreed(
    arm: ArmConfig,
    prepared: Mapping[int, Prepared],
    terms: Terms,
    training_shards: dict[int, tuple[Path, ...]] | None = None,
) -> ArmPolicy:
    """What an owner agrees to for an arm.

    Args:
        arm: Its settings.
        prepared: What the vault made, by seed.
        terms: What the run's config asks for.
        training_shards: As in `ArmPolicy`.
    """
    private = {seed: p.private for seed, p in prepared.items() if p.private is not None}
    return ArmPolicy(
        embedding=arm.embedding,
        shards={seed: (p.shard,) for seed, p in prepared.items()},
        training_shards=training_shards,
        private=private or None,
        private_rate=arm.private_rate,
        protection=arm,
        **terms._asdict(),
    )


def policy_of(node: Path, city: str) -> NodePolicy:
    """The policy of a city's node folder.

    Raises:
        InputError: There is none, or it is damaged or of another city.
    """
    policy = load_policy(node / POLICY)
    if policy.city != city:
        raise InputError(f"{node}: is the node folder of {policy.city}, not of {city}")
    return policy


def named_folders(policy: NodePolicy) -> set[Path]:
    """The shards and private embeddings that a policy names."""
    shards = {
        path for arm in policy.arms.values() for paths in arm.shards.values() for path in paths
    }
    private = {path for arm in policy.arms.values() for path in (arm.private or {}).values()}
    return shards | private


def unnamed_folders(node: Path, policy: NodePolicy) -> list[Path]:
    """What lies in a node folder where shards and private embeddings do, and is none of them."""
    found = (path for kind in CONTENT for path in (node / kind).glob("*"))
    return sorted(set(found) - named_folders(policy))


def withdraw(node: Path, city: str) -> list[Path]:
    """Take a city out: its policy refuses everything first, then all that it handed over goes.

    Returns:
        What was removed.

    Raises:
        InputError: It is no node folder of the city.
    """
    policy = policy_of(node, city)
    reason = f"{city} has withdrawn: its owner takes part in no training any more"
    save_policy(policy.model_copy(update={"withdrawn": reason, "arms": {}}), node / POLICY)
    removed = [path for kind in CONTENT for path in sorted((node / kind).glob("*"))]
    for folder in removed:
        shutil.rmtree(folder)
    return removed
