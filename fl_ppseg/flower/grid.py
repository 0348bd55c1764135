"""A grid whose replies come one by one, each freed before the next is fetched.

`Strategy.start` hands the result of `send_and_receive` untouched to the aggregation; Flower's own
grids return a list of all replies. This wrapper pushes at once and returns an iterator, so that a
streaming aggregation holds one reply at a time whatever the number of clients, and may send more
messages meanwhile.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.superlink.grid import InMemoryGrid, http_grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fl_ppseg.flower.polling import Polling, look_soon
from fl_ppseg.system.errors import RunError
from fl_ppseg.system.spans import span

logger = logging.getLogger(__name__)
look_soon(http_grid, "pull_objects")

POLL_SECONDS = 0.05
"""Shortest pause between two polls for replies."""
LONGEST_POLL_SECONDS = 1.0
"""Longest pause: on separate machines each poll is a request for each missing reply."""
GONE: Final = (
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
)
"""Flower's errors that say that a node or its process is gone, not what it replied."""
UNREADABLE = (
    UnexpectedObjectContentError,
    DecodeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
"""What Flower raises for a reply whose bytes are not a message: it must not end the run."""
UNREADABLE_CODE = 422


class StoppedError(RunError):
    """The run was stopped while it waited for replies."""


def simulates_all_nodes(grid: Grid) -> bool:
    """Whether all nodes of a grid are simulated in this process's machine, none is another's."""
    return isinstance(grid, InMemoryGrid)


class LazyGrid(Grid):
    """Delegates to another grid; only how messages are sent and received differs."""

    def __init__(self, inner: Grid, stop: threading.Event | None = None) -> None:
        """Wrap a grid; when `stop` is set, waiting for replies ends with StoppedError."""
        self._inner = inner
        self._stop = stop or threading.Event()

    @property
    def is_simulated(self) -> bool:
        """Whether its nodes are simulated: each may answer several messages at a time."""
        return simulates_all_nodes(self._inner)

    def set_run(self, run: Any) -> None:
        """Delegate."""
        self._inner.set_run(run)

    @property
    def run(self) -> Any:
        """Run information of the inner grid."""
        return self._inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Delegate."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Delegate."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages one at a time, each with its parts.

        A node asks for the parts of a message as soon as it knows of the message. Flower pushes
        all messages first and then the parts of all, for which every node would ask in vain.

        Returns:
            The id of each; empty or None where the SuperLink did not take it.
        """
        with span("wire"):
            return [next(iter(self._inner.push_messages([each])), "") for each in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Delegate."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> "Replies":
        """Push all messages now; the replies come as they are asked for, until the timeout."""
        return Replies(self, messages, timeout)

    def names(self) -> dict[int, str]:
        """The names under which nodes are enrolled, by node id; nameless ones are left out."""
        return {node.node_id: node.name for node in self._inner.get_nodes() if node.name}

    def pull_one(self, message_id: str) -> Message | None:
        """The reply to one message, if it is there; one that cannot be read is an error reply.

        Raises:
            StoppedError: The run was stopped.
        """
        self._check()
        try:
            with span("wire"):
                return next(iter(self._inner.pull_messages([message_id])), None)
        except UNREADABLE as error:
            logger.debug("reply to %s", message_id, exc_info=True)
            reason = f"reply is not a message ({type(error).__name__})"
            metadata = Metadata(0, "", 0, 0, message_id, "", time.time(), 0, SYSTEM_MESSAGE_TYPE)
            return make_message(metadata, error=Error(UNREADABLE_CODE, reason))

    def pause(self, seconds: float | None = None) -> None:
        """Wait a while, by default the shortest pause between two polls.

        Raises:
            StoppedError: The run was stopped.
        """
        self._stop.wait(POLL_SECONDS if seconds is None else seconds)
        self._check()

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError("stopped")


class Replies(Iterable[Message]):
    """The replies to messages, each fetched when it is asked for; more may be sent meanwhile."""

    def __init__(self, grid: LazyGrid, messages: Iterable[Message], timeout: float | None) -> None:
        """Push messages and wait, for `timeout` seconds at most; None: until all have come."""
        self._grid = grid
        self._end = None if timeout is None else time.monotonic() + timeout
        self._polling = Polling(POLL_SECONDS, LONGEST_POLL_SECONDS, share=0.05)
        self._poll_seconds = 0.0
        self.unsent: set[str] = set()
        """Ids of the messages that Flower refused: their node is no longer enrolled."""
        self._first = self.send(messages)

    def send(self, messages: Iterable[Message]) -> list[str]:
        """Push messages; returns the ids of those that were sent."""
        messages = list(messages)
        pushed = list(self._grid.push_messages(messages)) if messages else []
        self._polling.came()
        self.unsent = {message.metadata.message_id for message in messages} - set(pushed)
        return [message_id for message_id in pushed if message_id]  # None: not sent

    @property
    def seconds_quiet(self) -> float:
        """Seconds since the last reply came or messages were sent."""
        return self._polling.seconds_quiet

    @property
    def seconds_left(self) -> float:
        """Seconds until the timeout, 0 or more."""
        return max(0.0, self._end - time.monotonic()) if self._end is not None else float("inf")

    def poll(self, message_ids: Iterable[str]) -> Iterator[tuple[str, Message]]:
        """The replies to some messages, as far as they have come: (id of the message, reply)."""
        self._poll_seconds = 0.0
        for message_id in message_ids:
            begin = time.monotonic()
            reply = self._grid.pull_one(message_id)
            if reply is None:
                self._poll_seconds += time.monotonic() - begin
            else:
                self._polling.came()
                yield message_id, reply
            del reply

    def pause(self) -> None:
        """Wait until the next poll: the longer no reply has come, and the longer a poll takes."""
        usual = max(self._polling.pause, min(self._poll_seconds, LONGEST_POLL_SECONDS))
        self._grid.pause(min(usual, self.seconds_left))

    def __iter__(self) -> Iterator[Message]:
        """The replies to the first messages, as any strategy of Flower's takes them."""
        pending = self._first
        while pending:
            came = []
            for message_id, reply in self.poll(pending):
                came.append(message_id)
                yield reply
                del reply
            if not self.seconds_left:
                return
            pending = [known for known in pending if known not in came]
            if pending and not came:
                self.pause()
