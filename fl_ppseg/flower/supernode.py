"""Flower's SuperNode with bounds on what the coordinator sends, and shorter waits.

Flower's own SuperNode unpacks the bundle that the coordinator ships, to read the run's settings in
its pyproject.toml: half a megabyte that unpacks to gigabytes ends the machine before anybody has
looked at the bundle's hash. Here no bundle is unpacked and no setting of it is read: nothing of
this program uses them. A bundle that is too large, or is not the one that the owner pinned, is
dropped as it comes; the app then refuses its requests. Every answer of the coordinator is bounded.

Flower asks for messages every 3 s, and for the reply to one every 0.5 s: with two messages a round
most of a short round is waiting. Here the pause grows with the time that nothing came.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from flwr.app.user_config import UserConfig
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

from fl_ppseg.flower.polling import Polling, look_soon

MAX_BODY = 32 * 2**20
"""Bytes of an answer of the coordinator. Models come in pieces of 5 MiB."""
MAX_BUNDLE = 8 * 2**20
"""Bytes of a bundle; ours has 0.6 MiB."""

SHORTEST_POLL_SECONDS = 0.2
"""Shortest pause between two questions for a message."""
LONGEST_POLL_SECONDS = 3.0
"""Longest: Flower's own, which tells it from the pauses in which it waits for a reply."""
REPLY_POLL_SECONDS, LONGEST_REPLY_POLL_SECONDS = 0.05, 0.5
"""Pauses between two looks for the reply to a message; the longest is Flower's own."""

NOTHING = hashlib.sha256(b"").hexdigest()


class TooLargeError(Exception):
    """An answer of the coordinator is larger than any that a node needs."""


class BoundedTransport(httpx.BaseTransport):
    """Hands on answers that are not packed and not too large."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            TooLargeError: The answer is packed, or says or turns out to be too large.
        """
        request.headers["accept-encoding"] = "identity"
        response = self._inner.handle_request(request)
        packed = response.headers.get("content-encoding", "identity")
        size = response.headers.get("content-length", "0")
        if packed != "identity" or not (size.isdecimal() and int(size[:20]) <= MAX_BODY):
            response.close()
            raise TooLargeError(
                f"the coordinator's answer is packed or too large: {packed}, {size}"
            )
        response.stream = _Bounded(response.stream)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class _Bounded(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        assert isinstance(inner, httpx.SyncByteStream)
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        left = MAX_BODY
        for piece in self._inner:
            left -= len(piece)
            if left < 0:
                raise TooLargeError(f"the coordinator's answer has more than {MAX_BODY} bytes")
            yield piece

    def close(self) -> None:
        self._inner.close()


class BoundedFleetClient(FleetHttpClient):
    """Flower's client of the coordinator, with bounded answers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client._transport = BoundedTransport(self._client._transport)


class Pauses:
    """Stands for the module `time` in Flower's SuperNode, which only sleeps: but for less long."""

    def __init__(self) -> None:
        self._messages = Polling(SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS)
        self._replies = Polling(REPLY_POLL_SECONDS, LONGEST_REPLY_POLL_SECONDS)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Wait for at most so many seconds: less after a message, as long when it stays quiet."""
        asked, other = self._messages, self._replies
        if seconds < LONGEST_POLL_SECONDS:  # a message is being answered
            asked, other = other, asked
        time.sleep(min(asked.pause, seconds))
        other.came()


class Bundles:
    """The way to runs and their bundles: a bundle that is not the pinned one comes empty."""

    def __init__(
        self,
        get_run: Callable[[int], Run],
        get_fab: Callable[[str, int], Fab],
        pin: str | None,
    ) -> None:
        self._get_run = get_run
        self._get_fab = get_fab
        self._pin = pin
        self._run: Run | None = None

    def run(self, run_id: int) -> Run:
        """What the coordinator says of a run."""
        self._run = self._get_run(run_id)
        return self._run

    def bundle(self, fab_hash: str, run_id: int) -> Fab:
        """The bundle of the run that was asked for last; nothing of it is read but its hash."""
        content = self._get_fab(fab_hash, run_id).content
        digest = hashlib.sha256(content).hexdigest()
        if len(content) > MAX_BUNDLE or digest != fab_hash or self._pin not in (None, digest):
            content, digest = b"", NOTHING
            if self._run is not None:
                self._run.fab_hash = digest  # under which Flower looks for it
        return Fab(digest, content, {})


def no_settings(bundle: object, run: Run) -> UserConfig:
    """The settings of a run for its nodes: none; the bundle is not opened."""
    return {}


def bound(pin: str | None) -> None:
    """Put the bounds and pauses into Flower's SuperNode; a name that Flower has changed raises."""
    connect = start_client_internal._init_connection

    @contextmanager
    def connected(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*args, **kwargs) as found:
            node_id, receive, send, get_run, get_fab, *others = found
            bundles = Bundles(get_run, get_fab, pin)
            yield node_id, receive, send, bundles.run, bundles.bundle, *others

    look_soon(start_client_internal, "pull_objects")
    for module, name, ours in (
        (start_client_internal, "_init_connection", connected),
        (start_client_internal, "get_fused_config_from_fab", no_settings),
        (start_client_internal, "time", Pauses()),
        (fleet_http_connection, "FleetHttpClient", BoundedFleetClient),
    ):
        getattr(module, name)
        setattr(module, name, ours)


def run_supernode(options: Sequence[str], pin: str | None) -> None:
    """Run a bounded SuperNode in this process until it is stopped.

    Args:
        options: Of `flower-supernode`.
        pin: SHA-256 of the only bundle that is kept; None: any.
    """
    bound(pin)
    sys.argv = ["flower-supernode", *options]
    flower_supernode()
