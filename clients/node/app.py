"""The app's own process: takes tasks from the SuperNode and answers each with this machine's code.

It replaces Flower's `flower-superexec` and `flwr-clientapp`. Flower unpacks the bundle that the
coordinator ships and imports it, in a new Python process for every message. Here PyTorch and the
ClientApp are imported once, each message is answered by a fork of that process, and the bundle is
hashed and discarded. If Flower renames what this uses, the app fails to start; it never falls back
to code that came over the network.
"""

import logging
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import NoReturn

import httpx
from flwr.app import Message

from clients.client_app import app, reply_or_error
from clients.node.limits import USUAL, Limits
from clients.node.monitor import LOST, OUT_OF_MEMORY, Outcome, watch
from clients.policy.node_policy import RefusedError
from fl_ppseg.deployment.accounts import end_with_parent
from fl_ppseg.deployment.logs import sanitise
from fl_ppseg.flower.polling import Polling
from fl_ppseg.flower.tasks import (
    Bundle,
    Task,
    acquire_task,
    held_task,
    push_reply,
    queue_client,
    task_client,
)
from fl_ppseg.system.errors import RunError
from fl_ppseg.system.version import VERSION

logger = logging.getLogger("node")
"""Separate from the log of the state folder, which is the ClientApp's."""

POLL_SECONDS = 0.05
LONGEST_POLL_SECONDS = 1.0
AWAY_SECONDS = 1.0
BUNDLE = "fl-ppseg/fl-ppseg"
"""Publisher and name in pyproject.toml."""


@dataclass(frozen=True)
class Node:
    """What the app was started with; nothing in it comes from the SuperNode or the coordinator."""

    address: str
    """host:port of the SuperNode on this machine's loopback, without TLS."""
    secret: bytes = field(repr=False)
    """Authenticates this process to the SuperNode."""
    config: Mapping[str, str]
    """Paths of the owner's policy and of the app's own state, for the ClientApp."""
    pin: str | None = None
    """SHA-256 of the only bundle whose requests are answered; None: any of this version."""
    limits: Limits = USUAL
    """Limits of each request."""


def answer_tasks(node: Node) -> NoReturn:
    """Answer the SuperNode's tasks one after the other, indefinitely.

    Raises:
        RunError: An answer was lost; the SuperNode must be restarted.
    """
    client = queue_client(node.address, node.secret)
    polling = Polling(POLL_SECONDS, LONGEST_POLL_SECONDS)
    while True:
        try:
            token = acquire_task(client)
        except httpx.TransportError:  # the SuperNode is being started
            time.sleep(AWAY_SECONDS)
            continue
        if not token:
            time.sleep(polling.pause)
            continue
        answer_in_fork(node, token)
        polling.came()


def answer_in_fork(node: Node, token: str) -> None:
    """Answer one task in a forked process; if that exceeds a limit, report the failure instead.

    Raises:
        RunError: The process ended in another way, so that no answer was sent.
    """
    forks = multiprocessing.get_context("fork")  # all is imported, no thread runs
    receiver, sender = forks.Pipe(duplex=False)
    child = forks.Process(target=answer, args=(node, token, receiver, sender), daemon=True)
    child.start()
    sender.close()
    outcome = watch(child, receiver, node.limits)
    receiver.close()
    if outcome.why and not _report_failure(node, token, outcome):
        logger.error("a task ended with status %s and no answer", child.exitcode)
        raise RunError(f"a request was lost ({outcome.why}); restarting SuperNode and app")


def answer(node: Node, token: str, receiver: Connection, sender: Connection) -> None:
    """Answer one task, in a process of its own.

    Args:
        node: What the app was started with.
        token: Of the task.
        receiver: The parent's end of the pipe.
        sender: This process's end, for what the parent needs to report a failure.
    """
    end_with_parent()
    receiver.close()
    node.limits.apply()
    try:
        _answer(node, token, sender)
    except MemoryError:
        raise SystemExit(OUT_OF_MEMORY) from None
    except (Exception, KeyboardInterrupt) as error:
        logger.error(
            "a request could not be answered: %s", sanitise(f"{type(error).__name__}: {error}")
        )
        raise SystemExit(LOST) from None


def _answer(node: Node, token: str, sender: Connection) -> None:
    clock = [time.monotonic()]
    with held_task(task_client(node.address, token), sender) as (task, client):
        task.context.node_config = dict(node.config)  # paths never come from the SuperNode
        clock.append(time.monotonic())
        reply = respond(task, node.pin)
        clock.append(time.monotonic())
        push_reply(client, reply, task.context)
        clock.append(time.monotonic())
        kind = task.message.metadata.message_type
        logger.info(
            "%s: fetched in %.2f s, answered in %.2f s, sent in %.2f s", kind, *_gaps(clock)
        )


def respond(task: Task, pin: str | None) -> Message:
    """The reply to a task: from this machine's ClientApp, or a refusal."""

    def checked() -> Message:
        check_bundle(task.bundle, pin)
        return app(task.message, task.context)

    return reply_or_error(task.message, checked)


def check_bundle(bundle: Bundle, pin: str | None) -> None:
    """Check that a run uses the app that this node accepts.

    This node's own SuperNode passes on bundles that are too large, or not the pinned one, as empty.

    Raises:
        RefusedError: It is another app, another version or another bundle than the pinned one.
    """
    if pin is not None:
        if bundle.digest != pin:
            got = f"got {bundle.digest[:12]}" if bundle.content else "got one that was not read"
            raise RefusedError(f"refused: this node has pinned another bundle, {got}")
    elif not bundle.content:
        raise RefusedError(
            f"refused: expected a bundle of {BUNDLE} {VERSION}, got one that was not read"
        )
    elif (bundle.name, bundle.version) != (BUNDLE, VERSION):
        raise RefusedError(
            f"refused: this node runs {BUNDLE} {VERSION}, but the request is for another app "
            "or version"
        )


def _report_failure(node: Node, token: str, outcome: Outcome) -> bool:
    """Tell the coordinator why there is no answer; returns whether that succeeded."""
    if outcome.reply is None:
        return False
    logger.error("%s", outcome.why)
    try:
        with task_client(node.address, token) as client:
            outcome.push(client)
    except httpx.HTTPError as error:
        logger.error("the coordinator could not be told (%s)", type(error).__name__)
        return False
    return True


def _gaps(clock: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(clock)]
