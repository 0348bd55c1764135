"""The proxy under attack: a real HAProxy and gate on the loopback, before a link that counts."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from ports import free_ports
from small_coordinator import public_key

from strategies.coordinator import proxy
from strategies.coordinator.command import main
from strategies.coordinator.gate import Gate
from strategies.coordinator.home import Home

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (apt-get install)"),
]
MB = 2**20
FEW = 20
"""Connections of one address in these tests, which take their time on a machine that is busy."""
SMALLER = {
    "timeout http-request 10s": "timeout http-request 4s",
    f"sc0_conn_cur gt {proxy.PER_ADDRESS}": f"sc0_conn_cur gt {FEW}",
}


class Counting(BaseHTTPRequestHandler):
    """A SuperLink that reads bodies, as Flower's does, before it asks who sends them."""

    protocol_version = "HTTP/1.1"
    num_bytes = 0
    num_requests = 0
    status = 200
    lock = threading.Lock()

    def do_POST(self) -> None:
        with self.lock:
            Counting.num_requests += 1
        left = int(self.headers["content-length"])
        while left > 0 and (part := self.rfile.read1(min(left, 2**16))):  # type: ignore[attr-defined]
            with self.lock:
                Counting.num_bytes += len(part)
            left -= len(part)
        if not left:
            self.send_response(Counting.status)
            self.send_header("content-length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def closed_if_refused(link: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        link.close()
        raise


@dataclass
class Site:
    """A coordinator's proxy, and the keys of two nodes of which aachen is enrolled."""

    home: Home
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    links: list[ssl.SSLSocket] = field(default_factory=list)

    def headers(self, whose: str, by: str | None = None, age: float = 0.0) -> dict[str, str]:
        """What a node sends along: its key, the time, and a signature."""
        stamp = (now() - timedelta(seconds=age)).isoformat()
        key = public_key_to_bytes(self.keys[whose].public_key())
        signature = sign_message(self.keys[by or whose], stamp.encode())
        values = (b64encode(key).decode(), stamp, b64encode(signature).decode())
        return dict(zip(proxy.SIGNED_HEADERS, values, strict=True))

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        trust = ssl.create_default_context(cafile=self.home.authority.certificate)
        place = ("127.0.0.1", self.home.settings.port)
        link = socket.create_connection(place, timeout=20, source_address=(source, 0))
        with closed_if_refused(link):
            self.links.append(trust.wrap_socket(link, server_hostname="localhost"))
        return self.links[-1]

    def ask(
        self,
        headers: dict[str, str],
        length: int | str = 4,
        sent: int = 4,
        source: str = "127.0.0.1",
        link: ssl.SSLSocket | None = None,
        wait: float = 5.0,
    ) -> tuple[int, ssl.SSLSocket]:
        """The status of a request of which `sent` bytes are sent; 0: none came in time."""
        link = link or self.connect(source)
        lines = [f"POST {proxy.NODE_PATHS[0]} HTTP/1.1", "host: localhost"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        link.sendall("\r\n".join([*lines, f"content-length: {length}", "", ""]).encode())
        with suppress(OSError):  # refused before all of it is sent
            link.sendall(b"x" * sent)
        link.settimeout(wait)
        try:
            status = link.recv(2**16).split(b" ")[1]
        except (TimeoutError, IndexError):
            return 0, link
        return int(status), link


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port, link_port = free_ports(2)
    ports = ["--port", str(port), "--link-port", str(link_port), "--bind", "127.0.0.1"]
    home = Home(folder / "home with blanks" / ("so long a name " * 9).strip())
    assert main(["init", "--home", str(home.folder), "--host", "localhost", *ports]) == 0
    site = Site(home)
    for client in ("aachen", "bochum"):
        public_key(folder, client)
        key = serialization.load_ssh_private_key((folder / f"{client}.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        site.keys[client] = key
    assert main(["enrol", "--home", str(home.folder), "aachen", str(folder / "aachen.pub")]) == 0
    proxy.write_proxy(home)
    smaller = home.proxy_config.read_text()
    for ours, in_tests in SMALLER.items():
        assert ours in smaller
        smaller = smaller.replace(ours, in_tests)
    home.proxy_config.write_text(smaller)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home.link.certificate, home.link.key)
    with ExitStack() as stack:
        link = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", link_port), Counting))
        link.daemon_threads = True
        link.socket = context.wrap_socket(
            link.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=link.serve_forever, daemon=True).start()
        stack.callback(link.shutdown)
        stack.enter_context(Gate(home))
        command = ["haproxy", "-db", "-f", home.proxy_config.name]
        running = stack.enter_context(subprocess.Popen(command, cwd=home.folder))
        stack.callback(running.kill)
        for _ in range(100):
            with suppress(ConnectionError):
                site.connect().close()
                break
            time.sleep(0.1)
        yield site


@pytest.fixture(autouse=True)
def _from_zero(site: Site) -> Iterator[None]:
    Counting.num_bytes = Counting.num_requests = 0
    Counting.status = 200
    yield
    while site.links:
        site.links.pop().close()


def closed(link: ssl.SSLSocket, seconds: float) -> bool:
    """Whether the proxy ends a connection in time."""
    link.settimeout(seconds)
    try:
        while link.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_an_enrolled_node_comes_through(site: Site) -> None:
    status, link = site.ask(site.headers("aachen"), 5 * MB, 5 * MB)
    assert (status, Counting.num_bytes) == (200, 5 * MB)
    for _ in range(3):  # on the same connection
        status, link = site.ask(site.headers("aachen"), link=link)
        assert status == 200


def test_a_node_is_asked_to_try_again_when_the_superlink_fails(site: Site) -> None:
    Counting.status = 500  # its database is locked: Flower's node drops a message after that
    assert site.ask(site.headers("aachen"))[0] == 503
    assert Counting.num_requests == 1


STRANGERS = {
    "no word of who it is": {},
    "a key that nobody enrolled": {"whose": "bochum"},
    "another's key, which is public": {"whose": "aachen", "by": "bochum"},
    "yesterday's signature": {"whose": "aachen", "age": 86400.0},
    "tomorrow's signature": {"whose": "aachen", "age": -86400.0},
}


@pytest.mark.parametrize("case", STRANGERS)
def test_nobody_else_reaches_a_byte_of_a_body(case: str, site: Site) -> None:
    options = STRANGERS[case]
    headers = site.headers(**options) if options else {}  # type: ignore[arg-type]
    status, link = site.ask(headers, MB, 2**18)
    assert status == 401
    assert closed(link, 5)
    assert (Counting.num_requests, Counting.num_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (2**32 + 4, 413),
        (2**64 + 4, 400),
        (proxy.MAX_REQUEST_BYTES + 1, 413),
        ("00000004", 413),
        ("-4", 400),
        ("4, 5", 400),
        ("4\r\ncontent-length: 5", 400),
        ("4\r\ntransfer-encoding: chunked", 400),
        ("4\r\nflwr-timestamp: 2020-01-01", 401),
    ],
)
def test_lengths_that_wrap_or_contradict_are_refused(
    length: int | str, status: int, site: Site
) -> None:
    """2^32 + 4 passed a rule of 32 MiB: HAProxy's integers have 32 bits."""
    found, link = site.ask(site.headers("aachen"), length, 1 * MB)
    assert found == status
    assert closed(link, 5)
    assert Counting.num_bytes == 0


def test_http_2_is_not_spoken_whatever_comes_first(site: Site) -> None:
    """Many requests in one connection would be beyond what is counted by connection."""
    link = site.connect()
    link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    link.settimeout(5)
    answer = link.recv(2**16)
    assert not answer or answer.startswith(b"HTTP/1.")
    assert closed(link, 5)
    assert Counting.num_requests == 0


def test_bodies_that_owe_their_last_byte_are_few(site: Site) -> None:
    """One node's, and from one address; before, 30 of them took 520 MB."""
    for _ in range(proxy.PER_CLIENT + 14):
        site.ask(site.headers("aachen"), MB, MB // 2, wait=0.05)
    assert 0 < Counting.num_requests <= proxy.PER_CLIENT
    assert Counting.num_bytes <= proxy.PER_CLIENT * MB


def test_slow_connections_of_one_address_shut_nobody_out(site: Site) -> None:
    """They are few at a time, and each ends soon; before, 2048 of them held the proxy for ever."""
    held, start = [], time.monotonic()
    while len(held) < FEW + 20 and time.monotonic() - start < 3.5:
        try:
            held.append(site.connect("127.0.0.3"))
            held[-1].sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n")
        except OSError:
            break
    assert len(held) == FEW
    status, _ = site.ask(site.headers("aachen"), source="127.0.0.2")
    assert status == 200
    with suppress(OSError):
        held[-1].sendall(b"x: y\r\n")  # a byte now and then
    assert closed(held[-1], 8)
    assert Counting.num_requests == 1


def test_who_is_enrolled_or_revoked_is_so_at_the_next_request(site: Site, tmp_path: Path) -> None:
    status, link = site.ask(site.headers("aachen"))
    assert status == 200
    key = site.home.nodes / "aachen.pub"
    key.rename(tmp_path / "kept")
    try:
        status, link = site.ask(site.headers("aachen"), link=link)
        assert status == 401
    finally:
        (tmp_path / "kept").rename(key)
    assert site.ask(site.headers("aachen"))[0] == 200
    key.rename(tmp_path / "kept")
    key.write_bytes(b"ssh-ed25519 damaged\n")
    try:
        assert site.ask(site.headers("aachen"))[0] == 401
    finally:
        (tmp_path / "kept").rename(key)


def test_without_the_gate_nothing_comes_through(site: Site) -> None:
    away = site.home.gate.with_name("away.sock")
    site.home.gate.rename(away)
    try:
        assert site.ask(site.headers("aachen"))[0] == 503  # which Flower's node tries again
    finally:
        away.rename(site.home.gate)
    assert Counting.num_requests == 0
