"""The gate: HAProxy asks it which node sends a request, before it reads the request's body.

Flower's node signs the time of each request with its key, in headers. Flower itself checks them
after it has read the body; so the proxy sends the three headers here first, over a socket in the
coordinator's folder, and gets the client, or nothing. The folder of enrolled keys is checked for
every request: enrolment and revocation take effect at once.
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
"""Longest query in bytes: the headers of a P-384 key have 600."""
ANSWER_SECONDS = 5.0
"""Time that the proxy may take to send its query."""


class Gate:
    """Answers HAProxy; a context manager."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seen: tuple[int, ...] = ()
        self._clients: dict[bytes, str] = {}
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

    def client_of(self, key: str, stamp: str, signature: str) -> str | None:
        """The client whose enrolled node has just signed; None if there is none.

        Args:
            key: The node's public key, PEM in base64.
            stamp: Time of the signature, in ISO 8601.
            signature: Over the stamp, in base64.
        """
        try:
            public = b64decode(key, validate=True)
        except (ValueError, binascii.Error):
            return None
        client = self._enrolled().get(public)
        return client if client is not None and is_signed_now(public, stamp, signature) else None

    def _enrolled(self) -> dict[bytes, str]:
        """Clients by key, read again where the folder has changed."""
        with self._lock:
            paths = self._home.enrolled()
            seen = tuple(n for path in paths.values() for n in _version(path))
            if seen != self._seen:
                self._clients = {
                    key: client for client, path in paths.items() for key in _keys(path)
                }
                self._seen = seen
            return self._clients


def _version(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0,)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _keys(path: Path) -> tuple[bytes, ...]:
    """The key in a file; none if it is missing or damaged, which must admit no node."""
    try:
        return (read_public_key(path),)
    except (OSError, InputError):
        return ()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, gate: Gate) -> None:
        super().__init__(path, _Query)
        self.gate = gate


class _Query(socketserver.StreamRequestHandler):
    timeout = ANSWER_SECONDS
    server: _Server

    def handle(self) -> None:
        """Answer one line `key stamp signature` with one line: the client, or nothing."""
        try:
            asked = self.rfile.readline(MAX_LINE).decode("ascii").split(" ")
            client = self.server.gate.client_of(*map(str.strip, asked)) if len(asked) == 3 else None
            self.wfile.write(f"{client or ''}\n".encode())
        except (OSError, UnicodeError):
            return  # without an answer the proxy refuses the request
