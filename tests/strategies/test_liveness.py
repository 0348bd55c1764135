"""Answers that get lost between a node that is there and the coordinator: told, and asked again."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nodes import TRAIN, FakeNodes, nodes
from fake_runs import Run, assert_same
from flwr.app import Message

from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.flower.in_process import InProcessGrid
from strategies.rounds import monitor

AACHEN = 4
"""Node id of a client."""
QUORUM = {"min_replies": 1.0, "max_retries": 0, "round_timeout": 20.0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(monitor, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("fl_ppseg.flower.grid.POLL_SECONDS", 0.001)


class Losing(InProcessGrid):
    """One node: some of its trainings are never answered, or the first takes many looks.

    As a SuperNode it says nothing else while it is at work.
    """

    lost: int
    late: int
    dropped: set[str]
    is_at_work = False

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for message_id in message_ids:
            asked = self._waiting[message_id].metadata
            if asked.dst_node_id == AACHEN and self._keeps_quiet(asked.message_type, message_id):
                continue
            yield from super().pull_messages([message_id])

    def _keeps_quiet(self, kind: str, message_id: str) -> bool:
        if kind == "train" and len(self.dropped) < self.lost:
            self.dropped.add(message_id)
        if kind == "train" and self.late:
            self.late, self.is_at_work = self.late - 1, True
            return True
        return message_id in self.dropped or (self.is_at_work and self.late > 0)


def losing(lost: int = 0, late: int = 0) -> FakeNodes:
    fake = nodes()
    grid: Any = fake.grid
    grid.__class__ = Losing
    grid.lost, grid.late, grid.dropped = lost, late, set()
    return fake


def test_a_client_whose_answer_is_lost_is_asked_again(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole").train({"strategy": "fedadam"})
    run = Run(tmp_path / "run", losing(lost=1)).train(QUORUM | {"strategy": "fedadam"})
    assert_same(run.checkpoint().arrays, whole.checkpoint().arrays)
    assert [line["client"] for line in run.lines("train")] == [*TRAIN, *TRAIN]
    assert run.listener.messages[:2] == [
        "round 1: aachen: its reply was lost; waiting up to 60 s for it to return",
        "round 1: aachen: reconnected; asked again",
    ]


class Simulated(Losing):
    """One node: its first training takes many looks, beside which it answers all else."""

    def _keeps_quiet(self, kind: str, message_id: str) -> bool:
        if kind != "train" or not self.late:
            return False
        self.late -= 1
        return True


@pytest.mark.parametrize("is_simulated", [True, False])
def test_a_simulated_node_that_is_still_at_work_is_left_alone(
    is_simulated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process of the engine answers for it; a real node that answers has lost its task."""
    monkeypatch.setattr(LazyGrid, "is_simulated", is_simulated)
    fake = losing(late=60)
    fake.grid.__class__ = Simulated
    run = Run(tmp_path, fake).train(QUORUM | {"num_rounds": 1})
    lost = [line for line in run.listener.messages if "its reply was lost" in line]
    assert bool(lost) != is_simulated


def test_a_node_that_is_still_at_work_is_left_alone(tmp_path: Path) -> None:
    """It says nothing else before it has answered: nothing is lost, however long it takes."""
    fake = losing(late=60)
    run = Run(tmp_path, fake).train(QUORUM | {"num_rounds": 1})
    assert [client for task, _, client in fake.asked if task == "train"].count("aachen") == 1
    assert run.lines("round")[0]["rejected"] == []
    assert run.listener.messages == []


def test_a_node_that_loses_each_answer_is_given_up(tmp_path: Path) -> None:
    run = Run(tmp_path, losing(lost=99)).train(QUORUM | {"min_replies": 0.5, "num_rounds": 1})
    assert run.lines("round")[0]["rejected"] == ["aachen: its reply was lost"]
    assert [line["client"] for line in run.lines("train")] == ["bochum", "bremen"]
