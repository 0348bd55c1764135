"""What a training node does about a request: handlers of each task, which know nothing of Flower.

Each takes a request, the owner's policy and the state folder of the node, checks the one against
the other (`clients.policy.permission`), counts it in the ledger, and gives the reply. They raise
`RefusedError` where the owner did not agree.
"""

import math
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from clients.accepted_weights import accepted_folder, check_change, keep
from clients.heldout_loss import keep_loss, least_loss, loss_file
from clients.local_privacy import check_form, privatise_counts, privatise_update
from clients.policy.fresh_views import training_name
from clients.policy.ledger import Question, Refusal, grant, record_refusal, was_granted
from clients.policy.node_policy import NodePolicy, RefusedError, run_of
from clients.policy.permission import Permit, check_heldout, permit
from clients.policy.start_weights import read_start
from clients.policy.trust_region import rounds_before
from clients.private_state import load_private, save_trained, trained_folder
from clients.residuals import load_residual, residual_folder, save_residual
from clients.round_views import PATIENCE, open_round
from clients.summed_update import Place, answer_step, open_summed_update
from fl_ppseg.codecs.tensors import CodecError
from fl_ppseg.codecs.update import codec_of
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.data.shard import Shard, open_shard
from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.learning.evaluation import evaluate
from fl_ppseg.learning.reach import bounds_of, poly
from fl_ppseg.learning.sliding import SlidingWindows
from fl_ppseg.learning.training import Position, local_update
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.arrays import Arrays, hash_of
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.spans import span


def train(request: Request, policy: NodePolicy, state: Path) -> Reply:
    """Run a local update on the encrypted training views."""
    permitted = permit(policy, request)
    shard = _shard(permitted.shards)
    kept = withheld(request.embedding)
    check_form(request.arrays.keys() - kept, policy.privacy)
    if policy.privacy is not None and request.training.codec != "fp32":
        raise RefusedError(
            "refused: this node adds noise of its own, which error feedback would send over many "
            "rounds; use training.codec fp32"
        )
    summed = None
    if request.sum is not None:  # refused before anything is trained
        summed = open_summed_update(Place(request, policy, state, len(shard)))
    _count(request, policy, permitted, state)
    views = shard
    if permitted.rounds is not None:
        patience = None if policy.run else PATIENCE  # a simulation says where it makes no more
        training = training_name(request.arm, request.seed)
        views = open_round(
            permitted.rounds, permitted.shards, training, request.round, state, patience
        )
    with span("compute"):
        update = local_update(
            _model(request.model, request.num_classes, shard.image_size),
            _tensors(request.arrays),
            _private(permitted.private, state, request.round - 1),
            views,
            request.training,
            Position(request.round, request.num_rounds),
            request.seed,
            rates=dict.fromkeys(kept, permitted.private_rate),
            device=policy.device,
        )
    if permitted.private is not None and permitted.private_rate > 0:
        if not all(bool(value.isfinite().all()) for value in update.private.values()):
            raise InputError("training diverged: the private embedding was not changed")
        own = {name: value.numpy() for name, value in update.private.items()}
        save_trained(trained_folder(state, permitted.private), request.round, own)
    arrays = {name: update.weights[name].numpy() for name in sorted(update.weights.keys() - kept)}
    arrays = privatise_update(arrays, request.arrays, policy.privacy)
    if summed is not None:
        arrays = summed.mask(arrays, update.num_examples)
    elif not codec_of(request.training).is_exact:
        arrays = _coded(arrays, update.num_examples, request, policy, state)
    return Reply(
        run_id=request.run_id,
        round=request.round,
        client=policy.client,
        num_examples=update.num_examples,
        loss=_loss(update.loss, policy),
        seconds=update.seconds,
        arrays=arrays,
    )


def answer_sum_step(request: Request, policy: NodePolicy, state: Path) -> Reply:
    """Answer a step of secure aggregation before or after training."""
    start = time.perf_counter()
    shard = _shard(permit(policy, request).shards)
    content = answer_step(Place(request, policy, state, len(shard)))
    return Reply(
        run_id=request.run_id,
        round=request.round,
        client=policy.client,
        num_examples=len(shard),
        loss=None,
        seconds=time.perf_counter() - start,
        sum=content,
    )


def score(request: Request, policy: NodePolicy, state: Path) -> Reply:
    """Count the confusions of the given weights on the encrypted held-out images."""
    start = time.perf_counter()
    permitted = permit(policy, request)
    shard = _shard(permitted.shards)
    check_heldout(policy, shard.num_heldout)
    _count(request, policy, permitted, state)
    counts, loss = _evaluated(request, policy, permitted, state, shard, request.round)
    sizes = [size for part in shard.parts for size in part.manifest.heldout_sizes]
    return Reply(
        run_id=request.run_id,
        round=request.round,
        client=policy.client,
        num_examples=shard.num_heldout,
        loss=_loss(loss, policy),
        seconds=time.perf_counter() - start,
        confusion=privatise_counts(np.asarray(counts), sizes, policy.privacy, state),
    )


def _evaluated(
    request: Request, policy: NodePolicy, permitted: Permit, state: Path, shard: Shard, after: int
) -> tuple[np.ndarray, float | None]:
    """Confusions and loss of a request's weights, those after a round, on the held-out images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(request.training.num_threads)
    try:
        with span("compute"):
            model = _model(request.model, request.num_classes, shard.image_size)
            own = _private(permitted.private, state, after)
            model.load_state_dict(_tensors(request.arrays) | own)
            model.to(policy.device)
            frames = SlidingWindows(model)
            counts, loss = evaluate(frames, shard.heldout(), request.num_classes, policy.device)
    finally:
        torch.set_num_threads(threads)
    return np.asarray(counts), loss


def _heldout_loss(
    request: Request, policy: NodePolicy, permitted: Permit, state: Path
) -> float | None:
    """Check the loss of a request's weights against the least that was accepted; returns it.

    Raises:
        RefusedError: It is more than the owner's `max_loss_ratio` of that.
    """
    arm = policy.arms[request.arm]
    shard, after = _shard(arm.shards[request.seed]), rounds_before(request)
    least = least_loss(loss_file(state, run_of(policy, request.arm), request.arm, request.seed))
    if least is None and arm.start is not None:
        start = request.arrays | read_start(arm.start[request.seed])
        first = replace(request, arrays=start)
        least = _evaluated(first, policy, permitted, state, shard, 0)[1]
    _, loss = _evaluated(request, policy, permitted, state, shard, after)
    if loss is None or least is None:  # no labelled pixel is held out, or nothing to compare with
        return loss if loss is not None and math.isfinite(loss) else None
    assert policy.max_loss_ratio is not None
    if not loss <= policy.max_loss_ratio * least:
        raise RefusedError(
            f"refused: the loss of these weights on this node's held-out images is more than "
            f"{policy.max_loss_ratio:g} times the least that it accepted"
        )
    return loss


def _coded(
    arrays: Arrays, num_examples: int, request: Request, policy: NodePolicy, state: Path
) -> Arrays:
    """The parts of an update, with the residual of earlier codes.

    Raises:
        InputError: It is not finite, or the residual is damaged.
    """
    if not all(np.isfinite(value).all() for value in arrays.values()):
        raise InputError("training diverged: nothing was sent, and the residual was not changed")
    codec = codec_of(request.training)
    folder = residual_folder(state, run_of(policy, request.arm), request.arm, request.seed)
    residual = load_residual(folder, request.round, arrays)
    share = poly((request.round - 1) / request.num_rounds, request.training.poly_power)
    like = {name: request.arrays[name] for name in arrays}
    bounds = bounds_of(request.training, num_examples, like, share)
    try:
        parts, lost = codec.pack(arrays, request.arrays, residual, bounds)
    except CodecError as error:  # only where training has no bound
        raise InputError(f"training diverged: {error}; nothing was sent") from None
    # an update without a labelled pixel is left out of the mean: what it held is not sent
    save_residual(folder, request.round, lost if num_examples else residual)
    return parts


def _count(request: Request, policy: NodePolicy, permitted: Permit, state: Path) -> None:
    """Record a request in the ledger before it is answered, and compare its weights with those
    that were accepted before, and their loss with theirs where the owner wants it.

    Raises:
        RefusedError: A limit is reached, or honest training does not lead to these weights.
    """
    assert request.task == "train" or request.task == "evaluate"
    arm = policy.arms[request.arm]
    question = Question(
        run=run_of(policy, request.arm),
        arm=request.arm,
        seed=request.seed,
        round=request.round,
        task=request.task,
        weights=hash_of(request.arrays),
    )
    folder = accepted_folder(state, arm, question)
    is_later, loss = False, None
    why: Refusal = "change"
    try:
        if folder is not None:
            is_later = check_change(folder, arm, request)
        if policy.max_loss_ratio is not None:
            why = "loss"
            loss = _heldout_loss(request, policy, permitted, state)
    except RefusedError:
        if not was_granted(state, question):  # what was is never refused again
            record_refusal(state, question, why)
            raise
    grant(state, question, permitted.limits, policy.privacy)
    if folder is not None and is_later:
        keep(folder, arm, request)
    if loss is not None:
        keep_loss(loss_file(state, question.run, request.arm, request.seed), loss)


def _loss(loss: float | None, policy: NodePolicy) -> float | None:
    """A loss, or None if it must not leave: an exact one reveals what noise should hide."""
    may_leave = loss is not None and math.isfinite(loss) and policy.privacy is None
    return loss if may_leave else None


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _private(start: Path | None, state: Path, round: int) -> dict[str, torch.Tensor]:
    """The node's own embedding after a round; empty if it has none."""
    if start is None:
        return {}
    return _tensors(load_private(start, trained_folder(state, start), round))


@lru_cache(maxsize=64)
def _shard(folders: tuple[Path, ...]) -> Shard:
    return open_shard(folders)


@lru_cache(maxsize=2)
def _model(config: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> SETR:
    """The architecture, built once per process; every use overwrites all of its weights."""
    return build_architecture(config, num_classes, image_size)
