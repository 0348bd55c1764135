"""What a request may use of the owner's: the request held against the policy, point by point."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from clients.policy.ledger import Limits
from clients.policy.policy import ArmPolicy, NodePolicy, RefusedError, architecture
from clients.policy.trust_region import check_region

if TYPE_CHECKING:
    from fl_ppseg.federation.message_content import Request

MAX_WEIGHT: Final = 1e6
"""Largest absolute value in weights that a node loads, buffers included: that of the shipped
weights is 10.1, of a patch embedding, and variances of a published batch normalisation stay below
it. The coordinator takes no larger statistics either. Trained weights are held to a much closer
bound where one can be given: see `clients.policy.trust_region`."""
_COUNTER: Final = ".num_batches_tracked"
"""How a tensor ends that only counts steps; it may be larger, for nothing is computed with it."""


class Permit(NamedTuple):
    """What of the owner's a request may use."""

    shards: tuple[Path, ...]
    """Encrypted shards to train on, or to score."""
    private: Path | None
    """Folder of the private embedding that takes the public one's place; none: the public one."""
    private_rate: float
    """Factor on the learning rate of what does not travel; 0: it is not trained."""
    limits: Limits
    """How many distinct questions of this kind were agreed to."""


def check_run(policy: NodePolicy, run: str) -> None:
    """Find out whether a request is of the run that this node was prepared for, where it names one.

    Raises:
        RefusedError: It is of another, whose numbers this node's images would falsify.
    """
    if policy.run is not None and run != policy.run:
        raise RefusedError(
            "refused: this node was prepared for another run; a SuperLink of an earlier one that "
            "still lives keeps its nodes: stop it, set FL_PPSEG_NODES as printed, start again"
        )


def permit(policy: NodePolicy, request: "Request") -> Permit:
    """What a request may use.

    Raises:
        RefusedError: If the owner has not agreed to what is asked.
        InputError: As `check_region`.
    """
    policy.require_consent()
    check_run(policy, request.run)
    arm = policy.arms.get(request.arm)
    if arm is None:
        raise RefusedError(f"refused: the owner has not agreed to arm {request.arm}")
    _check_settings(arm, request)
    _check_task(policy, request.task)
    check_weights(request.arrays)
    shards = arm.shards
    if request.task == "train" and arm.training_shards is not None:
        shards = arm.training_shards
    if request.seed not in shards:
        raise RefusedError(f"refused: no shard to {request.task} on was prepared for this seed")
    check_region(arm, request)
    private = arm.private[request.seed] if arm.private is not None else None
    return Permit(shards[request.seed], private, arm.private_rate, _limits(arm, request.task))


def check_weights(arrays: Mapping[str, np.ndarray]) -> None:
    """Find out whether weights are of a size that honest training makes.

    Weights far beyond it drown what a model sees, or make a step tell what it should not. Weights
    within it may still be made to tell something: this is a bound, and no proof.

    Args:
        arrays: Of a request.

    Raises:
        RefusedError: A value is not finite, or beyond `MAX_WEIGHT`.
    """
    for name, value in arrays.items():
        if not value.size:
            continue
        low, high = float(value.min()), float(value.max())
        largest = max(-low, high)
        if not np.isfinite((low, high)).all():
            raise RefusedError(f"refused: weights that are no finite number in {name}")
        if largest > MAX_WEIGHT and not name.endswith(_COUNTER):
            raise RefusedError(
                f"refused: weights of {largest:.0e} in {name}, at most {MAX_WEIGHT:.0e} are taken"
            )


def check_heldout(policy: NodePolicy, num_heldout: int) -> None:
    """Find out whether a node holds enough images for counts that tell of no single one.

    Raises:
        RefusedError: It does not.
    """
    if num_heldout < policy.min_heldout:
        raise RefusedError(
            f"refused: the owner evaluates on {policy.min_heldout} held-out images at least, and "
            f"there are {num_heldout}"
        )


def _check_settings(arm: ArmPolicy, request: "Request") -> None:
    if request.embedding != arm.embedding:
        raise RefusedError(
            f"refused: the owner keeps the embedding {arm.embedding}, asked was {request.embedding}"
        )
    if architecture(request.model) != arm.model:
        raise RefusedError("refused: the owner has agreed to another model")
    if request.num_classes != arm.num_classes:
        raise RefusedError(
            f"refused: the owner has agreed to {arm.num_classes} classes, asked was "
            f"{request.num_classes}"
        )
    if request.training != arm.training:
        raise RefusedError("refused: the owner has agreed to other settings of the training")
    if request.num_rounds != arm.num_rounds:
        raise RefusedError("refused: the owner has agreed to another number of rounds")
    first = 0 if request.task == "evaluate" else 1  # what training starts from is scored too
    if not first <= request.round <= arm.num_rounds:
        raise RefusedError(f"refused: there is no round {request.round} of {arm.num_rounds}")


def _check_task(policy: NodePolicy, task: str) -> None:
    if task == "train" and policy.role != "train":
        raise RefusedError("refused: this node only evaluates")
    if task == "evaluate" and policy.evaluate == "never":
        raise RefusedError("refused: the owner lets nothing be evaluated on its held-out images")


def _limits(arm: ArmPolicy, task: str) -> Limits:
    if task == "train":
        return Limits(1 + arm.spare, arm.num_rounds + arm.spare)
    if arm.evaluations == 0:
        return Limits(0, 0)
    return Limits(arm.models + arm.spare, arm.evaluations * arm.models + arm.spare)
