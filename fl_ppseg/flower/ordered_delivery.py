"""Messages of a simulation go to its nodes in the order in which they are sent, without a search.

Flower 1.41's simulation looks for the messages of each node among those of all nodes, ten times a
second: with 1,000 nodes at work it takes a core for itself. Here the state of the simulation notes
what is stored, and a message is handed out as soon as it is. If Flower renames what is replaced,
`ordered_delivery` raises.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, Queue, SimpleQueue
from threading import Event
from typing import Any, Final

from flwr.app import Message
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.linkstate import InMemoryLinkState, linkstate_factory
from flwr.supercore.date import now

STOP_SECONDS: Final = 0.1
"""After so long the end of a simulation is noticed."""


class OrderedLinkState(InMemoryLinkState):
    """Flower's state of a simulation, which knows the order of its messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: SimpleQueue[str] = SimpleQueue()

    def store_message_ins(self, message: Message) -> str | None:
        """Store a message to a node, and note it."""
        message_id = super().store_message_ins(message)
        if message_id is not None:
            self._sent.put(message_id)
        return message_id

    def take(self, seconds: float) -> Message | None:
        """The next message, delivered from now on; None: there is none in time, or it is void."""
        try:
            message_id = self._sent.get(timeout=seconds)
        except Empty:
            return None
        with self.lock:
            self._check_stored_messages({message_id})
            message = self.message_ins_store.get(message_id)
            if message is None or message.metadata.delivered_at:
                return None
            message.metadata.delivered_at = now().isoformat()
            return message


def hand_out(
    state: OrderedLinkState, queue: Queue[Message], nodes: Mapping[int, int], stop: Event
) -> None:
    """Put messages into the queue of the workers until the simulation ends."""
    while not stop.is_set():
        message = state.take(STOP_SECONDS)
        if message is not None:
            queue.put(message)


@contextmanager
def ordered_delivery() -> Iterator[None]:
    """Simulations that begin meanwhile deliver in order; a name that Flower has changed raises."""
    replaced: tuple[tuple[Any, str, Any], ...] = (
        (linkstate_factory, "InMemoryLinkState", OrderedLinkState),
        (vce_api, "add_messages_to_queue", hand_out),
    )
    before = [getattr(module, name) for module, name, _ in replaced]
    for module, name, ours in replaced:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for (module, name, _), was in zip(replaced, before, strict=True):
            setattr(module, name, was)
