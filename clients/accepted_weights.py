"""The change since the weights that the node last accepted: more than honest training is refused.

    <state>/accepted/<digest>/round_<nnnn>.safetensors    weights after that round, for one run, arm
                                                          and seed

The trust region (`clients.policy.trust_region`) bounds how far weights may lie from round 0. By the
same inequality round i moves a weight by at most f(i) C (1 + d |s|), so weights after rounds
k1 < k2 of one training lie within (f(k1 + 1) + ... + f(k2)) C (1 + d |s|) of each other, plus the
tolerance, and what a code moves them (`code_error`) at either end. A request to train in round r
sends weights after round r - 1, one to evaluate those after round r.

The newest `KEPT` versions are kept, of later and later rounds. New weights must lie within the
bound of one of them that is not later. A coordinator that lost a checkpoint repeats a round and
sends other weights after it: these are compared with the version before, and replace the later
ones. Going back behind all of them is refused: a coordinator keeps checkpoints for less. Weights
that were granted before, by the ledger, are not compared again. If no version is kept (a new node,
or its owner removed the folder), only the trust region applies.

A version is stored as offsets from the start in units of the trust region's radius, 16 bits a
weight; the rounding error is added to the bound. Only weights that the trust region compares are
stored; they come from the coordinator, and tell nothing of the owner's images.

The bound does not apply to arms in which a node evaluates a model of every client.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from clients.policy.node_policy import ArmPolicy, RefusedError
from clients.policy.start_weights import read_start
from clients.policy.trust_region import (
    change_between,
    code_error,
    compared,
    least_radius,
    radius,
    received,
    rounds_before,
)
from clients.version_files import read_version, remove_versions, versions, write_version
from fl_ppseg.config.run_layout import round_file
from fl_ppseg.config.sections import CODEC, MEMORY
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError

if TYPE_CHECKING:
    from clients.policy.ledger import Question
    from fl_ppseg.federation.message_content import Request

ACCEPTED: Final = "accepted"
KEPT: Final = 3
"""Number of versions: a coordinator that lost a round's checkpoint during the next round repeats
both, from the version before them."""
_LEVELS: Final = 2**15 - 1
_DIGITS: Final = 32


def accepted_folder(state: Path, arm: ArmPolicy, question: "Question") -> Path | None:
    """The folder of the versions that a question is compared with; None if there is no bound."""
    if arm.start is None or arm.max_change is None or arm.models > 1:
        return None
    start = arm.start[question.seed].name
    # Codecs of updates move weights no further, but the unit of a version is the weights' codec's.
    without = {*CODEC, *MEMORY}
    if arm.training.weights_codec != "fp32":
        without.remove("weights_codec")
    training = arm.training.model_dump_json(exclude=without)
    asked = [question.run, question.arm, question.seed, start, arm.max_change, training]
    if arm.change_falls:  # the unit of a version is another; earlier ones were of constant bounds
        asked.append(arm.num_rounds)
    text = json.dumps(asked)
    return state / ACCEPTED / hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def check_change(folder: Path, arm: ArmPolicy, request: "Request") -> bool:
    """Check that honest training leads from the accepted weights to those of a request.

    Args:
        folder: Of `accepted_folder`; need not exist.
        arm: What was agreed to, with start weights.
        request: Must lie in the trust region.

    Returns:
        Whether the weights are of a later round than those that they were compared with, and so
        should be kept.

    Raises:
        RefusedError: It does not.
        InputError: A version is damaged.
    """
    kept, now = versions(folder), rounds_before(request)
    if not kept:
        return True
    earlier = [number for number in kept if number <= now]
    if not earlier:
        raise RefusedError(
            f"refused: expected weights of round {kept[0]} or later, since this node accepted "
            f"those; got other weights than before of round {now}"
        )
    beyond = ""
    for number in reversed(earlier):
        beyond = _beyond(folder, number, arm, request)
        if not beyond:
            return number < now
    raise RefusedError(beyond)


def keep(folder: Path, arm: ArmPolicy, request: "Request") -> None:
    """Keep the weights of a request that `check_change` accepted as of a later round.

    Arguments as there.
    """
    assert arm.start is not None and arm.max_change is not None
    now, start = rounds_before(request), read_start(arm.start[request.seed])
    stored: Arrays = {}
    most = change_between(arm, 0, now)
    for name, value in compared(request):
        offset = np.asarray(value.astype(np.float64) - start[name])
        offset /= received(start[name], most, arm.training)
        offset *= _LEVELS
        stored[name] = np.rint(offset, out=offset).astype(np.int16)
    write_version(folder, now, stored)
    kept = [number for number in versions(folder) if number <= now][-KEPT:]
    remove_versions(folder, {*versions(folder)} - {*kept})


def remove_accepted(state: Path) -> None:
    """Remove all versions, as the app's part of a withdrawal."""
    if (state / ACCEPTED).is_dir():
        shutil.rmtree(state / ACCEPTED)


def _beyond(folder: Path, number: int, arm: ArmPolicy, request: "Request") -> str:
    """Why weights cannot come from a version; empty if they can."""
    assert arm.start is not None and arm.max_change is not None
    start, stored = read_start(arm.start[request.seed]), _read(folder, number)
    now = rounds_before(request)
    change = change_between(arm, number, now)
    at_first, at_last = (change_between(arm, 0, k) for k in (number, now))
    for name, value in compared(request):
        offset = stored.get(name)
        if offset is None or offset.shape != value.shape:
            raise InputError(
                f"{round_file(folder, number)}: holds other weights; remove its folder"
            )
        unit = received(start[name], at_first, arm.training) / _LEVELS
        moved = np.asarray(value.astype(np.float64) - start[name])
        moved -= offset * unit
        np.abs(moved, out=moved)
        if moved.max(initial=0.0) <= least_radius(change):
            continue
        most = radius(start[name], change, arm.training) + unit
        for whole in (at_first, at_last):
            most += code_error(start[name], whole, arm.training)
        excess = moved - most
        if excess.size and not excess.max() <= 0:
            worst = int(excess.argmax())
            return (
                f"refused: weights in {name} lie {moved.flat[worst]:.3g} from those after round "
                f"{number} that this node accepted, but training reaches at most "
                f"{most.flat[worst]:.3g} in {now - number} round(s)"
            )
    return ""


def _read(folder: Path, number: int) -> Arrays:
    return read_version(folder, number, np.int16, "accepted weights")
