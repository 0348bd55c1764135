"""A node that goes in a round: its client is asked again, in time, wherever it comes back."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nodes import TRAIN, FakeNodes, nodes
from fake_runs import Run, assert_same
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from fl_ppseg.flower.in_process import COORDINATOR, InProcessGrid
from strategies.rounds import monitor

AACHEN, SPARE = 4, 2
"""Node ids: that of a client, and one that is not there at first."""
GRACE = {"grace_seconds": 30.0, "round_timeout": 60.0, "max_retries": 0, "min_replies": 1.0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("fl_ppseg.flower.grid.POLL_SECONDS", 0.001)


class Leaving(InProcessGrid):
    """One node goes when it gets its n-th training; as Flower does, the SuperLink says so."""

    gone: set[int]
    leaves: Callable[[Message], bool]
    returns_after: int
    looks: int

    def get_node_ids(self) -> Iterable[int]:
        self.looks -= 1
        if self.looks <= 0:
            self.gone.clear()
        return [n for n in super().get_node_ids() if n not in self.gone]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for message_id in message_ids:
            asked = self._waiting[message_id]
            node_id = asked.metadata.dst_node_id
            if node_id in self.gone or self.leaves(asked):
                if node_id not in self.gone:
                    self.gone.add(node_id)
                    self.looks = self.returns_after
                del self._waiting[message_id]
                yield unavailable(asked)
            else:
                yield from super().pull_messages([message_id])


def unavailable(asked: Message, code: int = ErrorCode.NODE_UNAVAILABLE) -> Message:
    reply = Message(Error(code, "Node Unavailable"), reply_to=asked)
    reply.metadata.__dict__["_src_node_id"] = COORDINATOR
    return reply


def leaving(fake: FakeNodes, times: int = 1, returns_after: int = 3) -> FakeNodes:
    """Aachen's node goes at its first trainings, and is back after some looks."""
    grid: Any = fake.grid
    grid.__class__ = Leaving
    grid.gone, grid.looks, grid.returns_after = set(), 0, returns_after
    left = [times]

    def leaves(asked: Message) -> bool:
        is_mine = asked.metadata.dst_node_id == AACHEN and asked.metadata.message_type == "train"
        left[0] -= is_mine
        return is_mine and left[0] >= 0

    grid.leaves = leaves
    return fake


def test_a_client_whose_node_comes_back_is_asked_again_in_the_same_round(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole").train({"strategy": "fedadam"})
    run = Run(tmp_path / "run", leaving(nodes())).train(GRACE | {"strategy": "fedadam"})
    assert_same(run.checkpoint().arrays, whole.checkpoint().arrays)
    assert [line["rejected"] for line in run.lines("round")] == [[], []]
    assert [line["client"] for line in run.lines("train")] == [*TRAIN, *TRAIN]
    assert run.listener.messages == [
        "round 1: aachen: its node disconnected; waiting up to 30 s for it to return",
        "round 1: aachen: reconnected; asked again",
    ]


def test_by_default_nobody_is_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path, leaving(nodes(), returns_after=1)).train({"num_rounds": 1})
    assert [line["client"] for line in run.lines("train")] == ["bochum", "bremen"]
    assert run.lines("round")[0]["rejected"] == ["aachen: Node Unavailable"]


def test_who_does_not_come_back_in_time_is_said(tmp_path: Path) -> None:
    fake = leaving(nodes(), returns_after=10**9)
    short = GRACE | {"grace_seconds": 0.1, "min_replies": 0.5, "num_rounds": 1}
    run = Run(tmp_path, fake).train(short)
    assert run.lines("round")[0]["rejected"][0] == (
        "aachen: its node did not reconnect within the grace period"
    )
    assert [line["client"] for line in run.lines("train")] == ["bochum", "bremen"]


def test_a_node_that_goes_over_each_answer_is_given_up(tmp_path: Path) -> None:
    """As one whose memory is too small for the work: it is there, and gone at every question."""
    run = Run(tmp_path, leaving(nodes(), times=99, returns_after=0))
    run.train(GRACE | {"min_replies": 0.5, "num_rounds": 1})
    assert run.lines("round")[0]["rejected"] == ["aachen: Node Unavailable"]
    back = [line for line in run.listener.messages if line.endswith("reconnected; asked again")]
    assert len(back) == monitor.MAX_ATTEMPTS


def test_a_refusal_is_no_absence(tmp_path: Path) -> None:
    """What the node itself says stands: only Flower's own errors tell that it is gone."""
    fake = nodes({"aachen": lambda asked, client: Error(401, "refused")})
    run = Run(tmp_path, fake).train(GRACE | {"min_replies": 0.5, "num_rounds": 1})
    assert run.lines("round")[0]["rejected"][0] == "aachen: refused"
    assert [client for task, _, client in fake.asked if task == "train"].count("aachen") == 1


class Refusing(InProcessGrid):
    """Takes no messages for a node that is no longer enrolled; its client comes as another node."""

    dead: int
    taken_over: bool

    def get_node_ids(self) -> Iterable[int]:
        hidden = {self.dead} if self.taken_over else {SPARE}
        return [n for n in super().get_node_ids() if n not in hidden]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        pushed = super().push_messages(messages)
        kinds = {message.metadata.message_type for message in messages}
        if "train" in kinds:
            self.taken_over = True
        return [
            name
            for name, message in zip(pushed, messages, strict=True)
            if not self.taken_over or message.metadata.dst_node_id != self.dead
        ]


def removed() -> FakeNodes:
    """Aachen's node is removed after the first look, and its client comes as another."""
    clients: dict[str, Any] = {"aachen again": "train", "bochum": "train", "aachen": "train"}
    clients |= {"lindau": "val", "munster": "val"}
    fake = FakeNodes(clients, {})
    grid: Any = fake.grid
    grid.__class__, grid.dead, grid.taken_over = Refusing, AACHEN, False
    rename = {"aachen again": "aachen"}
    plain_client = fake._client
    fake._client = lambda context: (  # type: ignore[method-assign]
        rename.get(plain_client(context)[0], plain_client(context)[0]),
        plain_client(context)[1],
    )
    return fake


def test_a_client_that_comes_back_under_another_node_id_is_asked_there(tmp_path: Path) -> None:
    """Flower takes no message for a node that is no longer enrolled."""
    run = Run(tmp_path, removed()).train(GRACE | {"num_rounds": 1})
    assert [line["client"] for line in run.lines("train")] == ["aachen", "bochum"]
    assert run.lines("round")[0]["rejected"] == []
    assert "aachen reconnected as another node" in run.listener.messages


def test_a_question_that_cannot_be_sent_is_said_and_not_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path, removed()).train({"num_rounds": 1})
    assert run.lines("round")[0]["rejected"][0] == "aachen: its node disconnected"
    assert [line["client"] for line in run.lines("train")] == ["bochum"]


def test_a_retry_waits_for_the_nodes_of_the_quorum(tmp_path: Path) -> None:
    """Without a grace time the round fails its quorum, and is tried again once the node is back."""
    fake = leaving(nodes(), returns_after=5)
    again = {"min_replies": 1.0, "max_retries": 1, "wait_seconds": 30.0}
    run = Run(tmp_path, fake).train(again | {"num_rounds": 1})
    assert [line["client"] for line in run.lines("train")] == list(TRAIN)
    assert run.lines("round")[0]["rejected"] == ["aachen: Node Unavailable"]
    assert "round 1: waiting up to 30 s for the nodes of aachen" in run.listener.messages


class Mismatching(InProcessGrid):
    """Hands over aachen's reply as one to a message that nobody sent."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for message in super().pull_messages(message_ids):
            is_work = message.metadata.message_type == "train"
            if is_work and message.metadata.src_node_id == AACHEN:
                message.metadata.__dict__["_reply_to_message_id"] = "other"
            yield message


def test_a_reply_to_another_message_is_said_and_not_fetched_again(tmp_path: Path) -> None:
    """There is no second reply to a message; the client is asked again in a retry at most."""
    fake = nodes()
    fake.grid.__class__ = Mismatching
    run = Run(tmp_path, fake).train(GRACE | {"min_replies": 0.5, "num_rounds": 1})
    assert run.lines("round")[0]["rejected"] == [
        "aachen: unexpected reply: no task is outstanding",
        "aachen: no reply before the deadline",
    ]
    assert [client for task, _, client in fake.asked if task == "train"].count("aachen") == 1
