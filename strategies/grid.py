"""A grid whose replies come one by one, each freed before the next is fetched.

`Strategy.start` hands the result of `send_and_receive` untouched to the aggregation; Flower's own
grids return a list of all replies. This wrapper pushes at once and returns a generator, so that a
streaming aggregation holds one reply at a time whatever the number of clients.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl_ppseg.errors import RunError

POLL_SECONDS = 0.05
"""Pause between two looks for replies."""


class StoppedError(RunError):
    """Waiting for replies was ended from outside."""


class LazyGrid(Grid):
    """Delegates to another grid; only `send_and_receive` differs."""

    def __init__(self, inner: Grid, stop: threading.Event | None = None) -> None:
        """Wrap a grid; when `stop` is set, waiting for replies ends with StoppedError."""
        self._inner = inner
        self._stop = stop or threading.Event()

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
        """Delegate."""
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Delegate."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Push all messages now; yield the replies as they come, until the timeout in seconds."""
        messages = list(messages)
        pushed = self._inner.push_messages(messages) if messages else []
        pending = [message_id for message_id in pushed if message_id]  # None: could not be sent
        del messages
        end = None if timeout is None else time.monotonic() + timeout
        return self._replies(pending, end)

    def _replies(self, pending: list[str], end: float | None) -> Iterator[Message]:
        while pending:
            arrived = False
            for message_id in list(pending):
                if self._stop.is_set():
                    raise StoppedError("stopped")
                for reply in self._inner.pull_messages([message_id]):
                    pending.remove(message_id)
                    arrived = True
                    yield reply
                    del reply
            if end is not None and time.monotonic() >= end:
                return
            if pending and not arrived:
                self._stop.wait(POLL_SECONDS)
