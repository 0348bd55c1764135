"""Batches read one step ahead."""

import threading
from collections.abc import Iterator

import pytest

from fl_ppseg.learning.batches import _one_ahead


def test_items_come_in_order_and_one_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    seen = []
    for item in _one_ahead(items()):
        seen.append(item)
        assert len(made) <= item + 2
    assert seen == [0, 1, 2, 3, 4]


def test_an_item_is_made_while_the_one_before_is_used() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        second.set()
        yield 1

    for _ in _one_ahead(items()):
        assert second.wait(10)


def test_what_goes_wrong_while_reading_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("a damaged shard")

    with pytest.raises(OSError, match="a damaged shard"):
        list(_one_ahead(items()))
