"""The Flower ClientApp: how a training node answers a message.

It reads the owner's policy anew for each message, lets `clients.handlers` answer, and replies
through the allow-list: a private embedding never leaves the node. Error replies contain no paths,
names or values; details are written to the node's own log.

The policy and what it names belong to the owner and are only read. What this app writes (ledger,
log, trained private embeddings) lies in its state folder.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients import handlers
from clients.accepted_weights import remove_accepted
from clients.heldout_loss import remove_losses
from clients.node_log import set_up_log
from clients.policy.ledger import check_ledger
from clients.policy.node_policy import (
    NodePolicy,
    RefusedError,
    find_policy,
    find_state,
    load_policy,
)
from clients.policy.permission import check_run
from clients.private_state import remove_trained
from clients.received_weights import with_weights
from clients.residuals import remove_residuals
from fl_ppseg.codecs.update import codec_of
from fl_ppseg.federation.message_content import Description, Reply, Request
from fl_ppseg.federation.messages import (
    FAILED,
    REFUSED,
    MessageError,
    pack_description,
    pack_reply,
    unpack_request,
)
from fl_ppseg.federation.roles import Task
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.errors import is_out_of_memory
from fl_ppseg.system.spans import span

logger = logging.getLogger(__name__)

Handler = Callable[[Request, NodePolicy, Path], Reply]
"""Answers a request under a policy, with the app's state folder."""

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Name the client and role of this node."""
    return _answer(message, context, "describe", None)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Run a local update on the encrypted training views."""
    return _answer(message, context, "train", handlers.train)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Count the confusions of the given weights on the encrypted held-out images."""
    return _answer(message, context, "evaluate", handlers.score)


@app.query("advertise")
def advertise(message: Message, context: Context) -> Message:
    """Secure aggregation: name this node's keys of a round."""
    return _answer(message, context, "advertise", handlers.answer_sum_step)


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Secure aggregation: deal shares of this node's secrets."""
    return _answer(message, context, "share", handlers.answer_sum_step)


@app.query("confirm")
def confirm(message: Message, context: Context) -> Message:
    """Secure aggregation: sign whose updates are added."""
    return _answer(message, context, "confirm", handlers.answer_sum_step)


@app.query("unmask")
def unmask(message: Message, context: Context) -> Message:
    """Secure aggregation: give one share of each peer."""
    return _answer(message, context, "unmask", handlers.answer_sum_step)


def reply_or_error(message: Message, answer: Callable[[], Message]) -> Message:
    """The reply to a message, or an error reply that reveals only the kind of failure."""
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
        reason = f"the node {why}; see its own log"
        return Message(Error(FAILED, reason), reply_to=message)


def _answer(message: Message, context: Context, task: Task, handler: Handler | None) -> Message:
    def answer() -> Message:
        state = find_state(context.node_config)
        set_up_log(state)
        request = unpack_request(message.content)
        if request.task != task:
            raise RefusedError(
                f"refused: expected a request to {task}, as its message says, got {request.task}"
            )
        policy = _policy(find_policy(context.node_config))
        if policy.withdrawn is not None:
            remove_trained(state)
            remove_accepted(state)
            remove_residuals(state)
            remove_losses(state)
        policy.require_consent()
        check_run(policy, request.run)
        check_ledger(state)
        request = with_weights(request, policy)
        if handler is None:
            content = pack_description(Description(request.run_id, policy.client, policy.role))
        else:
            reply = handler(request, policy, state)
            kept = withheld(request.embedding)
            start = {name: value for name, value in request.arrays.items() if name not in kept}
            content = pack_reply(reply, codec_of(request.training).layout(start))
        return Message(content, reply_to=message)

    with span("wire"):
        return reply_or_error(message, answer)


def _policy(path: Path) -> NodePolicy:
    """The current policy: a withdrawal takes effect with the next request."""
    found = path.stat() if path.exists() else None
    return _read_policy(path, (found.st_ino, found.st_mtime_ns, found.st_size) if found else ())


@lru_cache(maxsize=64)
def _read_policy(path: Path, state: tuple[int, ...]) -> NodePolicy:
    return load_policy(path)
