"""Queries of one size that arrive together are segmented together, in threads beside the loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fl_ppseg.inference.segmenter import Segmentation, Segmenter
from fl_ppseg.service.cores import Cores
from fl_ppseg.service.limits import Limits
from fl_ppseg.service.metrics import Metrics
from fl_ppseg.system.arrays import Pixels

BATCH_PIXELS: Final = 2**23
"""Of the queries of all batches at one time, and of their answers: four of 1024 x 2048."""
Size = tuple[int, int]


@dataclass(eq=False)
class _Waiting:
    query: Pixels
    size: Size
    answer: asyncio.Future[Segmentation]
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def kind(self) -> tuple[tuple[int, ...], Size]:
        return self.query.shape, self.size


class Batcher:
    """Hands queries to the model, the oldest first, those of its size with it.

    Whoever stops waiting for an answer takes the query back, unless the model has it already.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        cores: Cores,
        limits: Limits,
        metrics: Metrics,
        num_inside: Callable[[], int],
    ) -> None:
        """Take the model.

        Args:
            segmenter: The model.
            cores: Where it computes.
            limits: Of batches, and of the time that a query waits for others.
            metrics: Where batches are counted.
            num_inside: Tells how many requests are in work, those that wait here among them.
        """
        self._segmenter, self._cores, self._limits = segmenter, cores, limits
        self._metrics, self._num_inside = metrics, num_inside
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer queries for the time of an `async with`."""
        work = asyncio.create_task(self._work())
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def segment(self, query: Pixels, size: Size) -> Segmentation:
        """(3, H, W) uint8 -> its segmentation at `size` = (h, w)."""
        own = _Waiting(query, size, asyncio.get_running_loop().create_future())
        self._waiting.append(own)
        self._arrived.set()
        return await own.answer

    async def _work(self) -> None:
        free = asyncio.Semaphore(self._cores.num_jobs)
        async with asyncio.TaskGroup() as answering:
            while True:
                await free.acquire()  # first: what waits meanwhile goes together
                batch = await self._next()
                answering.create_task(self._answer(batch)).add_done_callback(
                    lambda _: free.release()
                )

    async def _next(self) -> list[_Waiting]:
        while True:
            await self._arrived.wait()
            await self._filled()
            batch = self._taken()
            if batch:
                return batch

    async def _filled(self) -> None:
        """Wait until the next batch is full, or its oldest query has waited long enough.

        Nobody waits where all requests are here already: no other is about to come.
        """
        while self._waiting:
            oldest = self._waiting[0]
            last = oldest.since + self._limits.batch_seconds
            left = last - asyncio.get_running_loop().time()
            is_full = len(self._like(oldest)) == self._most(oldest)
            if left <= 0 or is_full or self._num_inside() <= len(self._waiting):
                return
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrived.wait()

    def _taken(self) -> list[_Waiting]:
        """The next batch, of queries that somebody waits for."""
        self._waiting = [each for each in self._waiting if not each.answer.done()]
        batch = self._like(self._waiting[0]) if self._waiting else []
        self._waiting = [each for each in self._waiting if each not in batch]
        (self._arrived.set if self._waiting else self._arrived.clear)()
        return batch

    def _like(self, oldest: _Waiting) -> list[_Waiting]:
        same = [each for each in self._waiting if each.kind == oldest.kind]
        return same[: self._most(oldest)]

    def _most(self, one: _Waiting) -> int:
        _, height, width = one.query.shape
        pixels = max(height * width, one.size[0] * one.size[1])
        most = BATCH_PIXELS // self._cores.num_jobs // pixels
        return max(1, min(self._limits.max_batch, int(most)))

    async def _answer(self, batch: list[_Waiting]) -> None:
        self._metrics.batch_size.observe(len(batch))
        queries, size = np.stack([each.query for each in batch]), batch[0].size
        try:
            with self._metrics.model_seconds.time():
                found = await self._cores.compute(self._segmenter.segment_batch, queries, size)
        except Exception as error:
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, answer in zip(batch, found, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)
