"""Discovery: at the start of a run and during it, over nodes that connect and disconnect."""

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
from strategies.rounds.discovery import Discovery

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


def call(fake: FakeNodes, listener: Listener | None = None) -> Discovery:
    return Discovery(LazyGrid(fake.grid), request(), listener or Listener())


def clients(discovery: Discovery) -> list[str]:
    return [member.client for member in discovery.registry.members]


def test_all_nodes_are_called_by_name_at_the_first_look() -> None:
    discovery = call(nodes())
    discovery.wait(5, 5, seconds=5)
    assert clients(discovery) == [*TRAIN, *VAL]
    assert [m.node_id for m in discovery.registry.members] == [4, 3, 2, 6, 5]
    assert discovery.is_connected("aachen")


def test_nodes_that_connect_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.rounds.discovery.POLL_SECONDS", 0.001)
    fake = nodes()
    grid = coming(fake, there={2, 3})
    threading.Timer(0.1, lambda: grid.there.update({4, 5, 6})).start()
    discovery = call(fake)
    discovery.wait(5, 5, seconds=30)
    assert len(clients(discovery)) == 5


REFUSAL = Error(REFUSED, "refused: this node has pinned another bundle than abc")


def test_nobody_waits_for_nodes_that_refuse() -> None:
    everybody = nodes(introductions=dict.fromkeys((*TRAIN, *VAL), REFUSAL))
    begin = time.monotonic()
    with pytest.raises(
        RunError, match=r"of 5 nodes within .* got 0 .*pinned another bundle than abc"
    ):
        call(everybody).wait(5, 5, seconds=120)
    some, listener = nodes(introductions={"bochum": REFUSAL, "lindau": REFUSAL}), Listener()
    discovery = call(some, listener)
    discovery.wait(5, 3, seconds=120)
    assert clients(discovery) == ["aachen", "bremen", "munster"]
    assert listener.messages[-1].startswith("starting with 3 of 5 nodes")
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
    discovery = call(fake, listener)
    discovery.wait(5, 3, seconds=0)
    assert clients(discovery) == ["bochum", "bremen", "lindau"]
    assert listener.messages == ["starting with 3 of 5 nodes; the others join when they connect"]


def test_waiting_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.rounds.discovery.NOTIFY_SECONDS", 0.05)
    monkeypatch.setattr("strategies.rounds.discovery.POLL_SECONDS", 0.01)
    fake, listener = nodes(), Listener()
    coming(fake, there={2, 3, 6})
    call(fake, listener).wait(5, 3, seconds=0.3)
    assert listener.messages[0] == "3 of 5 nodes are registered; waiting 0 s"


@pytest.mark.parametrize(
    ("deaf", "line"),
    [({2, 3, 4, 5, 6}, "5 nodes are starting"), ({2, 3}, "3 of 5 nodes have started")],
)
def test_of_nodes_that_are_connected_it_is_not_said_that_they_are_away(
    deaf: set[int], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a simulation, whose nodes are all there while its processes load."""
    monkeypatch.setattr("strategies.rounds.discovery.NOTIFY_SECONDS", 0.05)
    monkeypatch.setattr("strategies.rounds.discovery.POLL_SECONDS", 0.01)
    fake, listener = nodes(), Listener()
    coming(fake).deaf = deaf
    with suppress(RunError):
        call(fake, listener).wait(5, 3, seconds=0.3)
    assert listener.messages[0] == f"{line}; waiting 0 s"


def test_who_is_of_the_run_is_a_matter_of_its_folder() -> None:
    fake, listener = nodes(), Listener()
    roles: dict[str, Role] = {"aachen": "train", "bochum": "val", "munster": "val"}
    discovery = Discovery(LazyGrid(fake.grid), request(), listener, roles)
    discovery.wait(5, 2, seconds=0)
    assert clients(discovery) == ["aachen", "munster"]
    for client in ("bremen", "lindau"):
        assert any(f"{client} is not one of the" in line for line in listener.messages)
    assert any("bochum: expected a node with role val" in line for line in listener.messages)


@pytest.mark.parametrize(("there", "quorum"), [({2, 3, 6}, 4), ({5, 6}, 2), (set(), 0)])
def test_without_a_quorum_or_anybody_who_trains_the_run_ends(there: set[int], quorum: int) -> None:
    fake = nodes()
    coming(fake, there)
    with pytest.raises(RunError) as failure:
        call(fake).wait(5, quorum, seconds=0)
    assert str(failure.value) == (
        f"expected {max(quorum, 1)} of 5 nodes within 0 s, one of them for training, got "
        f"{len(there)}; start the others, or lower federation.min_replies"
    )


def described(client: str, role: str) -> RecordDict:
    content = pack_description(Description("run", "x", "train"))
    content.config_records["settings"].update({"client": client, "role": role})
    return content


BAD_INTRODUCTIONS = {
    "error": (Error(500, "no policy"), "did not introduce itself: no policy"),
    "empty": (RecordDict(), "expected records"),
    "role": (described("x", "spy"), "unknown role 'spy'"),
    "path": (described("../x", "train"), "client must not hold a slash"),
    "terminal": (described("\x1b[2J", "train"), "client is not a printable name"),
    "run": (pack_description(Description("old", "x", "train")), "introduced itself to another run"),
    "second": (
        pack_description(Description("run", "aachen", "train")),
        "a second node introduced itself as aachen",
    ),
}


@pytest.mark.parametrize("case", BAD_INTRODUCTIONS)
def test_a_node_that_says_something_else_is_left_out_alone_and_said_once(case: str) -> None:
    introduction, why = BAD_INTRODUCTIONS[case]
    fake, listener = nodes(introductions={"bremen": introduction}), Listener()
    grid = coming(fake, there={3, 4, 5, 6})  # the others have come before
    discovery = call(fake, listener)
    discovery.wait(4, 4, seconds=5)
    grid.there.add(BREMEN)
    (told,) = discovery.poll()
    assert why in told
    assert discovery.poll() == []
    assert listener.messages == [told]
    assert clients(discovery) == ["aachen", "bochum", *VAL]
    assert discovery.registry.of_client("aachen").node_id == AACHEN


def test_the_reason_is_part_of_the_error_where_the_quorum_fails() -> None:
    fake = nodes(introductions={"bremen": Error(500, "no policy")})
    with pytest.raises(
        RunError, match=r"5 of 5 nodes within.*got 4.*did not introduce itself: no policy"
    ):
        call(fake).wait(5, 5, seconds=0)


def test_a_node_that_failed_is_called_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = nodes(introductions={"bremen": Error(500, "no policy")})
    discovery = call(fake)
    discovery.poll()
    fake.introductions.clear()
    discovery.poll()
    assert "bremen" not in clients(discovery)
    later = time.monotonic() + 60 + 5  # a second more for each node that was asked at that time
    monkeypatch.setattr("strategies.rounds.discovery.time.monotonic", lambda: later)
    discovery.poll()
    assert "bremen" in clients(discovery)


def test_a_look_waits_for_nobody_and_hears_answers_that_come_later() -> None:
    fake = nodes()
    grid = coming(fake)
    grid.deaf = {BREMEN}
    discovery = call(fake)
    start = time.monotonic()
    discovery.poll()
    assert time.monotonic() - start < 2
    assert "bremen" not in clients(discovery)
    grid.deaf = set()
    discovery.poll()
    assert "bremen" in clients(discovery)


def test_a_client_that_comes_back_as_another_node_keeps_its_place() -> None:
    twin = pack_description(Description("run", "aachen", "train"))
    fake, listener = nodes(introductions={"bremen": twin}), Listener()
    grid = coming(fake, there={3, 4})
    discovery = call(fake, listener)
    discovery.poll()
    grid.there = {2, 3}
    discovery.poll()
    assert clients(discovery) == ["aachen", "bochum"]
    assert discovery.registry.of_client("aachen").node_id == BREMEN
    assert listener.messages == ["aachen reconnected as another node"]


def test_the_name_that_a_node_was_enrolled_under_must_be_its_client() -> None:
    fake = nodes()
    grid = coming(fake)
    grid.named = {AACHEN: "aachen", BREMEN: "bonn"}
    discovery = call(fake)
    assert discovery.poll() == ["bonn: a node enrolled as bonn introduced itself as bremen"]
    assert clients(discovery) == ["aachen", "bochum", *VAL]


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    fake = nodes()
    coming(fake, there=set())
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(StoppedError):
        Discovery(LazyGrid(fake.grid, stop), request(), Listener()).wait(5, 5, seconds=60)
