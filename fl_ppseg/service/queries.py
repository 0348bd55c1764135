"""From a request to its answer: let in, read, looked at, segmented, and written as was asked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.service.admission import Admission
from fl_ppseg.service.answers import Answer, AnswerKind, answer_of, png
from fl_ppseg.service.batching import Batcher, Size
from fl_ppseg.service.body import check_media_type, read_body
from fl_ppseg.service.cores import Cores
from fl_ppseg.service.limits import Limits
from fl_ppseg.service.metrics import Metrics
from fl_ppseg.service.plain_images import looks_plain
from fl_ppseg.service.query_image import read_query
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus

Attack = Callable[[Pixels], Pixels]
"""(3, H, W) uint8 ciphertext -> (3, H, W) uint8, what an attacker's network makes of it."""
Found = TypeVar("Found")


class Queries:
    """Answers queries. Images are coded in threads, models compute in others."""

    def __init__(self, segmenter: Segmenter, limits: Limits, attack: Attack | None) -> None:
        self.segmenter, self.limits, self.attack = segmenter, limits, attack
        self.metrics, self.admission = Metrics(), Admission(limits)
        self.metrics.inside.set_function(lambda: self.admission.num_inside)
        self._cores = Cores(segmenter.device)
        self._images = ThreadPoolExecutor(available_cpus(), "images")
        self._batcher = Batcher(
            segmenter, self._cores, limits, self.metrics, lambda: self.admission.num_inside
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer for the time of an `async with`."""
        with self._cores, self._images:
            async with self._batcher.running():
                yield

    async def segment(
        self, request: Request, kind: AnswerKind, height: int | None, width: int | None
    ) -> Answer:
        """Segment the query that a request carries.

        Args:
            request: Its body has not been read.
            kind: Of the answer.
            height: Of the answer, in pixels; None: that of the query.
            width: Likewise.

        Raises:
            HTTPException: The request is refused; see the functions that this calls.
            ClientDisconnect: The client has gone, and nothing is computed for it any more.
        """
        with self.admission.admitted(_host(request)):
            query = await self._read(request)
            size = height or query.shape[1], width or query.shape[2]
            self._check_answer(size)
            self._check_order(kind, query, size)
            found = await while_waited_for(request, self._batcher.segment(query, size))
            return await self._coded(answer_of, found, kind, self.segmenter.classes)

    async def reconstruct(self, request: Request) -> Answer:
        """What an attacker's network makes of the query that a request carries.

        Raises:
            HTTPException: The request is refused, 404 where there is no such network.
            ClientDisconnect: The client has gone.
        """
        if self.attack is None:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, "this service has no attacker's network for its model"
            )
        with self.admission.admitted(_host(request)):
            query = await self._read(request)
            seen = await while_waited_for(request, self._cores.compute(self.attack, query))
            return await self._coded(lambda: png(seen.transpose(1, 2, 0)))

    def _check_order(self, kind: AnswerKind, query: Pixels, size: Size) -> None:
        """Refuse what means nothing of labels in the order of a ciphertext."""
        if self.segmenter.spec.answers == "in-place":
            return
        if kind == "polygons" or size != (query.shape[1], query.shape[2]):
            raise HTTPException(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "this model's labels are in the order of the ciphertext's pixels: they have no "
                "outlines, and no other size than the query's",
            )

    def _check_answer(self, size: Size) -> None:
        if size[0] * size[1] > self.limits.max_pixels:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"an answer of {size[0]} x {size[1]} pixels (height x width); at most "
                f"{self.limits.max_pixels} pixels are sent",
            )

    async def _read(self, request: Request) -> Pixels:
        """The (3, H, W) uint8 query that a request carries, if the model takes it."""
        check_media_type(request)
        body = await read_body(request, self.limits)
        query = await self._coded(read_query, body, self.limits.max_pixels)
        try:
            self.segmenter.check_size(query.shape[1], query.shape[2])
        except InputError as error:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        if await self._coded(looks_plain, query, self.segmenter.spec):
            self.metrics.plain.inc()
            raise HTTPException(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "this looks like a plain image, not like a ciphertext of "
                f"{self.segmenter.spec.cipher}; it was not kept, but it has left your machine",
            )
        return query

    async def _coded(self, function: Callable[..., Found], *arguments: object) -> Found:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._images, function, *arguments)


async def while_waited_for(request: Request, work: Coroutine[None, None, Found]) -> Found:
    """The outcome of some work, which is called off when the client goes.

    Args:
        request: Its body has been read.
        work: What the client waits for.

    Raises:
        ClientDisconnect: The client has gone.
    """
    doing, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect
    finally:
        doing.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _host(request: Request) -> str:
    return request.client.host if request.client else ""
