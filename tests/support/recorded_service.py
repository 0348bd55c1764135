"""A service that listens, and notes every byte that reaches it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI
from ports import free_ports
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    raw: bytes
    """Method, path, query and headers."""
    body: bytes = b""

    @property
    def everything(self) -> bytes:
        return self.raw + self.body


@dataclass
class RecordedService:
    """Where it listens, and what it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)

    def posted(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]


@contextmanager
def recorded_service(app: FastAPI) -> Iterator[RecordedService]:
    """Run an application in a thread of its own."""
    (port,) = free_ports(1)
    found = RecordedService(f"http://127.0.0.1:{port}/")
    config = uvicorn.Config(
        _recording(app, found.requests), port=port, log_level="warning", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            assert thread.is_alive(), "the service did not start"
        yield found
    finally:
        server.should_exit = True
        thread.join(30)


def _recording(app: ASGIApp, requests: list[Request]) -> ASGIApp:
    async def recording(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        lines = [scope["method"].encode(), scope["raw_path"], scope["query_string"]]
        lines += [name + b": " + value for name, value in scope["headers"]]
        request = Request(scope["method"], scope["path"], b"\n".join(lines))
        requests.append(request)

        async def noted() -> Message:
            message = await receive()
            request.body += message.get("body", b"")
            return message

        await app(scope, noted, send)

    return recording
