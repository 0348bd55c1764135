"""Policies in node folders, which owners export to training nodes; such a folder holds no key
to an image.

<node>/owner.json              whose folder it is
<node>/policy.yaml             what the node may do, its paths relative to this folder
<node>/cohort.key              what the node signs and masks with in secure aggregation
<node>/shards/<digest>/        encrypted shards
<node>/private/<digest>/       private embeddings: key material, only for a node that is trusted
<node>/rounds/<digest>/        fresh views of two rounds, which `follow` makes and removes
<node>/start/<digest>/         weights of round 0, which the weights of requests are compared with

The folder belongs to its owner, who alone writes to it: the node's own files lie elsewhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clients.policy.cohort_key import COHORT_KEY
from clients.policy.fresh_views import ROUNDS, round_folder
from clients.policy.node_policy import ArmPolicy, NodePolicy, load_policy, save_policy
from clients.vault.assignment import Prepared
from clients.vault.consent.terms import Terms
from clients.vault.keys.keyring import Vault
from clients.vault.node_folders.directory import CONTENT, NodeDirectory, readers_of
from clients.vault.node_folders.exports import read_exports
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.data.manifest import is_digest
from fl_ppseg.system.errors import InputError

POLICY: Final = "policy.yaml"


def arm_policy(
    arm: ArmConfig,
    prepared: Mapping[int, Prepared],
    terms: Terms,
    start: dict[int, Path],
    training_shards: dict[int, tuple[Path, ...]] | None = None,
) -> ArmPolicy:
    """The policy of an arm: what its owner agrees to.

    Args:
        arm: Its settings.
        prepared: What the vault prepared, by seed.
        terms: What the run's config asks for.
        start: Folders of the weights of round 0, by seed; not used without a bound on changes.
        training_shards: As in `ArmPolicy`.
    """
    private = {seed: p.private for seed, p in prepared.items() if p.private is not None}
    return ArmPolicy(
        embedding=arm.embedding,
        shards={seed: (p.shard,) for seed, p in prepared.items()},
        training_shards=training_shards,
        rounds=next(iter(prepared.values())).rounds,
        private=private or None,
        private_rate=arm.private_rate,
        start=start if terms.max_change is not None else None,
        protection=arm,
        **terms._asdict(),
    )


def load_node_policy(node: Path, client: str) -> NodePolicy:
    """Read the policy of a node folder that was opened with `NodeDirectory`.

    Raises:
        InputError: It is missing, damaged, of another client, or names paths outside the folder.
    """
    policy = load_policy(node / POLICY)
    if policy.client != client:
        raise InputError(
            f"{node / POLICY}: belongs to {policy.client}, but its folder to {client}; run "
            "`encrypt` again"
        )
    if policy.cohort is not None and policy.cohort.key != node / COHORT_KEY:
        raise InputError(
            f"{node / POLICY}: names a cohort key that is not of this folder; it was changed, so "
            "run `encrypt` again into a new folder"
        )
    for path in named_folders(policy, node):
        if path.parent.as_posix() not in CONTENT or not is_digest(path.name):
            raise InputError(
                f"{node / POLICY}: names {str(path)!a}, which is not a shard, private embedding or "
                "start of this folder; it was changed, so run `encrypt` again into a new folder"
            )
    for name, arm in policy.arms.items():
        if arm.rounds not in (None, node / ROUNDS):
            raise InputError(
                f"{node / POLICY}: arm {name} names a folder of rounds that is not of this folder; "
                "it was changed, so run `encrypt` again into a new folder"
            )
    return policy


def round_folders(policy: NodePolicy) -> dict[Path, Path]:
    """The shards of all rounds that a policy allows, as paths relative to its folder.

    Returns:
        The folder of the shard that was made ahead of each.
    """
    return {
        round_folder(Path(ROUNDS), shard, round): shard
        for arm in policy.arms.values()
        if arm.rounds is not None
        for shards in arm.shards.values()
        for shard in shards
        for round in range(1, arm.num_rounds + 1)
    }


def named_folders(policy: NodePolicy, node: Path) -> set[Path]:
    """The shards, private embeddings and start weights that a policy names, as relative paths."""
    shards = {
        path for arm in policy.arms.values() for paths in arm.shards.values() for path in paths
    }
    private = {path for arm in policy.arms.values() for path in (arm.private or {}).values()}
    training = {
        path
        for arm in policy.arms.values()
        for paths in (arm.training_shards or {}).values()
        for path in paths
    }
    start = {path for arm in policy.arms.values() for path in (arm.start or {}).values()}
    found = shards | private | training | start
    return {path.relative_to(node) if path.is_relative_to(node) else path for path in found}


def write_policy(node: NodeDirectory, policy: NodePolicy) -> None:
    """Write the policy of an open node folder, readable by its readers' group."""
    save_policy(policy, node.folder.path / POLICY)
    node.grant(readers_of(node.folder.path))


def withdraw(node: NodeDirectory, vault: Vault) -> tuple[list[Path], list[Path]]:
    """Withdraw a client: make its policy refuse everything, then remove all that it exported.

    Returns:
        What was removed, and what is kept because the vault has not recorded it.

    Raises:
        InputError: The policy is damaged.
    """
    policy = load_node_policy(node.folder.path, node.client)
    reason = f"{node.client} has withdrawn: its owner no longer takes part in training"
    nothing: dict[str, object] = {"withdrawn": reason, "arms": {}, "cohort": None}
    write_policy(node, policy.model_copy(update=nothing))
    if node.folder.find(COHORT_KEY) is not None:
        node.folder.remove(COHORT_KEY)
    with vault.lock():
        removed = node.remove(read_exports(vault.folder))
    return removed, node.unnamed(())
