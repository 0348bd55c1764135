"""A request that eats a node is ended with one clear reply, and the next one is answered."""

import faulthandler
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.runtime_pb2 import (
    PullAppMessagesResponse,
    PullTaskInputResponse,
    PushAppMessagesResponse,
    PushTaskOutputResponse,
    SendTaskHeartbeatResponse,
)
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from clients.client_app import FAILED
from clients.node import app, monitor
from clients.node.app import BUNDLE, Node, answer_in_fork
from clients.node.limits import GIB, Limits
from fl_ppseg import __version__
from fl_ppseg.flower import tasks
from fl_ppseg.flower.tasks import MESSAGE, TASK, Told
from fl_ppseg.system.errors import RunError

CONFIG = {"policy": "/owner/policy.yaml", "state": "/app/state"}


def held() -> float:
    """GiB that this process has for itself already, which a fork of it begins with."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmData" in x]
    return int(line.split()[1]) / 2**20


class SuperNode:
    """A SuperNode with one task; what is pushed from a fork is written to a file."""

    def __init__(self, place: Path) -> None:
        self.pushed = place / "pushed"
        self.reachable = True
        self.message = Message(RecordDict({"x": ConfigRecord()}), 7, MessageType.TRAIN)
        self.message.metadata.__dict__["_message_id"] = "m"

    def __enter__(self) -> "SuperNode":
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def PullTaskInput(self, _: object) -> PullTaskInputResponse:  # noqa: N802
        found = PullTaskInputResponse(task_id=3)
        found.run.run_id, found.context.node_id = 7, 7
        return found

    def PullMessages(self, _: object) -> PullAppMessagesResponse:  # noqa: N802
        return PullAppMessagesResponse(messages_list=[message_to_proto(self.message)])

    def SendTaskHeartbeat(self, _: object) -> SendTaskHeartbeatResponse:  # noqa: N802
        return SendTaskHeartbeatResponse(success=True)

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:  # noqa: N802
        if not self.reachable:
            raise httpx.ConnectError("gone")
        self.pushed.write_bytes(request.messages_list[0].SerializeToString())
        return PushAppMessagesResponse()

    def PushObject(self, _: object) -> None: ...  # noqa: N802

    def PushTaskOutput(self, _: object) -> PushTaskOutputResponse:  # noqa: N802
        return PushTaskOutputResponse()

    def reply(self) -> Message:
        from flwr.proto.message_pb2 import Message as MessageProto

        return message_from_proto(MessageProto.FromString(self.pushed.read_bytes()))


@pytest.fixture
def supernode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SuperNode]:
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 7, raising=False)
        setattr(TaskIdentity, name, 7)
    made = SuperNode(tmp_path)

    def pull(client: Told) -> tuple[Message, Context, Run, Fab]:
        client.PullTaskInput(None)  # type: ignore[arg-type]
        client.PullMessages(None)  # type: ignore[arg-type]
        run = Run.create_empty(7)
        run.fab_id, run.fab_version = BUNDLE, __version__
        lies = {"policy": "/tmp/policy.yaml", "state": "/root"}
        return made.message, Context(7, 7, lies, RecordDict(), {}), run, Fab("", b"x", {})

    monkeypatch.setattr(app, "task_client", lambda *_: made)
    monkeypatch.setattr(tasks, "pull_task_input", pull)
    yield made


def node(**limits: Any) -> Node:
    given = {"memory": held() + 1.0, "seconds": 60.0} | limits
    return Node("127.0.0.1:1", b"secret", CONFIG, None, Limits(**given))


def fine(message: Message, context: Context) -> Message:
    assert dict(context.node_config) == CONFIG  # whatever the SuperNode says
    return Message(RecordDict({"x": ConfigRecord()}), reply_to=message)


def eat(_: Message, __: Context) -> Message:
    torch.set_num_threads(1)  # threads of earlier tests in this process are not in its fork
    kept = []
    while True:
        kept.append(torch.ones(2**26))


def eat_bytes(_: Message, __: Context) -> Message:
    kept = []
    while True:
        kept.append(bytearray(2**26))


def many_threads(message: Message, _: Context) -> Message:
    faulthandler.disable()  # this may end in a crash
    torch.set_num_threads(100_000)
    torch.ones(2**22).exp().sum()
    return fine(message, _)


def spin(_: Message, __: Context) -> Message:
    while True:
        pass


def wait(_: Message, __: Context) -> Message:
    time.sleep(600)
    raise AssertionError


def crash(number: int) -> Callable[[Message, Context], Message]:
    def die(_: Message, __: Context) -> Message:
        faulthandler.disable()  # or pytest's would print the whole of this on purpose
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)  # other tests of this process leave theirs
        os.kill(os.getpid(), number)
        raise AssertionError

    return die


def leave(status: int) -> Callable[[Message, Context], Message]:
    return lambda _, __: os._exit(status)


@pytest.mark.parametrize(
    ("request_does", "limits", "words"),
    [
        (eat, {}, "ran out of memory"),
        (eat_bytes, {}, "ran out of memory"),
        (many_threads, {}, "the node"),
        (spin, {"seconds": 2.0}, "took longer than this node's limit of 2 s"),
        (wait, {"seconds": 2.0}, "took longer than this node's limit of 2 s"),
        (crash(signal.SIGXCPU), {}, "took more processor time than this node's limit"),
        (crash(signal.SIGSEGV), {}, "more memory or threads than this node's limit"),
        (crash(signal.SIGABRT), {}, "more memory or threads than this node's limit"),
        (leave(1), {}, "more memory or threads than this node's limit"),  # as libgomp does
        (leave(monitor.OUT_OF_MEMORY), {}, "more memory or threads than this node's limit"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_that_goes_too_far_is_told_so_and_the_next_is_answered(
    request_does: Callable[[Message, Context], Message],
    limits: dict[str, float],
    words: str,
    supernode: SuperNode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "app", request_does)
    begin = time.monotonic()
    answer_in_fork(node(**limits), "token")
    assert time.monotonic() - begin < 30
    reply = supernode.reply()
    assert reply.error.code == FAILED
    assert words in reply.error.reason
    assert reply.metadata.reply_to_message_id == "m"
    supernode.pushed.unlink()
    monkeypatch.setattr(app, "app", fine)
    answer_in_fork(node(), "token")
    assert not supernode.reply().has_error()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_somebody_kills_is_asked_for_again(
    number: int,
    supernode: SuperNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody can say that the request was too much: SuperNode and app begin anew, as before."""
    monkeypatch.setattr(app, "app", crash(number))
    with pytest.raises(RunError, match="a request was lost"):
        answer_in_fork(node(), "token")
    assert f"a task ended with status {-number} and no answer" in caplog.text
    assert not supernode.pushed.exists()


def test_where_the_supernode_is_gone_nothing_is_claimed(
    supernode: SuperNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    supernode.reachable = False
    monkeypatch.setattr(app, "app", fine)
    with pytest.raises(RunError, match="a request was lost"):
        answer_in_fork(node(), "token")
    monkeypatch.setattr(app, "app", leave(1))
    with pytest.raises(RunError, match="a request was lost"):
        answer_in_fork(node(), "token")


def test_a_process_that_tells_nonsense_is_not_believed(
    supernode: SuperNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works on what came over the wire, so that what it tells may be anybody's words."""

    def tell(node: Node, token: str, sender: Any) -> None:
        for word in (b"", b"Znothing", TASK + b"1 2", MESSAGE + b"\xff" * 99, TASK + b"1 2 3"):
            sender.send_bytes(word)
        sender.send_bytes(b"x" * (monitor.MAX_MESSAGE_BYTES + 1))
        os._exit(1)

    monkeypatch.setattr(app, "_answer", tell)
    with pytest.raises(RunError, match="a request was lost"):
        answer_in_fork(node(), "token")
    assert not supernode.pushed.exists()


def test_the_limits_are_the_forks_own(
    supernode: SuperNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def show(message: Message, context: Context) -> Message:
        found = [
            resource.getrlimit(which)[0] for which in (resource.RLIMIT_DATA, resource.RLIMIT_CPU)
        ]
        (tmp_path / "found").write_text(f"{found} {len(os.sched_getaffinity(0))}")
        return fine(message, context)

    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(app, "app", show)
    answer_in_fork(node(memory=5.0, seconds=9.0, cpus=1), "token")
    assert (tmp_path / "found").read_text() == f"{[5 * GIB, 10]} 1"
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_options_give_the_limits_to_the_next_process() -> None:
    assert Limits(2.5, 60.0, 3).options() == [
        *("--max-memory", "2.5", "--max-seconds", "60", "--max-cpus", "3")
    ]
    assert Limits().options() == ["--max-memory", "8", "--max-seconds", "3600"]
