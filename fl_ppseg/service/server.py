"""The server: where it listens, over TLS or not, and how it ends."""

import asyncio
import ipaddress
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from fl_ppseg.system.errors import InputError

STOP_SECONDS: Final = 30
"""Time that accepted requests have when the service is stopped."""
MAX_CONNECTIONS: Final = 512
"""Open at once; further ones are answered 503."""
MAX_HEAD: Final = 2**14
"""Bytes of a request's head; uvicorn's faster parser has no such bound."""
IDLE_SECONDS: Final = 10
"""After which a connection that asks nothing more is closed."""
INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells count; after SIGTERM it is 0."""


@dataclass(frozen=True)
class Place:
    """Where the service listens."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    proxies: tuple[str, ...] = ()
    """Addresses of proxies in front, which do TLS and say whose request it is."""

    def url(self, port: int) -> str:
        """How the service is called that listens on a port there."""
        scheme = "http" if self.certificate is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{port}/"


def check_place(place: Place) -> None:
    """Check that one can listen there, and that nothing that is sent could be read on the way.

    Raises:
        InputError: It could, there is no such port, or certificate and key do not fit.
    """
    if not 0 <= place.port < 2**16:
        raise InputError(f"--port {place.port}: expected 0 to 65535")
    if (place.certificate is None) != (place.key is None):
        raise InputError("--tls-cert and --tls-key go together; give both")
    for proxy in place.proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise InputError(f"--behind-proxy {proxy}: expected an IP address or network") from None
    if place.certificate is not None and place.key is not None:
        _check_certificate(place.certificate, place.key)
    elif not place.proxies and not _is_loopback(place.host):
        raise InputError(
            f"--host {place.host}: others on the network could read what is sent there; give "
            "--tls-cert and --tls-key, or --behind-proxy ADDRESS if a proxy at ADDRESS does TLS"
        )


def serve(app: ASGIApp, place: Place, say: Callable[[str], None]) -> int:
    """Answer requests until SIGTERM or Ctrl-C; what was accepted is answered first.

    Args:
        app: What answers.
        place: Checked by `check_place`.
        say: Prints a line for the operator.

    Returns:
        The exit status.

    Raises:
        InputError: Another program listens there, or nobody may.
    """
    with _listening(place) as listener:
        url = place.url(listener.getsockname()[1])
        server = _Server(_config(app, place), lambda: say(f"listening at {url}"))
        asyncio.run(server.serve(sockets=[listener]))
    say("stopped; what was accepted is answered")
    return INTERRUPTED if server.signals[:1] == [signal.SIGINT] else 0


class _Server(uvicorn.Server):
    """Ends with an exit status of its own: uvicorn sends itself again the signal that ended it."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self.signals: list[int] = []
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        own = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self.handle_exit) for each in own}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.signals.append(sig)
        super().handle_exit(sig, frame)


def _config(app: ASGIApp, place: Place) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ssl_certfile=place.certificate,
        ssl_keyfile=place.key,
        proxy_headers=bool(place.proxies),
        forwarded_allow_ips=list(place.proxies),
        server_header=False,
        access_log=False,
        log_config=None,
        http="h11",
        h11_max_incomplete_event_size=MAX_HEAD,
        ws="none",
        lifespan="on",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


@contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        listener = socket.create_server((place.host, place.port), family=family, backlog=128)
    except OSError as error:
        raise InputError(f"{place.host} port {place.port}: {error.strerror or error}") from None
    with listener:
        # Connections inherit it. Else the body of an answer waits for the client to confirm its
        # head, which takes 40 ms: asyncio sees to it only where it made the socket itself.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def _is_loopback(host: str) -> bool:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}") from None
    return all(ipaddress.ip_address(each).is_loopback for each in found)


def _check_certificate(certificate: Path, key: Path) -> None:
    for file in (certificate, key):
        with file.open("rb"):  # whoever may not read it is told which
            pass
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{certificate}, {key}: no certificate with its unencrypted key, in PEM ({error})"
        ) from None
