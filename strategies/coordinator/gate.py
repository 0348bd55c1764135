"""The gate: HAProxy asks it who sends a request, before a byte of the request's body is read.

Flower's node signs the time of each request with its key, in headers. Flower itself looks at them
after it has read the body; so the proxy sends the three headers here first, over a socket in the
coordinator's folder, and is told the city, or nothing. The folder of enrolled keys is looked at for
every request: who is enrolled or revoked is so at once.
"""

import binascii
import os
import socketserver
import threading
from base64 import b64decode
from pathlib import Path
from typing import Self

from fl_ppseg.deployment.identity import read_public_key
from fl_ppseg.flower.fleet import is_signed_now
from fl_ppseg.system.errors import InputError
from strategies.coordinator.home import Home

MAX_LINE = 4096
"""Bytes of a question: the headers of a P-384 key are 600."""
ANSWER_SECONDS = 5.0
"""How long the proxy may take to ask."""


class Gate:
    """Answers HAProxy while it is entered."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seen: tuple[int, ...] = ()
        self._cities: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self._home.gate.unlink(missing_ok=True)
        folder = os.open(self._home.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:  # by descriptor: a socket's path may have 107 characters
            self._server = _Server(f"/proc/self/fd/{folder}/{self._home.gate.name}", self)
        finally:
            os.close(folder)
        self._home.gate.chmod(0o600)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._home.gate.unlink(missing_ok=True)

    def city_of(self, key: str, stamp: str, signature: str) -> str | None:
        """The city whose enrolled node has signed now; None: nobody's.

        Args:
            key: The node's public key, PEM in base64.
            stamp: When it signed, in ISO 8601.
            signature: Over the stamp, in base64.
        """
        try:
            public = b64decode(key, validate=True)
        except (ValueError, binascii.Error):
            return None
        city = self._enrolled().get(public)
        return city if city is not None and is_signed_now(public, stamp, signature) else None

    def _enrolled(self) -> dict[bytes, str]:
        """Cities by key, read again where the folder has changed."""
        with self._lock:
            paths = self._home.enrolled()
            seen = tuple(n for path in paths.values() for n in _version(path))
            if seen != self._seen:
                self._cities = {key: city for city, path in paths.items() for key in _keys(path)}
                self._seen = seen
            return self._cities


def _version(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0,)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _keys(path: Path) -> tuple[bytes, ...]:
    """The key in a file; none where it is gone or damaged, which must admit nobody."""
    try:
        return (read_public_key(path),)
    except (OSError, InputError):
        return ()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, gate: Gate) -> None:
        super().__init__(path, _Question)
        self.gate = gate


class _Question(socketserver.StreamRequestHandler):
    timeout = ANSWER_SECONDS
    server: _Server

    def handle(self) -> None:
        """Answer one line `key stamp signature` with one line: the city, or nothing."""
        try:
            asked = self.rfile.readline(MAX_LINE).decode("ascii").split(" ")
            city = self.server.gate.city_of(*map(str.strip, asked)) if len(asked) == 3 else None
            self.wfile.write(f"{city or ''}\n".encode())
        except (OSError, UnicodeError):
            return  # the proxy refuses what it gets no answer for
