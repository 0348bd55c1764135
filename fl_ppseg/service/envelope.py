"""What is around every answer: its headers, its count, a line of the log, and no traceback."""

import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fl_ppseg.service.metrics import Metrics

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer that does not say otherwise."""
GONE: Final = 499
"""Status of a request whose client did not wait, in figures and log; nobody is sent it."""
LOGGER: Final = logging.getLogger("fl_ppseg.service")


class Envelope:
    """Around an application; what it logs has no address, no body and no query."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str]) -> None:
        """Take the application.

        Args:
            app: What answers.
            metrics: Where requests are counted.
            routes: Paths that are counted each by itself; all others together are `other`.
        """
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0

        async def enveloped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, enveloped)
        except ClientDisconnect:
            status = status or GONE
        except Exception:
            LOGGER.exception("a request failed")
            if not status:
                await _failure(scope, receive, enveloped)
        finally:
            self._count(scope, status or GONE, time.perf_counter() - begin)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        LOGGER.info("%s %s %d %.3f s", scope["method"], route, status, seconds)


async def _failure(scope: Scope, receive: Receive, send: Send) -> None:
    answer = JSONResponse(
        {"detail": "this request failed; the service goes on"}, HTTPStatus.INTERNAL_SERVER_ERROR
    )
    await answer(scope, receive, send)
