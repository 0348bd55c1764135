"""A grid without processes: a message is answered when its reply is asked for."""

import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

COORDINATOR = 1
"""Node id of the sender; nodes count from 2."""


class InProcessGrid(Grid):
    """Calls the ClientApp of a node in this process, one message at a time."""

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        """Make nodes with partition ids 0 to num_nodes - 1."""
        self._client_app = client_app
        self._run = Run.create_empty(run_id=secrets.randbits(62))
        self._contexts = {
            COORDINATOR + 1 + partition_id: self._context(partition_id, num_nodes)
            for partition_id in range(num_nodes)
        }
        self._waiting: dict[str, Message] = {}
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = COORDINATOR
        TaskIdentity.task_id = 1

    def _context(self, partition_id: int, num_nodes: int) -> Context:
        node_config: UserConfig = {"partition-id": partition_id, "num-partitions": num_nodes}
        node_id = COORDINATOR + 1 + partition_id
        return Context(self._run.run_id, node_id, node_config, RecordDict(), {})

    def set_run(self, run: Any) -> None:
        """Replace the run information."""
        self._run = run

    @property
    def run(self) -> Any:
        """Run information."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages; each is worked on when its reply is pulled."""
        pushed = []
        for message in messages:
            message_id = secrets.token_hex(16)
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = message
            pushed.append(message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Answer the messages with these ids, one by one."""
        for message_id in message_ids:
            message = self._waiting.pop(message_id)
            yield self._client_app(message, self._contexts[message.metadata.dst_node_id])

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """All replies, one by one; there is nothing to wait for."""
        return self.pull_messages(self.push_messages(messages))


def run_in_process(server_app: ServerApp, client_app: ClientApp, num_nodes: int) -> None:
    """Run a ServerApp to its end over nodes in this process."""
    grid = InProcessGrid(client_app, num_nodes)
    server_app(grid, Context(grid.run.run_id, 0, {}, RecordDict(), {}))
