"""Queries that arrive together are segmented together; who has gone is left out."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import small_service as small
import torch

from fl_ppseg.inference.segmenter import Segmentation
from fl_ppseg.service import batching, cores
from fl_ppseg.service.batching import Batcher
from fl_ppseg.service.cores import Cores
from fl_ppseg.service.limits import Limits
from fl_ppseg.service.metrics import Metrics

SIZE = (4, 4)
pytestmark = pytest.mark.usefixtures("one_thread")


class SlowModel:
    """Answers with the first value of each query, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def segment_batch(self, queries: np.ndarray, size: tuple[int, int]) -> list[Segmentation]:
        self.may_go.wait(10)
        self.batches.append([int(query[0, 0, 0]) for query in queries])
        if 99 in self.batches[-1]:
            raise RuntimeError("no such query")
        return [
            Segmentation(np.full(size, query[0, 0, 0]), np.ones(size, np.float32))
            for query in queries
        ]


def query(value: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((3, *size), value, np.uint8)


@pytest.fixture(autouse=True)
def one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cpus", lambda: 1)


def run(
    model: Any, act: Callable[[Batcher], Awaitable[None]], num_inside: int = 99, **limits: Any
) -> None:
    async def whole() -> None:
        own = Cores(torch.device("cpu"))
        batcher = Batcher(model, own, Limits(**limits), Metrics(), lambda: num_inside)
        with own:
            async with batcher.running():
                await asyncio.wait_for(act(batcher), 20)

    asyncio.run(whole())


def test_queries_of_one_size_share_batches_and_each_gets_its_own_answer() -> None:
    model = SlowModel()

    async def act(batcher: Batcher) -> None:
        values = [1, 2, 3, 4, 5]
        found = await asyncio.gather(*(batcher.segment(query(v), SIZE) for v in values))
        assert [int(each.labels[0, 0]) for each in found] == values

    run(model, act, max_batch=2, batch_seconds=0.01)
    assert model.batches == [[1, 2], [3, 4], [5]]


def test_other_sizes_are_batches_of_their_own_the_oldest_first() -> None:
    model = SlowModel()

    async def act(batcher: Batcher) -> None:
        mixed = [(1, SIZE), (2, (8, 8)), (3, SIZE), (4, (8, 8))]
        await asyncio.gather(*(batcher.segment(query(v, size), size) for v, size in mixed))
        await batcher.segment(query(5), (8, 8))

    run(model, act, batch_seconds=0.01)
    assert model.batches == [[1, 3], [2, 4], [5]]


def test_large_queries_share_no_batch_beyond_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BATCH_PIXELS", 2 * SIZE[0] * SIZE[1])
    model = SlowModel()

    async def act(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.segment(query(v), SIZE) for v in (1, 2, 3)))
        await asyncio.gather(*(batcher.segment(query(v), (8, 8)) for v in (4, 5)))

    run(model, act, batch_seconds=0.01)
    assert model.batches == [[1, 2], [3], [4], [5]]


def test_who_stopped_waiting_is_not_computed_for() -> None:
    model = SlowModel()
    model.may_go.clear()

    async def act(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.segment(query(1), SIZE))
        await asyncio.sleep(0.1)  # the model has it
        others = [asyncio.create_task(batcher.segment(query(v), SIZE)) for v in (2, 3)]
        await asyncio.sleep(0.05)
        others[0].cancel()
        await asyncio.sleep(0.01)
        model.may_go.set()
        assert int((await others[1]).labels[0, 0]) == 3
        assert int((await first).labels[0, 0]) == 1

    run(model, act, batch_seconds=0.0)
    assert model.batches == [[1], [3]]


def test_a_batch_that_fails_fails_alone() -> None:
    model = SlowModel()

    async def act(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="no such query"):
            await batcher.segment(query(99), SIZE)
        assert int((await batcher.segment(query(7), SIZE)).labels[0, 0]) == 7

    run(model, act)


def test_a_batch_gives_what_each_query_gives_alone() -> None:
    model = small.segmenter()
    images = [small.query() for _ in range(3)]

    async def act(batcher: Batcher) -> None:
        found = await asyncio.gather(*(batcher.segment(each, small.SIZE) for each in images))
        for image, answer in zip(images, found, strict=True):
            (alone,) = model.segment_batch(image[None])
            np.testing.assert_allclose(answer.confidence, alone.confidence, atol=1e-5)
            assert (answer.labels == alone.labels).mean() > 0.999

    run(model, act, batch_seconds=0.05)


def test_nobody_waits_for_others_where_there_are_none() -> None:
    model = SlowModel()

    async def act(batcher: Batcher) -> None:
        for value in (1, 2):
            await batcher.segment(query(value), SIZE)

    run(model, act, num_inside=1, batch_seconds=60.0)  # waiting would end the test
    assert model.batches == [[1], [2]]


def test_batches_side_by_side_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cpus", lambda: 2)
    both, threads = threading.Barrier(2), []

    class Two(SlowModel):
        def segment_batch(self, queries: np.ndarray, size: tuple[int, int]) -> list[Segmentation]:
            threads.append(torch.get_num_threads())
            if queries[0, 0, 0, 0]:
                both.wait(10)  # broken where they compute one after the other
            return super().segment_batch(queries, size)

    async def act(batcher: Batcher) -> None:
        await batcher.segment(query(0), SIZE)
        await asyncio.gather(*(batcher.segment(query(v), SIZE) for v in (1, 2)))

    model = Two()
    run(model, act, max_batch=1)
    assert sorted(model.batches) == [[0], [1], [2]]
    assert threads[0] == 2 and threads[-1] == 1  # alone on both; the last beside another


def test_batches_side_by_side_have_the_pixels_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cpus", lambda: 2)
    monkeypatch.setattr(batching, "BATCH_PIXELS", 4 * SIZE[0] * SIZE[1])
    model = SlowModel()

    async def act(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.segment(query(v), SIZE) for v in (1, 2, 3, 4)))

    run(model, act, batch_seconds=0.01)
    assert sorted(model.batches) == [[1, 2], [3, 4]]
