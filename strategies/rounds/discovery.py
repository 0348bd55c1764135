"""Discovery: nodes are asked for their client and role, at the start of a run and during it.

Nodes connect late, disconnect and reconnect, some under another id. Each poll queries the new ones
and registers those that have answered; it never waits. A node whose introduction is wrong is left
out alone, by name and with the reason.
"""

import math
import time
from collections.abc import Iterable, Mapping

from flwr.app import Message, MessageType

from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import REFUSED, MessageError, pack_request, unpack_description
from fl_ppseg.federation.roles import Role
from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.progress.events import Notice
from fl_ppseg.progress.observer import Observer
from fl_ppseg.system.errors import RunError
from strategies.rounds.registry import RegistrationError, Registry
from strategies.rounds.sanitising import sanitise

QUERY_AGAIN_SECONDS = 60.0
"""Time after which a node that has not been registered is queried again."""
QUERY_SECONDS_A_NODE = 1.0
"""And so much more for each node that is queried at the same time: simulated ones take turns, and a
query that is too old when it is a node's turn is lost."""
POLL_SECONDS = 0.1
"""Time between two polls while the run waits for nodes."""
NOTIFY_SECONDS = 15.0
"""Time between two messages while the run waits for nodes."""


class Discovery:
    """Keeps the registry of a run up to date."""

    def __init__(
        self,
        grid: LazyGrid,
        request: Request,
        observer: Observer,
        expected: Mapping[str, Role] | None = None,
    ) -> None:
        """Query no node yet.

        Args:
            grid: The nodes.
            request: A `describe` request of this run.
            observer: Is told which nodes are left out.
            expected: Role of each client of the run; None: any client may register.
        """
        self.registry = Registry(expected=expected)
        self.connected: frozenset[int] = frozenset()
        """Ids of the nodes that were connected at the last poll."""
        self.rejected: list[str] = []
        """Nodes that were left out with the reason, each once."""
        self._grid = grid
        self._request = request
        self._observer = observer
        self._due: dict[int, float] = {}
        """When a node is queried again."""
        self._pending: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._refusing: set[int] = set()
        """Ids of nodes that refused to take part."""

    def poll(self) -> list[str]:
        """Query the nodes that are new and register those that have answered.

        Returns:
            The nodes that were left out at this poll, with the reason.
        """
        num_known = len(self.rejected)
        self.connected = frozenset(self._grid.get_node_ids())
        self._query(filter(self._is_due, sorted(self.connected - self.registry.node_ids)))
        for message_id, node_id in list(self._pending.items()):
            reply = self._grid.pull_one(message_id)
            if reply is not None:
                del self._pending[message_id]
                self._register(node_id, reply)
        return self.rejected[num_known:]

    def wait(self, num_nodes: int, quorum: int, seconds: float) -> None:
        """Poll until all nodes are registered; after the timeout, a quorum is enough.

        A node that refused is not waited for: another policy or bundle is its owner's decision, and
        the run can be started again after it.

        Args:
            num_nodes: Number of expected nodes.
            quorum: How many of them are enough to start.
            seconds: Timeout.

        Raises:
            RunError: If the quorum is not reached in time, or no node trains.
        """
        start = notified = time.monotonic()
        while (found := self._poll_and_count()) < num_nodes:
            now = time.monotonic()
            if now - start >= seconds or found + len(self._refusing) >= num_nodes:
                self._start_without(found, num_nodes, quorum, min(seconds, now - start))
                return
            if now - notified >= NOTIFY_SECONDS:
                notified = now
                left = seconds - (now - start)
                waiting = f"{self._progress(found, num_nodes)}; waiting {left:.0f} s"
                self._observer.on_event(Notice(waiting))
            self.pause()

    def send_probe(self, node_id: int, seconds: float) -> str | None:
        """Send a node a query that only shows whether it answers; the registry stays as it is.

        Args:
            node_id: The node.
            seconds: How long the query is valid.

        Returns:
            The probe's id; None if it could not be sent, or would show nothing: a real node answers
            one message after the other, a simulated one this query beside a long task.
        """
        if self._grid.is_simulated:
            return None
        probe = Message(pack_request(self._request), node_id, MessageType.QUERY, ttl=seconds)
        (sent,) = self._grid.push_messages([probe])
        return sent or None

    def pull_answer(self, probe_id: str) -> Message | None:
        """The answer of a node, or of Flower in its place, to a probe; None if there is none."""
        return self._grid.pull_one(probe_id)

    def pause(self) -> None:
        """Wait until the next poll; ends with the run when that is stopped."""
        self._grid.pause(POLL_SECONDS)

    def is_connected(self, client: str) -> bool:
        """Whether the node of a client was connected at the last poll."""
        member = self.registry.find(client)
        return member is not None and member.node_id in self.connected

    def _poll_and_count(self) -> int:
        self.poll()
        return len(self.registry.members)

    def _progress(self, found: int, num_nodes: int) -> str:
        """How many nodes are there; those of a simulation connect before they are loaded."""
        if len(self.connected) < num_nodes:
            return f"{found} of {num_nodes} nodes are registered"
        if not found:
            return f"{num_nodes} nodes are starting"
        return f"{found} of {num_nodes} nodes have started"

    def _start_without(self, found: int, num_nodes: int, quorum: int, seconds: float) -> None:
        if found < quorum or not self.registry.with_role("train"):
            why = f" ({'; '.join(self.rejected[:3])})" if self.rejected else ""
            raise RunError(
                f"expected {max(quorum, 1)} of {num_nodes} nodes within {math.ceil(seconds)} s, "
                f"one of them for training, got {found}{why}; start the others, or lower "
                "federation.min_replies"
            )
        starting = f"starting with {found} of {num_nodes} nodes; the others join when they connect"
        self._observer.on_event(Notice(starting))

    def _is_due(self, node_id: int) -> bool:
        return time.monotonic() >= self._due.get(node_id, 0.0)

    def _query(self, node_ids: Iterable[int]) -> None:
        query, asked = pack_request(self._request), list(node_ids)
        seconds = QUERY_AGAIN_SECONDS + QUERY_SECONDS_A_NODE * len(asked)
        messages = [Message(query, node_id, MessageType.QUERY, ttl=seconds) for node_id in asked]
        if not messages:
            return
        self._names = self._grid.names()
        self._grid.push_messages(messages)
        now = time.monotonic()
        for message in messages:
            self._due[message.metadata.dst_node_id] = now + seconds
            if message.metadata.message_id:
                self._pending[message.metadata.message_id] = message.metadata.dst_node_id

    def _register(self, node_id: int, reply: Message) -> None:
        name = self._names.get(node_id, "")
        try:
            if reply.has_error():
                if reply.error.code == REFUSED:
                    self._refusing.add(node_id)
                raise MessageError(f"a node did not introduce itself: {reply.error.reason}")
            description = unpack_description(reply.content)
            if description.run_id != self._request.run_id:
                raise MessageError("a node introduced itself to another run")
            before = self.registry.register(node_id, description, self.connected, name)
            self._refusing.discard(node_id)
        except (MessageError, RegistrationError) as error:
            self._reject(sanitise(f"{name}: {error}" if name else str(error)))
            return
        if before is not None:
            self._observer.on_event(Notice(f"{description.client} reconnected as another node"))

    def _reject(self, why: str) -> None:
        if why not in self.rejected:
            self.rejected.append(why)
            self._observer.on_event(Notice(why))
