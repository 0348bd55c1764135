"""The Flower ClientApp: what a training node does with a message.

Load weights, open the encrypted shard, train or evaluate, reply through the allow-list. A private
embedding takes the place of the public one that came with the request, and stays here. Errors that
travel say nothing of paths, names or values; their details stay in the node's own log.
"""

import logging
import math
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.local_privacy import released
from clients.policy import NodePolicy, RefusedError, find_policy, load_policy, permit
from clients.private_state import load_private, save_private
from fl_ppseg.config import ModelConfig
from fl_ppseg.errors import InputError, is_out_of_memory
from fl_ppseg.evaluation import evaluate
from fl_ppseg.messages import (
    FAILED,
    REFUSED,
    Arrays,
    Description,
    MessageError,
    Reply,
    Request,
    Task,
    pack_description,
    pack_reply,
    unpack_request,
)
from fl_ppseg.setr.model import SETR, build_architecture
from fl_ppseg.setr.names import withheld
from fl_ppseg.shard import Shard, open_shard
from fl_ppseg.training import Position, local_update

logger = logging.getLogger(__name__)

Handler = Callable[[Request, NodePolicy], Reply]

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Name the city and role of this node."""
    return _answer(message, context, "describe", None)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Run a local update on the encrypted training views."""
    return _answer(message, context, "train", _train)


@app.evaluate()
def score(message: Message, context: Context) -> Message:
    """Count the confusions of the given weights on the encrypted held-out images."""
    return _answer(message, context, "evaluate", _evaluate)


def or_error(message: Message, answer: Callable[[], Message]) -> Message:
    """The answer to a message; where there is none, an error that tells no more than its kind."""
    try:
        return answer()
    except (RefusedError, MessageError) as refusal:
        logger.warning("%s", refusal)
        return Message(Error(REFUSED, str(refusal)), reply_to=message)
    except Exception as error:
        logger.exception("this node failed")
        why = (
            "ran out of memory"
            if is_out_of_memory(error)
            else f"failed with {type(error).__name__}"
        )
        reason = f"the node {why}; its own log says more"
        return Message(Error(FAILED, reason), reply_to=message)


def _answer(message: Message, context: Context, task: Task, handler: Handler | None) -> Message:
    def answer() -> Message:
        request = unpack_request(message.content)
        if request.task != task:
            raise RefusedError("refused: the request names another task than its message")
        policy = _policy(find_policy(context.node_config))
        policy.require_consent()
        if handler is None:
            content = pack_description(Description(request.run_id, policy.city, policy.role))
        else:
            reply = handler(request, policy)
            content = pack_reply(reply, request.arrays.keys() - withheld(request.embedding))
        return Message(content, reply_to=message)

    return or_error(message, answer)


def _train(request: Request, policy: NodePolicy) -> Reply:
    shards, folder, private_rate = permit(policy, request)
    shard = _shard(shards)
    kept = withheld(request.embedding)
    private = _private(folder, request.round - 1)
    update = local_update(
        _model(request.model, request.num_classes, shard.image_size),
        _tensors(request.arrays),
        private,
        shard,
        request.training,
        Position(request.round, request.num_rounds),
        request.seed,
        rates=dict.fromkeys(kept, private_rate),
        device=policy.device,
    )
    if folder is not None and private_rate > 0:
        if not all(bool(value.isfinite().all()) for value in update.private.values()):
            raise InputError("training diverged: the private embedding stays as it was before")
        save_private(folder, request.round, update.private)
    arrays = {name: update.weights[name].numpy() for name in sorted(update.weights.keys() - kept)}
    return Reply(
        run_id=request.run_id,
        round=request.round,
        city=policy.city,
        num_examples=update.num_examples,
        loss=update.loss,
        seconds=update.seconds,
        arrays=released(arrays, request.arrays, policy.privacy),
    )


def _evaluate(request: Request, policy: NodePolicy) -> Reply:
    start = time.perf_counter()
    shards, folder, _ = permit(policy, request)
    shard = _shard(shards)
    threads = torch.get_num_threads()
    torch.set_num_threads(request.training.num_threads)
    try:
        model = _model(request.model, request.num_classes, shard.image_size)
        model.load_state_dict(_tensors(request.arrays) | _private(folder, request.round))
        model.to(policy.device)
        counts, loss = evaluate(model, shard.heldout(), request.num_classes, policy.device)
    finally:
        torch.set_num_threads(threads)
    return Reply(
        run_id=request.run_id,
        round=request.round,
        city=policy.city,
        num_examples=shard.num_heldout,
        loss=loss if math.isfinite(loss) else 0.0,
        seconds=time.perf_counter() - start,
        confusion=np.asarray(counts),
    )


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _private(folder: Path | None, round: int) -> dict[str, torch.Tensor]:
    """The node's own embedding as it was after a round; nothing where it has none."""
    return {} if folder is None else load_private(folder, round)


@lru_cache(maxsize=64)
def _policy(path: Path) -> NodePolicy:
    policy = load_policy(path)
    if policy.log is not None:
        _log_to(policy.log)
    return policy


@lru_cache(maxsize=1)
def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    node = logging.getLogger("clients")
    for earlier in node.handlers:  # of another run in this process
        earlier.close()
    node.handlers = [handler]
    node.propagate = False


@lru_cache(maxsize=64)
def _shard(folders: tuple[Path, ...]) -> Shard:
    return open_shard(folders)


@lru_cache(maxsize=2)
def _model(config: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> SETR:
    """The architecture, built once a process; every use overwrites all of its weights."""
    return build_architecture(config, num_classes, image_size)
