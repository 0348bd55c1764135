"""The lazy grid over an inner grid whose replies come when the test says."""

import gc
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fl_ppseg.flower import grid as lazy
from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.system.errors import RunError

pytestmark = pytest.mark.usefixtures("quick_collection")


@pytest.fixture(autouse=True)
def _flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower wants to know before it makes a message; and no long pauses."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(lazy, "POLL_SECONDS", 0.001)


class ScriptedGrid(Grid):
    """Answers message k at the k-th number of looks; None is never."""

    def __init__(self, arrivals: Sequence[int | None]) -> None:
        self._arrivals = dict(enumerate(arrivals))
        self.looks = 0
        self.alive: list[weakref.ref[Message]] = []
        self.most_alive = 0
        self.pushed = 0
        self.batches: list[int] = []
        """Number of messages at each push."""
        self.refused: set[int] = set()
        """Messages that cannot be sent: their id is None."""
        self.unanswered: set[int] = set()
        """Messages that are too large: Flower answers with no id."""
        self.fails_at: int | None = None

    def set_run(self, run: Any) -> None:
        self.set = run

    @property
    def run(self) -> Any:
        return "the run"

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return Message(RecordDict(), args[2], args[1])

    def get_node_ids(self) -> Iterable[int]:
        return [7, 9]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        first = self.pushed
        if first == self.fails_at:
            raise ConnectionError("no SuperLink")
        self.batches.append(len(list(messages)))
        self.pushed += self.batches[-1]
        if first in self.unanswered:
            return []
        return [str(k) if k not in self.refused else None for k in range(first, self.pushed)]  # type: ignore[misc]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        gc.collect()
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self.alive))
        self.looks += 1
        for message_id in message_ids:
            arrival = self._arrivals[int(message_id)]
            if arrival is not None and self.looks >= arrival:
                message = Message(RecordDict(), int(message_id), "train")
                self.alive.append(weakref.ref(message))
                yield message
                del message

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        raise AssertionError("the lazy grid has its own")


def messages(number: int) -> list[Message]:
    return [Message(RecordDict(), k, "train") for k in range(number)]


def numbers(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.dst_node_id for reply in replies]


def test_a_reply_is_handed_on_before_the_others_exist() -> None:
    inner = ScriptedGrid([None, 5])
    stop = threading.Event()
    replies = iter(LazyGrid(inner, stop).send_and_receive(messages(2)))
    assert next(replies).metadata.dst_node_id == 1
    assert inner.looks < 10
    stop.set()
    with pytest.raises(RunError, match="stopped"):
        next(replies)


def test_messages_are_pushed_before_a_reply_is_asked_for() -> None:
    inner = ScriptedGrid([1, 1, 1])
    replies = LazyGrid(inner).send_and_receive(iter(messages(3)))
    assert (inner.batches, inner.looks) == ([1, 1, 1], 0)
    assert sorted(numbers(replies)) == [0, 1, 2]


def test_replies_come_once_each_in_the_order_of_arrival() -> None:
    inner = ScriptedGrid([30, 1, 20, 10])
    assert numbers(LazyGrid(inner).send_and_receive(messages(4))) == [1, 3, 2, 0]


def test_a_reply_that_its_taker_drops_is_free_before_the_next_is_fetched() -> None:
    inner = ScriptedGrid([1] * 20)
    seen = 0
    for reply in LazyGrid(inner).send_and_receive(messages(20)):
        seen += 1
        del reply
    assert seen == 20
    assert inner.most_alive == 0


def test_the_timeout_ends_the_waiting_with_what_came() -> None:
    start = time.monotonic()
    replies = LazyGrid(ScriptedGrid([1, None])).send_and_receive(messages(2), timeout=0.1)
    assert numbers(replies) == [0]
    assert 0.1 <= time.monotonic() - start < 20


def test_replies_that_are_there_at_the_timeout_are_taken() -> None:
    replies = LazyGrid(ScriptedGrid([1, 1, None])).send_and_receive(messages(3), timeout=0)
    assert numbers(replies) == [0, 1]


def test_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(RunError, match="stopped"):
        list(LazyGrid(ScriptedGrid([None]), stop).send_and_receive(messages(1)))


def test_stop_ends_a_run_between_two_replies_that_are_there() -> None:
    stop = threading.Event()
    inner = ScriptedGrid([1, 1, 1])
    taken = []
    with pytest.raises(RunError, match="stopped"):
        for reply in LazyGrid(inner, stop).send_and_receive(messages(3)):
            taken.append(reply)
            stop.set()
    assert len(taken) == 1


def test_what_could_not_be_sent_is_not_waited_for() -> None:
    inner = ScriptedGrid([1, None, 2])
    inner.refused = {1}
    assert sorted(numbers(LazyGrid(inner).send_and_receive(messages(3)))) == [0, 2]


def test_a_message_that_is_too_large_does_not_take_others_along() -> None:
    inner = ScriptedGrid([1, None, 2])
    inner.unanswered = {1}
    grid = LazyGrid(inner)
    assert list(grid.push_messages(messages(3))) == ["0", "", "2"]
    inner.pushed = 0
    assert sorted(numbers(grid.send_and_receive(messages(3)))) == [0, 2]


def test_a_push_that_fails_ends_the_sending() -> None:
    inner = ScriptedGrid([1, 1, 1])
    inner.fails_at = 1
    with pytest.raises(ConnectionError, match="no SuperLink"):
        LazyGrid(inner).send_and_receive(messages(3))
    assert inner.batches == [1]


def test_nothing_sent_is_nothing_received() -> None:
    inner = ScriptedGrid([])
    assert list(LazyGrid(inner).send_and_receive([])) == []
    assert inner.looks == 0


def test_all_else_is_the_inner_grid_s() -> None:
    inner = ScriptedGrid([1])
    grid = LazyGrid(inner)
    assert grid.run == "the run"
    grid.set_run("another")
    assert inner.set == "another"
    assert list(grid.get_node_ids()) == [7, 9]
    assert list(grid.push_messages(messages(1))) == ["0"]
    assert numbers(grid.pull_messages(["0"])) == [0]
    made = grid.create_message(RecordDict(), "train", 5, "group")
    assert (made.metadata.dst_node_id, made.metadata.message_type) == (5, "train")


def test_the_longer_nothing_comes_the_rarer_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is a request for each missing reply; one that came is waited for eagerly again."""
    grid = LazyGrid(ScriptedGrid([None]))
    now = [0.0]
    paused: list[float] = []
    monkeypatch.setattr(lazy, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(lazy.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(grid, "pause", paused.append)
    replies = grid.send_and_receive([])
    for second in (0.0, 0.5, 4.0, 3600.0):
        now[0] = second
        replies.pause()
    assert paused == pytest.approx([0.05, 0.05, 0.2, 1.0])
