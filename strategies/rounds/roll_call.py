"""The roll call: asks nodes for their city and role, at the start of a run and while it goes on.

Nodes come late, go, and come back, some under another id. Each look calls those that are new and
hears those that have answered; it never waits. A node that says something else than it should is
left out alone, by name and with the reason.
"""

import math
import time
from collections.abc import Iterable, Mapping

from flwr.app import Message, MessageType

from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import REFUSED, MessageError, pack_request, unpack_description
from fl_ppseg.federation.roles import Role
from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.progress.observer import RunObserver
from fl_ppseg.system.errors import RunError
from strategies.rounds.roster import Roster, TakenError
from strategies.rounds.wording import plain

CALL_AGAIN_SECONDS = 60.0
"""How long a node that has not introduced itself, or not well, is left alone."""
LOOK_SECONDS = 0.1
"""Between two looks while nodes are waited for."""
SAY_SECONDS = 15.0
"""Between two lines about nodes that are waited for."""


class RollCall:
    """Keeps the roster of a run up to date."""

    def __init__(
        self,
        grid: LazyGrid,
        request: Request,
        observer: RunObserver,
        expected: Mapping[str, Role] | None = None,
    ) -> None:
        """Call nobody yet.

        Args:
            grid: The nodes.
            request: A `describe` request of this run.
            observer: Is told who is left out.
            expected: Role of each city of the run; none: whoever comes is of it.
        """
        self.roster = Roster(expected=expected)
        self.present: frozenset[int] = frozenset()
        """Ids of the nodes that were connected at the last look."""
        self.rejected: list[str] = []
        """Who was left out, and why, each once."""
        self._grid = grid
        self._request = request
        self._observer = observer
        self._called: dict[int, float] = {}
        self._pending: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._refusing: set[int] = set()
        """Ids of nodes that answered that they will not take part."""

    def look(self) -> list[str]:
        """Call the nodes that are new and hear those that have answered.

        Returns:
            Who was left out at this look, and why.
        """
        num_known = len(self.rejected)
        self.present = frozenset(self._grid.get_node_ids())
        self._call(filter(self._is_due, sorted(self.present - self.roster.node_ids)))
        for message_id, node_id in list(self._pending.items()):
            reply = self._grid.pull_one(message_id)
            if reply is not None:
                del self._pending[message_id]
                self._hear(node_id, reply)
        return self.rejected[num_known:]

    def wait(self, num_nodes: int, quorum: int, seconds: float) -> None:
        """Look until all nodes are there; once the time is up, a quorum is enough, and said.

        Nobody waits for a node that refused: another policy or bundle is its owner's decision, and
        the run can be begun again after it.

        Args:
            num_nodes: Nodes that are expected.
            quorum: How many are enough to begin.
            seconds: How long to wait for the others.

        Raises:
            RunError: If the quorum is not there in time, or nobody who trains.
        """
        start = said = time.monotonic()
        while (found := self._look_and_count()) < num_nodes:
            now = time.monotonic()
            if now - start >= seconds or found + len(self._refusing) >= num_nodes:
                self._begin_without(found, num_nodes, quorum, min(seconds, now - start))
                return
            if now - said >= SAY_SECONDS:
                said = now
                left = seconds - (now - start)
                self._observer.message(f"{self._here(found, num_nodes)}; waiting {left:.0f} s")
            self.pause()

    def ask(self, node_id: int, seconds: float) -> str | None:
        """Ask a node who it is, only to see whether it answers: nothing comes of it here.

        Args:
            node_id: The node.
            seconds: How long the question stands.

        Returns:
            The question's id; None if it could not be sent.
        """
        question = Message(pack_request(self._request), node_id, MessageType.QUERY, ttl=seconds)
        (sent,) = self._grid.push_messages([question])
        return sent or None

    def answer_to(self, question: str) -> Message | None:
        """What a node, or Flower in its place, has answered to a question of `ask` by now."""
        return self._grid.pull_one(question)

    def pause(self) -> None:
        """Wait until the next look; ends with the run when that is stopped."""
        self._grid.pause(LOOK_SECONDS)

    def is_here(self, city: str) -> bool:
        """Whether the node of a city was connected at the last look."""
        return self.roster.of_city(city).node_id in self.present

    def _look_and_count(self) -> int:
        self.look()
        return len(self.roster.members)

    def _here(self, found: int, num_nodes: int) -> str:
        """Who is there; in a simulation all nodes are, but their processes take a while to load."""
        if len(self.present) < num_nodes:
            return f"{found} of {num_nodes} nodes are here"
        if not found:
            return f"{num_nodes} nodes are starting"
        return f"{found} of {num_nodes} nodes have started"

    def _begin_without(self, found: int, num_nodes: int, quorum: int, seconds: float) -> None:
        if found < quorum or not self.roster.with_role("train"):
            why = f" ({'; '.join(self.rejected[:3])})" if self.rejected else ""
            raise RunError(
                f"{found} of {num_nodes} nodes came within {math.ceil(seconds)} s, wanted "
                f"{max(quorum, 1)}, of which one trains{why}; start the others, or ask for fewer"
            )
        self._observer.message(
            f"beginning with {found} of {num_nodes} nodes; the others join when they come"
        )

    def _is_due(self, node_id: int) -> bool:
        called = self._called.get(node_id)
        return called is None or time.monotonic() - called >= CALL_AGAIN_SECONDS

    def _call(self, node_ids: Iterable[int]) -> None:
        question = pack_request(self._request)
        messages = [
            Message(question, node_id, MessageType.QUERY, ttl=CALL_AGAIN_SECONDS)
            for node_id in node_ids
        ]
        if not messages:
            return
        self._names = self._grid.names()
        self._grid.push_messages(messages)
        now = time.monotonic()
        for message in messages:
            self._called[message.metadata.dst_node_id] = now
            if message.metadata.message_id:
                self._pending[message.metadata.message_id] = message.metadata.dst_node_id

    def _hear(self, node_id: int, reply: Message) -> None:
        name = self._names.get(node_id, "")
        try:
            if reply.has_error():
                if reply.error.code == REFUSED:
                    self._refusing.add(node_id)
                raise MessageError(f"a node did not introduce itself: {reply.error.reason}")
            description = unpack_description(reply.content)
            if description.run_id != self._request.run_id:
                raise MessageError("a node introduced itself to another run")
            before = self.roster.admit(node_id, description, self.present, name)
            self._refusing.discard(node_id)
        except (MessageError, TakenError) as error:
            self._reject(plain(f"{name}: {error}" if name else str(error)))
            return
        if before is not None:
            self._observer.message(f"{description.city} is back as another node")

    def _reject(self, why: str) -> None:
        if why not in self.rejected:
            self.rejected.append(why)
            self._observer.message(why)
