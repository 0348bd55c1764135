"""The app's own process: takes tasks from the SuperNode and answers each with this machine's code.

Stands in the place of Flower's `flower-superexec` and `flwr-clientapp`. Flower unpacks the bundle
that the coordinator ships and imports it, in a new Python for every message. Here PyTorch and the
ClientApp are imported once, each message is answered by a fork of that process, and the bundle is
hashed and dropped. If Flower renames what this is made of, it fails to start; it does not fall back
to code that came over the wire.
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

from clients.client_app import app, or_error
from clients.node.limits import USUAL, Limits
from clients.node.watching import LOST, OUT_OF_MEMORY, Ended, watch
from clients.policy.policy import RefusedError
from fl_ppseg import __version__
from fl_ppseg.deployment.accounts import end_with_parent
from fl_ppseg.deployment.logs import sanitise
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

logger = logging.getLogger("node")
"""Apart from the log of the state folder, which is the ClientApp's."""

POLL_SECONDS = 0.25
AWAY_SECONDS = 1.0
BUNDLE = "fl-ppseg/fl-ppseg"
"""Publisher and name in pyproject.toml."""


@dataclass(frozen=True)
class Node:
    """What the app was started with; nothing of it comes from the SuperNode or the coordinator."""

    address: str
    """host:port of the SuperNode on this machine's loopback, without TLS."""
    secret: bytes = field(repr=False)
    """What the SuperNode knows this process by."""
    config: Mapping[str, str]
    """Where the ClientApp finds the owner's policy and its own state."""
    pin: str | None = None
    """SHA-256 of the only bundle whose requests are answered; None: any of this version."""
    limits: Limits = USUAL
    """What a request may take."""


def work(node: Node) -> NoReturn:
    """Answer the SuperNode's tasks, one after the other, for ever.

    Raises:
        RunError: An answer was lost; the SuperNode has to be started again.
    """
    client = queue_client(node.address, node.secret)
    while True:
        try:
            token = acquire_task(client)
        except httpx.TransportError:  # the SuperNode is being started
            time.sleep(AWAY_SECONDS)
            continue
        if not token:
            time.sleep(POLL_SECONDS)
            continue
        attend(node, token)


def attend(node: Node, token: str) -> None:
    """Have a fork answer one task, and answer in its place if it ends at a limit.

    Raises:
        RunError: It ended in another way, so that no answer is on its way.
    """
    forks = multiprocessing.get_context("fork")  # all is imported, no thread runs
    hears, tells = forks.Pipe(duplex=False)
    child = forks.Process(target=answer, args=(node, token, hears, tells), daemon=True)
    child.start()
    tells.close()
    ended = watch(child, hears, node.limits)
    hears.close()
    if ended.why and not _is_told(node, token, ended):
        logger.error("a task ended with status %s and no answer", child.exitcode)
        raise RunError(f"a request was lost ({ended.why}); SuperNode and app begin anew")


def answer(node: Node, token: str, hears: Connection, tells: Connection) -> None:
    """Answer one task, in a process of its own.

    Args:
        node: What the app was started with.
        token: Of the task.
        hears: The parent's end of the pipe.
        tells: Takes what the parent process needs to answer in this one's place.
    """
    end_with_parent()
    hears.close()
    node.limits.hold()
    try:
        _answer(node, token, tells)
    except MemoryError:
        raise SystemExit(OUT_OF_MEMORY) from None
    except (Exception, KeyboardInterrupt) as error:
        logger.error(
            "a request could not be answered: %s", sanitise(f"{type(error).__name__}: {error}")
        )
        raise SystemExit(LOST) from None


def _answer(node: Node, token: str, tells: Connection) -> None:
    clock = [time.monotonic()]
    with held_task(task_client(node.address, token), tells) as (task, client):
        task.context.node_config = dict(node.config)  # the SuperNode has no say in where things lie
        clock.append(time.monotonic())
        reply = respond(task, node.pin)
        clock.append(time.monotonic())
        push_reply(client, reply, task.context)
        clock.append(time.monotonic())
        kind = task.message.metadata.message_type
        logger.info(
            "%s: fetched in %.2f s, answered in %.2f s, handed over in %.2f s", kind, *_gaps(clock)
        )


def respond(task: Task, pin: str | None) -> Message:
    """The reply to a task: of this machine's ClientApp, or a refusal. Nothing else travels."""

    def checked() -> Message:
        check_bundle(task.bundle, pin)
        return app(task.message, task.context)

    return or_error(task.message, checked)


def check_bundle(bundle: Bundle, pin: str | None) -> None:
    """Find out whether a run is of the app that this node agreed to.

    Bundles that are too large, or not the pinned one, come empty from this node's own SuperNode.

    Raises:
        RefusedError: It is another app, another version or another bundle than the pinned one.
    """
    if pin is not None:
        if bundle.digest != pin:
            what = (
                f"than {bundle.digest[:12]}"
                if bundle.content
                else "; the one that came was not read"
            )
            raise RefusedError(f"refused: this node has pinned another bundle {what}")
    elif not bundle.content:
        raise RefusedError("refused: the bundle is no bundle of this program, and was not read")
    elif (bundle.name, bundle.version) != (BUNDLE, __version__):
        raise RefusedError(f"refused: this node runs {BUNDLE} {__version__}, asked was another")


def _is_told(node: Node, token: str, ended: Ended) -> bool:
    """Whether the coordinator could be told why there is no answer."""
    if ended.reply is None:
        return False
    logger.error("%s", ended.why)
    try:
        with task_client(node.address, token) as client:
            ended.push(client)
    except httpx.HTTPError as error:
        logger.error("and it could not be said (%s)", type(error).__name__)
        return False
    return True


def _gaps(clock: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(clock)]
