"""The app's own process: takes tasks from the SuperNode and answers each with this machine's code.

Stands in the place of Flower's `flower-superexec` and `flwr-clientapp`. Flower unpacks the bundle
that the coordinator ships and imports it, in a new Python for every message. Here PyTorch and the
ClientApp are imported once, each message is answered by a fork of that process, and the bundle is
hashed and dropped. All is written with Flower's own functions; if one is renamed, this fails to
start, it does not fall back to code that came over the wire.
"""

import hashlib
import logging
import multiprocessing
import os
import time
from itertools import pairwise

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from clients.client_app import app, or_error
from clients.policy import RefusedError
from fl_ppseg import __version__

logger = logging.getLogger("node")
"""Apart from the log that the owner's policy names, which is the ClientApp's."""

POLL_SECONDS = 0.25
AWAY_SECONDS = 1.0
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
BUNDLE = "fl-ppseg/fl-ppseg"
"""Publisher and name in pyproject.toml."""


def work(address: str, secret: bytes, pin: str | None) -> None:
    """Answer the SuperNode's tasks, one after the other, for ever.

    Args:
        address: host:port of the SuperNode on this machine's loopback, without TLS.
        secret: What the SuperNode knows this process by.
        pin: SHA-256 of the only bundle whose requests are answered; None: any of this version.
    """
    signed = SuperExecAuthHttpInterceptor(
        master_secret=secret, protected_methods=frozenset({ACQUIRE})
    )
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    client = RuntimeHttpClient(f"http://{address}", interceptors=[version, signed])
    wanted = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    forks = multiprocessing.get_context("fork")  # all is imported, no thread runs
    while True:
        try:
            found = client.AcquireTask(wanted)
        except httpx.TransportError:  # the SuperNode is being started
            time.sleep(AWAY_SECONDS)
            continue
        if not found.token:
            time.sleep(POLL_SECONDS)
            continue
        child = forks.Process(target=answer, args=(address, found.token, pin), daemon=True)
        child.start()
        child.join()
        if child.exitcode:
            logger.error("a task ended with status %s and no answer", child.exitcode)


def answer(address: str, token: str, pin: str | None) -> None:
    """Answer one task.

    Args:
        address: host:port of the SuperNode.
        token: Of the task.
        pin: As in `work`.
    """
    start_parent_process_monitor(os.getppid())
    clock = [time.monotonic()]
    version = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp")
    client = RuntimeHttpClient(
        f"http://{address}",
        interceptors=[version, RuntimeTokenHttpInterceptor(token)],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    message, context, run, bundle = pull_task_input(client)
    clock.append(time.monotonic())
    reply = respond(message, context, run, bundle, pin)
    clock.append(time.monotonic())
    push_message(client, reply, context)
    push_task_output(client, context, SubStatus.COMPLETED, "")
    clock.append(time.monotonic())
    kind = message.metadata.message_type
    logger.info(
        "%s: fetched in %.2f s, answered in %.2f s, handed over in %.2f s", kind, *_gaps(clock)
    )
    heartbeat.stop()
    client.close()


def respond(message: Message, context: Context, run: Run, bundle: Fab, pin: str | None) -> Message:
    """The reply to a message: of this machine's ClientApp, or a refusal. Nothing else travels."""

    def checked() -> Message:
        check_bundle(run, bundle, pin)
        return app(message, context)

    return or_error(message, checked)


def check_bundle(run: Run, bundle: Fab, pin: str | None) -> None:
    """Find out whether a run is of the app that this node agreed to.

    The hash is taken of the bundle's bytes, whatever the coordinator says it is.

    Raises:
        RefusedError: It is another app, another version or another bundle than the pinned one.
    """
    if pin is not None:
        digest = hashlib.sha256(bundle.content).hexdigest()
        if digest != pin:
            raise RefusedError(f"refused: this node has pinned another bundle than {digest[:12]}")
    elif (run.fab_id, run.fab_version) != (BUNDLE, __version__):
        raise RefusedError(f"refused: this node runs {BUNDLE} {__version__}, asked was another")


def _gaps(clock: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(clock)]
