"""The roll call: Flower's random node ids become cities."""

from collections.abc import Iterable, Iterator

import pytest
from fake_nodes import TRAIN, VAL, Answer, FakeNodes, nodes, request
from flwr.app import Error, Message, RecordDict

from fl_ppseg.engines.in_process import InProcessGrid
from fl_ppseg.errors import RunError
from fl_ppseg.messages import Description, pack_description
from strategies.grid import LazyGrid
from strategies.roster import Roster, call_roll


def roll(fake: FakeNodes, num_nodes: int) -> Roster:
    return call_roll(LazyGrid(fake.grid), request(), num_nodes, timeout=0.2)


def test_members_are_sorted_by_city() -> None:
    roster = roll(nodes(), 5)
    assert [m.city for m in roster.members] == ["aachen", "bochum", "bremen", "lindau", "munster"]
    assert [m.node_id for m in roster.members] == [4, 3, 2, 6, 5]
    assert [m.city for m in roster.with_role("train")] == list(TRAIN)
    assert [m.city for m in roster.with_role("val")] == list(VAL)


def test_two_nodes_of_one_city_end_the_run() -> None:
    twin: Answer = lambda asked, city: pack_description(Description("run", "aachen", "train"))  # noqa: E731
    with pytest.raises(RunError, match="two nodes claim the same city: aachen"):
        roll(nodes({"bremen": twin}), 5)


def test_nodes_that_did_not_connect_are_counted() -> None:
    with pytest.raises(RunError, match=r"5 of 6 nodes connected .*; start the others or ask for"):
        roll(nodes(), 6)


def test_nodes_that_connect_late_are_waited_for() -> None:
    class Filling(InProcessGrid):
        looks = 0

        def get_node_ids(self) -> Iterable[int]:
            self.looks += 1
            return list(super().get_node_ids())[: 4 + self.looks // 2]

    grid = nodes().grid
    grid.__class__ = Filling
    assert len(call_roll(LazyGrid(grid), request(), 5, timeout=5).members) == 5


def test_nodes_that_do_not_answer_are_counted() -> None:
    class Deaf(InProcessGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
            for message_id in message_ids:
                if self._waiting[message_id].metadata.dst_node_id != 3:
                    yield from super().pull_messages([message_id])

    grid = nodes().grid
    grid.__class__ = Deaf
    with pytest.raises(RunError, match="4 of 5 nodes answered"):
        call_roll(LazyGrid(grid), request(), 5, timeout=0.2)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Error(500, "no policy"), "did not introduce itself: no policy"),
        (RecordDict(), "introduced itself in another form: wanted records"),
        (pack_description(Description("run", "x", "spy")), "unknown role 'spy'"),  # type: ignore[arg-type]
    ],
)
def test_a_node_that_says_something_else_ends_the_run(answer: Error | RecordDict, why: str) -> None:
    with pytest.raises(RunError, match=why):
        roll(nodes({"bremen": lambda asked, city: answer}), 5)
