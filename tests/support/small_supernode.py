"""The part of a SuperNode that an app talks to, real, with messages but without a SuperLink.

    python -m small_supernode FOLDER NUM_MESSAGES

Writes its port to FOLDER/port, and each answer that it is given to FOLDER/answer-N.
"""

import hashlib
import sys
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.cli.flower_supernode import SuperNodeLifespanConfig, _start_supernode_http_api
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message
from ports import free_ports

from fl_ppseg import __version__

SECRET = b"s" * 32
RUN_ID = 7
BUNDLE = b"what the coordinator ships"
SECONDS = 120.0


def serve(folder: Path, num_messages: int) -> None:
    for name in ("run_id", "node_id", "task_id"):
        setattr(TaskIdentity, name, RUN_ID)
    factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    (port,) = free_ports(1)
    server, thread = _start_supernode_http_api(configured(port), factory)
    state, store = factory.state(), factory.objectstore_factory.store()
    state.set_node_id(RUN_ID)
    run = Run.create_empty(RUN_ID)
    run.fab_id, run.fab_version = "fl-ppseg/fl-ppseg", __version__
    run.fab_hash = hashlib.sha256(BUNDLE).hexdigest()
    state.store_run(run)
    state.store_fab(Fab(run.fab_hash, BUNDLE, {}))
    lies = {"policy": "/tmp/policy.yaml", "state": "/root"}
    state.set_run_series_context(run.series_id, Context(RUN_ID, RUN_ID, lies, RecordDict(), {}))
    (folder / "port.new").write_text(str(port))
    (folder / "port.new").rename(folder / "port")
    for number in range(num_messages):
        content = RecordDict({"x": ConfigRecord({"number": number})})
        state.create_task(task_type=TaskType.CLIENT_APP, run_id=RUN_ID, fab_hash=run.fab_hash)
        _insert_message(Message(content, RUN_ID, MessageType.TRAIN), state, store)
        end = time.monotonic() + SECONDS
        while not (answers := state.get_messages_legacy(is_reply=True)):
            if time.monotonic() > end:
                raise TimeoutError(number)
            time.sleep(0.05)
        answer = message_to_proto(answers[0]).SerializeToString()
        (folder / "new").write_bytes(answer)
        (folder / "new").rename(folder / f"answer-{number}")
    server.should_exit = True
    thread.join()


def configured(port: int) -> SuperNodeLifespanConfig:
    values = dict.fromkeys(SuperNodeLifespanConfig.__dataclass_fields__)
    values |= {"superexec_auth_secret": SECRET, "host": "127.0.0.1", "port": port}
    return SuperNodeLifespanConfig(**values)  # type: ignore[arg-type]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
