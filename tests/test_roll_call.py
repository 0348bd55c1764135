"""The roll call: at the start of a run and while it goes on, over nodes that come and go."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nodes import TRAIN, VAL, FakeNodes, Listener, nodes, request
from flwr.app import Error, Message, RecordDict

from fl_ppseg.federation.message_content import Description
from fl_ppseg.federation.messages import FAILED, REFUSED, pack_description
from fl_ppseg.federation.roles import Role
from fl_ppseg.flower.grid import LazyGrid, StoppedError
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.system.errors import RunError
from strategies.rounds import roll_call
from strategies.rounds.roll_call import RollCall

AACHEN, BREMEN, MUNSTER = 4, 2, 5
"""Node ids of `nodes()`, which run against the alphabet."""


class Coming(InProcessGrid):
    """Nodes that are there or not, answer or not, as the test says."""

    there: set[int]
    deaf: set[int]
    named: dict[int, str]

    def get_node_ids(self) -> Iterable[int]:
        return [node_id for node_id in super().get_node_ids() if node_id in self.there]

    def get_nodes(self) -> Iterable[Any]:
        return [SimpleNamespace(node_id=n, name=self.named.get(n, "")) for n in self.there]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for message_id in message_ids:
            if self._waiting[message_id].metadata.dst_node_id not in self.deaf:
                yield from super().pull_messages([message_id])


def coming(fake: FakeNodes, there: Iterable[int] = range(2, 7)) -> Coming:
    fake.grid.__class__ = Coming
    grid: Any = fake.grid
    grid.there, grid.deaf, grid.named = set(there), set(), {}
    return grid  # type: ignore[no-any-return]


def call(fake: FakeNodes, listener: Listener | None = None) -> RollCall:
    return RollCall(LazyGrid(fake.grid), request(), listener or Listener())


def cities(roll: RollCall) -> list[str]:
    return [member.city for member in roll.roster.members]


def test_all_nodes_are_called_by_name_at_the_first_look() -> None:
    roll = call(nodes())
    roll.wait(5, 5, seconds=5)
    assert cities(roll) == [*TRAIN, *VAL]
    assert [m.node_id for m in roll.roster.members] == [4, 3, 2, 6, 5]
    assert roll.is_here("aachen")


def test_nodes_that_connect_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "LOOK_SECONDS", 0.001)
    fake = nodes()
    grid = coming(fake, there={2, 3})
    threading.Timer(0.1, lambda: grid.there.update({4, 5, 6})).start()
    roll = call(fake)
    roll.wait(5, 5, seconds=30)
    assert len(cities(roll)) == 5


REFUSAL = Error(REFUSED, "refused: this node has pinned another bundle than abc")


def test_nobody_waits_for_nodes_that_refuse() -> None:
    everybody = nodes(introductions=dict.fromkeys((*TRAIN, *VAL), REFUSAL))
    begin = time.monotonic()
    with pytest.raises(RunError, match=r"0 of 5 nodes came .* pinned another bundle than abc"):
        call(everybody).wait(5, 5, seconds=120)
    some, listener = nodes(introductions={"bochum": REFUSAL, "lindau": REFUSAL}), Listener()
    roll = call(some, listener)
    roll.wait(5, 3, seconds=120)
    assert cities(roll) == ["aachen", "bremen", "munster"]
    assert listener.messages[-1].startswith("beginning with 3 of 5 nodes")
    assert time.monotonic() - begin < 10


def test_a_node_that_failed_or_is_away_is_waited_for_beside_one_that_refused() -> None:
    for away, failed in ((2, {}), (9, {"bremen": Error(FAILED, "the node failed")})):
        fake = nodes(introductions={"bochum": REFUSAL} | failed)
        coming(fake, there={2, 3, 4, 5, 6} - {away})
        begin = time.monotonic()
        call(fake).wait(5, 3, seconds=0.5)
        assert time.monotonic() - begin >= 0.5


def test_a_run_begins_with_a_quorum_once_the_time_is_up_and_says_so() -> None:
    fake, listener = nodes(), Listener()
    coming(fake, there={2, 3, 6})
    roll = call(fake, listener)
    roll.wait(5, 3, seconds=0)
    assert cities(roll) == ["bochum", "bremen", "lindau"]
    assert listener.messages == ["beginning with 3 of 5 nodes; the others join when they come"]


def test_waiting_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "SAY_SECONDS", 0.05)
    monkeypatch.setattr(roll_call, "LOOK_SECONDS", 0.01)
    fake, listener = nodes(), Listener()
    coming(fake, there={2, 3, 6})
    call(fake, listener).wait(5, 3, seconds=0.3)
    assert listener.messages[0] == "3 of 5 nodes are here; waiting 0 s"


@pytest.mark.parametrize(
    ("deaf", "line"),
    [({2, 3, 4, 5, 6}, "5 nodes are starting"), ({2, 3}, "3 of 5 nodes have started")],
)
def test_of_nodes_that_are_connected_it_is_not_said_that_they_are_away(
    deaf: set[int], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a simulation, whose nodes are all there while its processes load."""
    monkeypatch.setattr(roll_call, "SAY_SECONDS", 0.05)
    monkeypatch.setattr(roll_call, "LOOK_SECONDS", 0.01)
    fake, listener = nodes(), Listener()
    coming(fake).deaf = deaf
    with suppress(RunError):
        call(fake, listener).wait(5, 3, seconds=0.3)
    assert listener.messages[0] == f"{line}; waiting 0 s"


def test_who_is_of_the_run_is_a_matter_of_its_folder() -> None:
    fake, listener = nodes(), Listener()
    roles: dict[str, Role] = {"aachen": "train", "bochum": "val", "munster": "val"}
    roll = RollCall(LazyGrid(fake.grid), request(), listener, roles)
    roll.wait(5, 2, seconds=0)
    assert cities(roll) == ["aachen", "munster"]
    for city in ("bremen", "lindau"):
        assert any(f"{city} is no city of this run" in line for line in listener.messages)
    assert any("bochum only evaluates in this run" in line for line in listener.messages)


@pytest.mark.parametrize(("there", "quorum"), [({2, 3, 6}, 4), ({5, 6}, 2), (set(), 0)])
def test_without_a_quorum_or_anybody_who_trains_the_run_ends(there: set[int], quorum: int) -> None:
    fake = nodes()
    coming(fake, there)
    with pytest.raises(RunError) as failure:
        call(fake).wait(5, quorum, seconds=0)
    assert str(failure.value) == (
        f"{len(there)} of 5 nodes came within 0 s, wanted {max(quorum, 1)}, of which one trains; "
        "start the others, or ask for fewer"
    )


def described(city: str, role: str) -> RecordDict:
    content = pack_description(Description("run", "x", "train"))
    content.config_records["settings"].update({"city": city, "role": role})
    return content


BAD_INTRODUCTIONS = {
    "error": (Error(500, "no policy"), "did not introduce itself: no policy"),
    "empty": (RecordDict(), "wanted records"),
    "role": (described("x", "spy"), "unknown role 'spy'"),
    "path": (described("../x", "train"), "city could lead elsewhere"),
    "terminal": (described("\x1b[2J", "train"), "city is no printable name"),
    "run": (pack_description(Description("old", "x", "train")), "introduced itself to another run"),
    "second": (
        pack_description(Description("run", "aachen", "train")),
        "a second node claims aachen",
    ),
}


@pytest.mark.parametrize("case", BAD_INTRODUCTIONS)
def test_a_node_that_says_something_else_is_left_out_alone_and_said_once(case: str) -> None:
    introduction, why = BAD_INTRODUCTIONS[case]
    fake, listener = nodes(introductions={"bremen": introduction}), Listener()
    grid = coming(fake, there={3, 4, 5, 6})  # the others have come before
    roll = call(fake, listener)
    roll.wait(4, 4, seconds=5)
    grid.there.add(BREMEN)
    (told,) = roll.look()
    assert why in told
    assert roll.look() == []
    assert listener.messages == [told]
    assert cities(roll) == ["aachen", "bochum", *VAL]
    assert roll.roster.of_city("aachen").node_id == AACHEN


def test_the_reason_is_part_of_the_error_where_the_quorum_fails() -> None:
    fake = nodes(introductions={"bremen": Error(500, "no policy")})
    with pytest.raises(RunError, match=r"4 of 5 nodes came.*did not introduce itself: no policy"):
        call(fake).wait(5, 5, seconds=0)


def test_a_node_that_failed_is_called_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = nodes(introductions={"bremen": Error(500, "no policy")})
    roll = call(fake)
    roll.look()
    fake.introductions.clear()
    roll.look()
    assert "bremen" not in cities(roll)
    monkeypatch.setattr(roll_call, "CALL_AGAIN_SECONDS", 0.0)
    roll.look()
    assert "bremen" in cities(roll)


def test_a_look_waits_for_nobody_and_hears_answers_that_come_later() -> None:
    fake = nodes()
    grid = coming(fake)
    grid.deaf = {BREMEN}
    roll = call(fake)
    start = time.monotonic()
    roll.look()
    assert time.monotonic() - start < 2
    assert "bremen" not in cities(roll)
    grid.deaf = set()
    roll.look()
    assert "bremen" in cities(roll)


def test_a_city_that_comes_back_as_another_node_keeps_its_place() -> None:
    twin = pack_description(Description("run", "aachen", "train"))
    fake, listener = nodes(introductions={"bremen": twin}), Listener()
    grid = coming(fake, there={3, 4})
    roll = call(fake, listener)
    roll.look()
    grid.there = {2, 3}
    roll.look()
    assert cities(roll) == ["aachen", "bochum"]
    assert roll.roster.of_city("aachen").node_id == BREMEN
    assert listener.messages == ["aachen is back as another node"]


def test_the_name_that_a_node_was_enrolled_under_must_be_its_city() -> None:
    fake = nodes()
    grid = coming(fake)
    grid.named = {AACHEN: "aachen", BREMEN: "bonn"}
    roll = call(fake)
    assert roll.look() == ["bonn: a node that was enrolled as bonn claims to be bremen"]
    assert cities(roll) == ["aachen", "bochum", *VAL]


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    fake = nodes()
    coming(fake, there=set())
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(StoppedError):
        RollCall(LazyGrid(fake.grid, stop), request(), Listener()).wait(5, 5, seconds=60)
