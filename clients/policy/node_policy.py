"""The owner's policy: what its node may do, in a file that only the owner writes.

The coordinator may ask for a local update; a request that would weaken the policy is refused. Data
paths, key modes and the treatment of the embedding come from here, never from a message. Relative
paths in it start at its own folder, which can then be copied to the node as a whole.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from clients.policy.owned_file import read_owned
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.documents import parse_yaml
from fl_ppseg.config.flwr_run import newest_run, vaults_of_runs
from fl_ppseg.config.loading import validate
from fl_ppseg.config.names import ClientName
from fl_ppseg.config.section import Section
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.secure_sum.roster import MAX_CLIENTS, Key
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

NODES_VARIABLE = "FL_PPSEG_NODES"
"""Environment variable of a simulation: the folder with a policy for each partition id."""
NODES: Final = ".nodes"
"""In the folder of vaults: belongs to no client, holds what nodes of simulations get."""
MAX_BYTES: Final = 2**20
"""Ten times a policy of a hundred arms and seeds."""
MAX_ROUNDS: Final = 10**6
Count = Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class RefusedError(Exception):
    """A request that the owner's policy does not allow; the text may be sent in a reply."""


def architecture(model: ModelConfig) -> ModelConfig:
    """A model section without the source of its weights, which come with each request."""
    return model.model_copy(update={"weights": None, "pretrained": False})


class ArmPolicy(Section):
    """What this owner agreed to for one arm, for requests to train and to evaluate."""

    embedding: Literal["uploaded", "frozen", "adapted", "private", "invariant"]
    """How the patch embedding is treated: frozen and private ones never leave this node."""
    shards: dict[Seed, tuple[Path, ...]]
    """This owner's encrypted shards by seed of the run."""
    training_shards: dict[Seed, tuple[Path, ...]] | None = None
    """Shards to train on if they differ (centralised arms: all owners'); null: `shards`."""
    rounds: Path | None = None
    """Folder of each round's fresh views (`clients.policy.fresh_views`); null: shards hold all."""
    private: dict[Seed, Path] | None = None
    """Folders of a private embedding as its owner made it, by seed; null for other embeddings."""
    private_rate: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the learning rate of a private embedding; 0: it is not trained."""
    start: dict[Seed, Path] | None = None
    """Folders of the start weights, by seed; null: weights are not compared with them."""
    max_change: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """The most that a round of honest training moves a weight (`clients.policy.trust_region`)."""
    change_falls: bool = False
    """Whether later rounds move it less, as the learning rate falls; policies of before say no."""
    model: ModelConfig
    """The whole model. With small patches and wide layers a coordinator could build a network that
    reads label maps from an update, or from the counts of an evaluation."""
    num_classes: Annotated[int, Field(ge=1, le=255)]
    """Classes of the model: with more of them each count reveals more."""
    training: TrainingConfig
    """The local update. Its settings decide what an update reveals: with one image and one step it
    is that image's gradient."""
    num_rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    """Rounds over which the learning rate falls. Steps late in very many rounds are so small that
    crafted weights reveal images exactly."""
    evaluations: Count
    """How often a model is evaluated on the held-out images: at the start, and after rounds."""
    models: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] = 1
    """Models that are evaluated each time; more than one if every client trains alone."""
    spare: Count = 0
    """Additional questions for each seed and task: a round may be repeated with other weights."""
    agreement: Annotated[str, Field(max_length=200)] | None = None
    """Hash of the agreement; the ledger counts by it: a second run needs the owner's consent."""
    protection: ArmConfig | None = None
    """The arm's settings as its owner saw them, for information."""

    @field_validator("model")
    @classmethod
    def _without_source(cls, model: ModelConfig) -> ModelConfig:
        return architecture(model)

    @model_validator(mode="after")
    def _what_belongs_together(self) -> Self:
        if self.embedding == "private" and (self.private or {}).keys() != self.shards.keys():
            raise ValueError("embedding private needs a private folder for each seed of its shards")
        if self.embedding != "private" and (self.private is not None or self.private_rate > 0):
            raise ValueError("private and private_rate are only allowed with embedding private")
        if (self.start is None) != (self.max_change is None):
            raise ValueError("start and max_change must be given together")
        if self.start is not None and self.start.keys() != self.shards.keys():
            raise ValueError("start needs a folder for each seed of the shards")
        if self.embedding == "invariant" and self.model.invariant is None:
            raise ValueError("embedding invariant needs model.invariant, what the embedding reads")
        return self


class LocalPrivacy(Section):
    """Local differential privacy: the noise and the budget of every answer that leaves the node."""

    clipping_norm: Annotated[float, Field(gt=0)]
    """Largest norm of an update; larger updates are scaled down to it."""
    noise_multiplier: Annotated[float, Field(gt=0)]
    """Standard deviation of the noise in units of the sensitivity to one image: twice clipping_norm
    for an update, sqrt(2) times an image's pixels for the counts of an evaluation."""
    max_epsilon: Annotated[float, Field(gt=0)]
    """Budget over all rounds, arms, seeds and tasks; an answer that would exceed it is refused."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """The delta for which epsilon is computed."""


class CohortPolicy(Section):
    """Secure aggregation: with whom this node's updates may be added up."""

    key: Path
    """File of this node's cohort key (`clients.policy.cohort_key`)."""
    keys: Annotated[dict[ClientName, Key], Field(min_length=2, max_length=MAX_CLIENTS)]
    """Public cohort keys of the clients, this one among them, as its owner consented to them."""
    least: Annotated[int, Field(ge=2, le=MAX_CLIENTS)]
    """Fewest clients in a sum."""
    bound: Annotated[float, Field(gt=0)] | None = None
    """The most that an update moves a weight; null: what the agreed training can do at most."""


class NodePolicy(Section):
    """One node: its client, its role and the arms that its owner agreed to."""

    renamed: ClassVar = {"city": "client"}

    client: ClientName
    role: Literal["train", "val"]
    device: str = "cpu"
    """Device that this node computes on."""
    run: Annotated[str, Field(max_length=200)] | None = None
    """The only prepared run that this node serves; null (separate machines): any."""
    withdrawn: str | None = None
    """Why this client no longer takes part: every request is refused; null: it takes part."""
    evaluate: Literal["agreed", "never"] = "agreed"
    """With never, no counts of the held-out images leave this node, whatever an arm allows."""
    min_heldout: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] = 1
    """Fewest held-out images to evaluate on: counts of few images describe each of them."""
    max_loss_ratio: Annotated[float, Field(gt=1, le=1e6)] | None = None
    """Most loss of received weights on the held-out images, over the least that this node accepted
    (`clients.heldout_loss`); null: the loss is not looked at."""
    privacy: LocalPrivacy | None = None
    """Noise on every answer; null: answers are exact."""
    cohort: CohortPolicy | None = None
    """With whom updates are added up, so that none leaves this node unmasked; null: they do."""
    arms: dict[str, ArmPolicy]

    @model_validator(mode="after")
    def _refusals_are_exact(self) -> Self:
        if self.privacy is not None and self.max_loss_ratio is not None:
            raise ValueError("max_loss_ratio tells of losses; leave it or privacy out")
        return self

    def require_consent(self) -> None:
        """Check that the owner has not withdrawn.

        Raises:
            RefusedError: It has.
        """
        if self.withdrawn is not None:
            raise RefusedError(f"refused: {self.withdrawn}")


def run_of(policy: NodePolicy, arm: str) -> str | None:
    """What a node's records of an arm are kept by: the run that it was prepared for (simulations),
    or the hash of the owner's agreement."""
    return policy.run or policy.arms[arm].agreement


def save_policy(policy: NodePolicy, path: Path) -> None:
    """Write a policy that only its owner can read; paths in its own folder become relative."""
    folder = path.parent
    written = _with_paths(
        policy, lambda each: each.relative_to(folder) if each.is_relative_to(folder) else each
    )
    text = yaml.safe_dump(written.model_dump(mode="json"), sort_keys=False)
    write_atomically(path, text, mode=0o600)


def load_policy(path: Path) -> NodePolicy:
    """Read a policy; its relative paths start at its own folder.

    Raises:
        InputError: It is missing, malformed, a link, too large, another user's, or others may
            write it.
    """
    values = parse_yaml(read_owned(path, MAX_BYTES, "policy"), str(path))
    return _with_paths(validate(NodePolicy, values, str(path)), lambda each: path.parent / each)


def find_policy(node_config: Mapping[str, object]) -> Path:
    """The path of a node's policy: from the node's own configuration, or a simulation's folder.

    Args:
        node_config: The node's own configuration (`--node-config 'policy="/path/node.yaml"'`); in
            a simulation it contains a partition id. Its folder is that of the environment, or else
            of the run that `flwr run .` prepared last.

    Raises:
        InputError: Neither is given.
    """
    if "policy" in node_config:
        return Path(str(node_config["policy"]))
    return policy_path(*_simulated(node_config))


def find_state(node_config: Mapping[str, object]) -> Path:
    """The state folder, which only a node's app writes; given together with the policy.

    Args:
        node_config: As in `find_policy`, with a key `state`.

    Raises:
        InputError: It is not given.
    """
    if "state" in node_config:
        return Path(str(node_config["state"]))
    if "policy" in node_config:
        raise InputError(
            "this node has no state folder: start it with --node-config "
            '\'policy="/path/node.yaml" state="/path/state"\''
        )
    return state_path(*_simulated(node_config))


def _simulated(node_config: Mapping[str, object]) -> tuple[Path, int]:
    if "partition-id" in node_config:
        number = int(str(node_config["partition-id"]))
        if (folder := os.environ.get(NODES_VARIABLE)) is not None:
            return Path(folder), number
        if (run := newest_run()) is not None:
            return nodes_folder(vaults_of_runs(), run), number
    raise InputError(
        'this node has no policy: start it with --node-config \'policy="/path/node.yaml" '
        'state="/path/state"\', or prepare a simulation '
        f"(python -m fl_ppseg.simulate --prepare) and set {NODES_VARIABLE}"
    )


def nodes_folder(vault_dir: Path, run_dir: Path) -> Path:
    """The folder of the policies of a simulation's nodes, in the folder of vaults."""
    digest = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:12]
    return vault_dir / NODES / f"{run_dir.name}-{digest}"


def policy_path(folder: Path, partition_id: int) -> Path:
    """The policy file of a partition id in a simulation's folder."""
    return folder / f"node_{partition_id:04d}.yaml"


def is_policy(name: str) -> bool:
    """Whether a file name in a simulation's folder is that of a policy."""
    return re.fullmatch(r"node_[0-9]{4,9}\.yaml", name) is not None


def state_path(folder: Path, partition_id: int) -> Path:
    """The state folder of a partition id in a simulation's folder."""
    return folder / "state" / f"node_{partition_id:04d}"


def _with_paths(policy: NodePolicy, change: Callable[[Path], Path]) -> NodePolicy:
    """A policy with every path in it changed."""

    def changed(shards: Mapping[int, tuple[Path, ...]]) -> dict[int, tuple[Path, ...]]:
        return {seed: tuple(map(change, paths)) for seed, paths in shards.items()}

    def of_arm(arm: ArmPolicy) -> ArmPolicy:
        private, start = arm.private, arm.start
        paths = {
            "shards": changed(arm.shards),
            "training_shards": arm.training_shards and changed(arm.training_shards),
            "rounds": arm.rounds and change(arm.rounds),
            "private": private and {seed: change(path) for seed, path in private.items()},
            "start": start and {seed: change(path) for seed, path in start.items()},
        }
        return arm.model_copy(update=paths)

    arms = {name: of_arm(arm) for name, arm in policy.arms.items()}
    cohort = policy.cohort
    if cohort is not None:
        cohort = cohort.model_copy(update={"key": change(cohort.key)})
    return policy.model_copy(update={"arms": arms, "cohort": cohort})
