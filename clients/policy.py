"""The owner's policy: what its node may do, in a file that only the owner writes.

The coordinator may ask for a local update; what would weaken the policy is refused. Data paths, key
modes and the treatment of the embedding come from here, never from a message. Paths in it may be
relative: they begin at its own folder, which can then be copied to the node as a whole.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

import yaml
from pydantic import Field, model_validator

from fl_ppseg.config import ArmConfig, Section, TrainingConfig, read_yaml, validate
from fl_ppseg.errors import InputError
from fl_ppseg.files import write_atomically

if TYPE_CHECKING:
    from fl_ppseg.messages import Request

NODES_VARIABLE = "FL_PPSEG_NODES"
"""Environment variable of a simulation: the folder with a policy for each partition id."""


class RefusedError(Exception):
    """A request that the owner's policy does not allow; the text may travel."""


class ArmPolicy(Section):
    """What this owner agreed to for one arm."""

    embedding: Literal["uploaded", "frozen", "adapted", "private", "invariant"]
    """How the patch embedding is treated: frozen and private ones never leave this node."""
    shards: dict[int, tuple[Path, ...]]
    """This owner's encrypted shards by seed of the run."""
    training_shards: dict[int, tuple[Path, ...]] | None = None
    """Shards to train on where they are others (centralised arms: all owners'); none: `shards`."""
    private: dict[int, Path] | None = None
    """Folders of a private embedding's versions by seed; none for all other embeddings."""
    private_rate: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the learning rate of a private embedding; 0 keeps it as it is."""
    training: TrainingConfig | None = None
    """The local update that its owner agreed to; none: whatever is asked. Settings decide what an
    update tells: of one image and one step it is that image's gradient."""
    num_rounds: Annotated[int, Field(ge=1)] | None = None
    """Rounds over which the learning rate falls, as agreed; none: whatever is asked. Steps late in
    many rounds are so small that weights made to show images show them exactly. How often a round
    may be asked for is not bounded by this: rounds are asked for again when answers are lost."""
    protection: ArmConfig | None = None
    """The arm's settings as its owner read them, for its owner to read again."""

    @model_validator(mode="after")
    def _private_where_it_is_meant_to_be(self) -> Self:
        if self.embedding == "private" and (self.private or {}).keys() != self.shards.keys():
            raise ValueError("embedding private wants a private folder for each seed of its shards")
        if self.embedding != "private" and (self.private is not None or self.private_rate > 0):
            raise ValueError("private and private_rate belong to embedding private")
        return self


class LocalPrivacy(Section):
    """What an owner who trusts nobody with its weights demands of every update that leaves."""

    clipping_norm: Annotated[float, Field(gt=0)]
    """Largest norm of an update; longer ones are scaled down to it."""
    noise_multiplier: Annotated[float, Field(gt=0)]
    """Standard deviation of the noise on every weight, in units of twice clipping_norm."""
    max_epsilon: Annotated[float, Field(gt=0)]
    """Budget over all rounds, arms and seeds; an update that would exceed it is refused."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """delta at which epsilon is counted."""
    ledger: Path = Path("releases.txt")
    """Where the updates that left are counted; the node's app must be able to write it."""


class NodePolicy(Section):
    """One node: its city, its role and the arms that its owner agreed to."""

    city: str
    role: Literal["train", "val"]
    device: str = "cpu"
    """Where this node computes."""
    log: Path | None = None
    """The node's own log: what its error replies do not say."""
    withdrawn: str | None = None
    """Why this city takes no part any more: everything is refused; none: it does."""
    privacy: LocalPrivacy | None = None
    """Noise on every update; none: updates leave as they are."""
    arms: dict[str, ArmPolicy]

    def require_consent(self) -> None:
        """Find out whether the owner takes part at all.

        Raises:
            RefusedError: The owner has withdrawn.
        """
        if self.withdrawn is not None:
            raise RefusedError(f"refused: {self.withdrawn}")


class Permit(NamedTuple):
    """What of the owner's a request may use."""

    shards: tuple[Path, ...]
    """Encrypted shards to train on, or to score."""
    private: Path | None
    """Folder of the private embedding that takes the public one's place; none: the public one."""
    private_rate: float
    """Factor on the learning rate of what does not travel; 0: it is not trained."""


def save_policy(policy: NodePolicy, path: Path) -> None:
    """Write a policy, readable by its owner alone; paths in its own folder become relative."""
    folder = path.parent
    written = _with_paths(
        policy, lambda each: each.relative_to(folder) if each.is_relative_to(folder) else each
    )
    text = yaml.safe_dump(written.model_dump(mode="json"), sort_keys=False)
    write_atomically(path, text, mode=0o600)


def load_policy(path: Path) -> NodePolicy:
    """Read a policy; its relative paths are those from its own folder.

    Raises:
        InputError: If it is missing or of another form, or others may write it.
    """
    values = read_yaml(path)
    if (mode := stat.S_IMODE(path.stat().st_mode)) & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"{path}: others may write this policy (mode {mode:04o}); check what it says, then run "
            "chmod 600 on it"
        )
    return _with_paths(validate(NodePolicy, values, str(path)), lambda each: path.parent / each)


def find_policy(node_config: Mapping[str, object]) -> Path:
    """Where a node's policy lies: named by its own start, or by the simulation's folder.

    Args:
        node_config: The node's own configuration (`--node-config 'policy="/path/node.yaml"'`); in
            a simulation it holds a partition id.

    Raises:
        InputError: If neither is given.
    """
    if "policy" in node_config:
        return Path(str(node_config["policy"]))
    folder = os.environ.get(NODES_VARIABLE)
    if folder is None or "partition-id" not in node_config:
        raise InputError(
            "this node has no policy: start it with --node-config 'policy=\"/path/node.yaml\"', or "
            f"prepare a simulation (python -m fl_ppseg.simulate --prepare) and set {NODES_VARIABLE}"
        )
    return policy_path(Path(folder), int(str(node_config["partition-id"])))


def nodes_folder(vault_dir: Path, run_dir: Path) -> Path:
    """Where a simulation on this machine keeps its nodes' policies: on the owners' side."""
    digest = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:12]
    return vault_dir / ".nodes" / f"{run_dir.name}-{digest}"


def policy_path(folder: Path, partition_id: int) -> Path:
    """The policy file of a partition id in a simulation's folder."""
    return folder / f"node_{partition_id:04d}.yaml"


def permit(policy: NodePolicy, request: "Request") -> Permit:
    """What a request may use.

    Raises:
        RefusedError: If the owner has not agreed to what is asked.
    """
    policy.require_consent()
    arm = policy.arms.get(request.arm)
    if arm is None:
        raise RefusedError(f"refused: the owner has not agreed to arm {request.arm}")
    if request.embedding != arm.embedding:
        raise RefusedError(
            f"refused: the owner keeps the embedding {arm.embedding}, asked was {request.embedding}"
        )
    if arm.embedding == "invariant" and request.model.invariant is None:
        raise RefusedError("refused: the embedding asked for is not invariant")
    if request.task == "train" and policy.role != "train":
        raise RefusedError("refused: this node only evaluates")
    if request.task == "train" and arm.training not in (None, request.training):
        raise RefusedError("refused: the owner has agreed to other settings of the training")
    if request.task == "train" and arm.num_rounds not in (None, request.num_rounds):
        raise RefusedError("refused: the owner has agreed to another number of rounds")
    if request.task == "train" and not 1 <= request.round <= request.num_rounds:
        raise RefusedError(f"refused: there is no round {request.round} of {request.num_rounds}")
    shards = arm.shards
    if request.task == "train" and arm.training_shards is not None:
        shards = arm.training_shards
    if request.seed not in shards:
        raise RefusedError(f"refused: no shard to {request.task} on was prepared for this seed")
    private = arm.private[request.seed] if arm.private is not None else None
    return Permit(shards[request.seed], private, arm.private_rate)


def _with_paths(policy: NodePolicy, change: Callable[[Path], Path]) -> NodePolicy:
    """A policy with every path in it changed."""

    def changed(shards: Mapping[int, tuple[Path, ...]]) -> dict[int, tuple[Path, ...]]:
        return {seed: tuple(map(change, paths)) for seed, paths in shards.items()}

    def of_arm(arm: ArmPolicy) -> ArmPolicy:
        training, private = arm.training_shards, arm.private
        paths = {
            "shards": changed(arm.shards),
            "training_shards": None if training is None else changed(training),
            "private": private and {seed: change(path) for seed, path in private.items()},
        }
        return arm.model_copy(update=paths)

    arms = {name: of_arm(arm) for name, arm in policy.arms.items()}
    privacy = policy.privacy
    if privacy is not None:
        privacy = privacy.model_copy(update={"ledger": change(privacy.ledger)})
    log = policy.log and change(policy.log)
    return policy.model_copy(update={"arms": arms, "log": log, "privacy": privacy})
