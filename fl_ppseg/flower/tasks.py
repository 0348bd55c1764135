"""Tasks of a SuperNode, taken and answered by a process of this program's.

Flower's own `flower-superexec` and `flwr-clientapp` do the same with code that came over the wire.
All is done with Flower's own functions; if one is renamed, importing this fails.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast

from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    PullTaskInputResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fl_ppseg.flower.polling import look_soon

look_soon(run_clientapp, "pull_and_inflate_object_from_tree")
TaskClient = RuntimeHttpClient
"""Takes and answers tasks of a SuperNode."""

ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
TASK, MESSAGE, ANSWERED = b"T", b"M", b"A"
"""First bytes of what `Told` sends: ids of task, run and node; the message; that it is answered."""


@dataclass(frozen=True)
class Bundle:
    """The app that a run is of, as the coordinator ships it; never unpacked."""

    name: str
    """publisher/name, as the coordinator says."""
    version: str
    """As the coordinator says."""
    content: bytes
    """The bytes that came; none where the SuperNode dropped them."""

    @property
    def digest(self) -> str:
        """SHA-256 of the content in hex, whatever the coordinator says it is."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Task:
    """One message that is to be answered."""

    message: Message
    context: Context
    bundle: Bundle


@dataclass(frozen=True)
class TaskIds:
    """Of a task, of its run and of the node."""

    task: int
    run: int
    node: int


class Told:
    """Flower's client of the SuperNode, which tells a pipe what goes through it."""

    def __init__(self, client: RuntimeHttpClient, tells: Connection) -> None:
        self._client = client
        self._tells = tells

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def PullTaskInput(self, request: PullTaskInputRequest) -> PullTaskInputResponse:  # noqa: N802
        """Tell which task it is."""
        found = self._client.PullTaskInput(request)
        ids = (found.task_id, found.run.run_id, found.context.node_id)
        self._tells.send_bytes(TASK + " ".join(map(str, ids)).encode())
        return found

    def PullMessages(  # noqa: N802
        self, request: PullAppMessagesRequest
    ) -> PullAppMessagesResponse:
        """Tell which message it is, before its content comes."""
        found = self._client.PullMessages(request)
        for message in found.messages_list[:1]:
            self._tells.send_bytes(MESSAGE + message.SerializeToString())
        return found

    def PushMessages(  # noqa: N802
        self, request: PushAppMessagesRequest
    ) -> PushAppMessagesResponse:
        """Tell that there is an answer."""
        self._tells.send_bytes(ANSWERED)
        return self._client.PushMessages(request)


def queue_client(address: str, secret: bytes) -> RuntimeHttpClient:
    """A client that asks a SuperNode for tasks.

    Args:
        address: host:port of the SuperNode on this machine's loopback, without TLS.
        secret: What the SuperNode knows this process by.
    """
    signed = SuperExecAuthHttpInterceptor(
        master_secret=secret, protected_methods=frozenset({ACQUIRE})
    )
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    return RuntimeHttpClient(f"http://{address}", interceptors=[version, signed])


def acquire_task(client: RuntimeHttpClient) -> str:
    """The token of the next task; empty where there is none.

    Raises:
        httpx.TransportError: The SuperNode does not answer.
    """
    request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    return str(client.AcquireTask(request).token)


def task_client(address: str, token: str) -> RuntimeHttpClient:
    """A client that takes and answers the task of a token, and retries; use it in a `with`."""
    version = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp")
    return RuntimeHttpClient(
        f"http://{address}",
        interceptors=[version, RuntimeTokenHttpInterceptor(token)],
        retry_invoker=make_simple_http_retry_invoker(),
    )


@contextmanager
def held_task(client: RuntimeHttpClient, tells: Connection) -> Iterator[tuple[Task, Any]]:
    """Pull a task, and keep the SuperNode told that it is worked on.

    The process ends with its parent.

    Args:
        client: Of `task_client`; closed at the end.
        tells: Is told what goes through the client.

    Yields:
        The task, and the client that answers it.
    """
    start_parent_process_monitor(os.getppid())
    told = cast(RuntimeHttpClient, Told(client, tells))
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(told))
    heartbeat.start()
    message, context, run, fab = pull_task_input(told)
    yield Task(message, context, Bundle(run.fab_id, run.fab_version, fab.content)), told
    heartbeat.stop()
    client.close()


def push_reply(client: RuntimeHttpClient, reply: Message, context: Context) -> None:
    """Hand over the reply to a task that is done."""
    push_message(client, reply, context)
    push_task_output(client, context, SubStatus.COMPLETED, "")


def push_failure(client: RuntimeHttpClient, reply: Message, ids: TaskIds, why: str) -> None:
    """Hand over the reply to a task whose process is gone."""
    push_message(client, reply, Context(ids.run, ids.node, {}, RecordDict(), {}))
    push_task_output(client, None, SubStatus.FAILED, why)


def read_told(task: bytes, message: bytes) -> tuple[TaskIds, Message]:
    """What `Told` sent of a task, and take on its identity: replies bear it.

    Args:
        task: What follows TASK.
        message: What follows MESSAGE.

    Raises:
        ValueError: It is something else.
    """
    try:
        ids = TaskIds(*map(int, task.split()))
        found = message_from_proto(MessageProto.FromString(message))
    except (TypeError, DecodeError) as error:
        raise ValueError(f"not what a task tells of itself ({type(error).__name__})") from None
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = ids.task, ids.run, ids.node
    return ids, found
