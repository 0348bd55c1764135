"""The app with a real SuperNode's interface: requests that go too far, and the ones after them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import PYTHONPATH
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as MessageProto
from test_node_limits import held

from clients.client_app import FAILED

APP = """
import os, sys, time
from flwr.app import ConfigRecord, Message, RecordDict
from clients.node import app
from clients.node.limits import Limits
from small_supernode import SECRET

def fine(message, context):
    assert dict(context.node_config) == {"policy": "p", "state": "s"}, context.node_config
    return Message(RecordDict({"x": ConfigRecord({"pid": os.getpid()})}), reply_to=message)

def eat(message, context):
    kept = []
    while True:
        kept.append(bytearray(2**29))

def wait(message, context):
    time.sleep(600)

def leave(message, context):
    os._exit(1)

def kill(message, context):
    os.kill(os.getpid(), 9)

kinds = [globals()[name] for name in sys.argv[2].split(",")]
app.app = lambda message, context: kinds[message.content["x"]["number"]](message, context)
limits = Limits(memory=float(sys.argv[3]), seconds=10.0)
config = {"policy": "p", "state": "s"}
app.answer_tasks(app.Node(f"127.0.0.1:{sys.argv[1]}", SECRET, config, None, limits))
"""


def wait_for(path: Path, *processes: "subprocess.Popen[bytes]") -> Path:
    end = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    return path


@pytest.mark.timeout(250)
def test_whatever_a_request_does_the_coordinator_is_answered(tmp_path: Path) -> None:
    kinds = "fine,eat,fine,wait,leave,fine"
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    python = [sys.executable, "-m", "small_supernode", str(tmp_path), str(kinds.count(",") + 1)]
    with subprocess.Popen(python, env=environment) as supernode:
        try:
            port = wait_for(tmp_path / "port", supernode).read_text()
            memory = f"{held() + 0.7:.1f}"
            command = [sys.executable, "-c", APP, port, kinds, memory]
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as app:
                try:
                    wait_for(tmp_path / "answer-5", app)
                finally:
                    app.kill()
        finally:
            supernode.kill()
    found = [(tmp_path / f"answer-{number}").read_bytes() for number in range(6)]
    answers = [message_from_proto(MessageProto.FromString(each)) for each in found]
    assert [answer.has_error() for answer in answers] == [False, True, False, True, True, False]
    assert {answers[number].error.code for number in (1, 3, 4)} == {FAILED}
    assert "ran out of memory" in answers[1].error.reason
    assert "took longer than this node's limit of 10 s" in answers[3].error.reason
    assert "more memory or threads" in answers[4].error.reason
    assert len({answer.metadata.reply_to_message_id for answer in answers} - {""}) == 6


@pytest.mark.timeout(250)
def test_after_a_kill_the_app_ends_in_a_line_so_that_both_begin_anew(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    python = [sys.executable, "-m", "small_supernode", str(tmp_path), "1"]
    with subprocess.Popen(python, env=environment) as supernode:
        try:
            port = wait_for(tmp_path / "port", supernode).read_text()
            command = [sys.executable, "-c", APP, port, "kill", f"{held() + 0.7:.1f}"]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=100
            )
        finally:
            supernode.send_signal(signal.SIGKILL)
    assert not (tmp_path / "answer-0").exists()
    assert "a task ended with status -9 and no answer" in done.stderr
    assert "RunError: a request was lost" in done.stderr
