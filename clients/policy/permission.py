"""Checks a request against the owner's policy, and says what it may use."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from clients.policy.ledger import Limits
from clients.policy.node_policy import ArmPolicy, NodePolicy, RefusedError, architecture
from clients.policy.trust_region import check_region

if TYPE_CHECKING:
    from fl_ppseg.federation.message_content import Request

MAX_WEIGHT: Final = 1e6
"""Largest absolute value in weights that a node loads, buffers included. In the shipped weights it
is 10.1, in a patch embedding, and variances of published batch normalisations stay below it. The
coordinator accepts no larger statistics either. For trained weights there is a much closer bound if
one can be computed: see `clients.policy.trust_region`."""
_COUNTER: Final = ".num_batches_tracked"
"""Suffix of tensors that only count steps; they may be larger, since nothing is computed with
them."""


class Permit(NamedTuple):
    """What a request may use."""

    shards: tuple[Path, ...]
    """Encrypted shards to train on, or to score."""
    private: Path | None
    """Folder of the private embedding to use instead of the public one; None: the public one."""
    private_rate: float
    """Factor on the learning rate of the private embedding; 0: it is not trained."""
    limits: Limits
    """How many distinct questions of this kind the owner agreed to."""
    rounds: Path | None = None
    """Folder of the fresh views of each round to train on; None: the shards hold all views."""


def check_run(policy: NodePolicy, run: str) -> None:
    """Check that a request belongs to the run that this node was prepared for, if there is one.

    Raises:
        RefusedError: It belongs to another run, whose results this node would falsify.
    """
    if policy.run is not None and run != policy.run:
        raise RefusedError(
            "refused: this node was prepared for another run; if a SuperLink of an earlier run "
            "still runs, stop it, set FL_PPSEG_NODES as printed, and start again"
        )


def permit(policy: NodePolicy, request: "Request") -> Permit:
    """Check a request against the policy; returns what it may use.

    Raises:
        RefusedError: The owner has not agreed to what is asked.
        InputError: As `check_region`.
    """
    policy.require_consent()
    check_run(policy, request.run)
    arm = policy.arms.get(request.arm)
    if arm is None:
        raise RefusedError(f"refused: the owner has not agreed to arm {request.arm}")
    _check_settings(arm, request)
    _check_task(policy, request.task)
    _check_sum(policy, request)
    check_weights(request.arrays)
    shards = arm.shards
    if request.task != "evaluate" and arm.training_shards is not None:
        shards = arm.training_shards
    if request.seed not in shards:
        raise RefusedError(f"refused: no shard to {request.task} on was prepared for this seed")
    if request.task in ("train", "evaluate"):
        check_region(arm, request)
    private = arm.private[request.seed] if arm.private is not None else None
    rounds = arm.rounds if request.task == "train" else None
    limits = _limits(arm, request.task)
    return Permit(shards[request.seed], private, arm.private_rate, limits, rounds)


def check_weights(arrays: Mapping[str, np.ndarray]) -> None:
    """Check that weights are of a magnitude that honest training produces.

    Far larger weights can make an update or its counts reveal what they should not. Crafted weights
    within the bound may still reveal something: this is a bound, not a proof.

    Args:
        arrays: The weights of a request.

    Raises:
        RefusedError: A value is not finite, or exceeds `MAX_WEIGHT`.
    """
    for name, value in arrays.items():
        if not value.size:
            continue
        low, high = float(value.min()), float(value.max())
        largest = max(-low, high)
        if not np.isfinite((low, high)).all():
            raise RefusedError(f"refused: expected finite weights in {name}")
        if largest > MAX_WEIGHT and not name.endswith(_COUNTER):
            raise RefusedError(
                f"refused: expected weights of at most {MAX_WEIGHT:.0e} in {name}, got "
                f"{largest:.0e}"
            )


def check_heldout(policy: NodePolicy, num_heldout: int) -> None:
    """Check that a node holds enough images for counts that do not describe a single one.

    Raises:
        RefusedError: It does not.
    """
    if num_heldout < policy.min_heldout:
        raise RefusedError(
            f"refused: the owner requires at least {policy.min_heldout} held-out images for an "
            f"evaluation, and there are {num_heldout}"
        )


def _check_settings(arm: ArmPolicy, request: "Request") -> None:
    if request.embedding != arm.embedding:
        raise RefusedError(
            f"refused: the owner has agreed to the embedding {arm.embedding}, got a request for "
            f"{request.embedding}"
        )
    if architecture(request.model) != arm.model:
        raise RefusedError("refused: the owner has agreed to another model")
    if request.num_classes != arm.num_classes:
        raise RefusedError(
            f"refused: the owner has agreed to {arm.num_classes} classes, got a request for "
            f"{request.num_classes}"
        )
    if request.training != arm.training:
        raise RefusedError("refused: the owner has agreed to other training settings")
    if request.num_rounds != arm.num_rounds:
        raise RefusedError("refused: the owner has agreed to another number of rounds")
    first = 0 if request.task == "evaluate" else 1  # the start weights are evaluated too
    if not first <= request.round <= arm.num_rounds:
        raise RefusedError(
            f"refused: expected a round from {first} to {arm.num_rounds}, got {request.round}"
        )


def _check_sum(policy: NodePolicy, request: "Request") -> None:
    if request.task == "train" and request.sum is None and policy.cohort is not None:
        raise RefusedError(
            "refused: the owner has agreed to sums of updates alone (secure aggregation), got a "
            "request for a single one"
        )
    if request.sum is not None and policy.cohort is None:
        raise RefusedError("refused: the owner has not agreed to secure aggregation")


def _check_task(policy: NodePolicy, task: str) -> None:
    if task != "evaluate" and policy.role != "train":
        raise RefusedError("refused: this node only evaluates")
    if task == "evaluate" and policy.evaluate == "never":
        raise RefusedError("refused: the owner allows no evaluation on its held-out images")


def _limits(arm: ArmPolicy, task: str) -> Limits:
    if task != "evaluate":
        return Limits(1 + arm.spare, arm.num_rounds + arm.spare)
    if arm.evaluations == 0:
        return Limits(0, 0)
    return Limits(arm.models + arm.spare, arm.evaluations * arm.models + arm.spare)
