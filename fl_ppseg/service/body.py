"""The body of a request, read within bounds of size and time."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

from fastapi import HTTPException, Request

from fl_ppseg.service.limits import Limits

MEDIA_TYPE: Final = "image/png"


def check_media_type(request: Request) -> None:
    """Check that a request says it carries a PNG as it is.

    Raises:
        HTTPException: 415.
    """
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if said != MEDIA_TYPE or packed != "identity":
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"expected an encrypted PNG: Content-Type {MEDIA_TYPE}, no Content-Encoding",
        )


async def read_body(request: Request, limits: Limits) -> bytes:
    """What a request carries, whatever it says of its length.

    Raises:
        HTTPException: 413 for more bytes than are taken, 408 where they do not arrive in time.
        ClientDisconnect: The client has gone.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limits.max_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _collected(request.stream(), limits)
    except TimeoutError:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the image did not arrive within {limits.body_seconds:g} seconds",
            {"Connection": "close"},
        ) from None


async def _collected(stream: AsyncIterator[bytes], limits: Limits) -> bytes:
    found = bytearray()
    async for piece in stream:
        found += piece
        if len(found) > limits.max_bytes:
            raise _too_large(limits)
    return bytes(found)


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"a body of more than {limits.max_bytes} bytes; send a smaller image",
        {"Connection": "close"},
    )
