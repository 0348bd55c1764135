"""The table of tasks: how one may come from state to state, and which are outstanding."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from strategies.rounds.registry import Member
from strategies.rounds.tasks import FOLLOWING, State, Task, TaskTable, longest_first

CLIENTS = ("aachen", "bochum", "bremen")


@dataclass
class Letter:
    """A message, as far as the table looks at it."""

    message_id: str


def task(client: str, model: str | None = None) -> Task:
    return Task(Member(len(client), client, "train"), {"w": np.zeros(2)}, model)


def sent(*clients: str) -> tuple[TaskTable, list[Task]]:
    """A phase in which some clients were asked, each in a message of its name."""
    table, tasks = TaskTable(), [task(client) for client in clients]
    table.open("train")
    for each in tasks:
        table.send(each, Letter(each.member.client))
    return table, tasks


MOVES: dict[State, Callable[[TaskTable, Task], None]] = {
    State.SENT: lambda table, each: table.send(each, Letter("again")),
    State.WAITING: lambda table, each: table.wait(each, 5.0),
    State.DONE: lambda table, each: table.finish(each),
    State.FAILED: lambda table, each: table.fail(each),
}


@pytest.mark.parametrize("then", State)
@pytest.mark.parametrize("first", State)
def test_a_task_moves_along_the_arrows_alone(first: State, then: State) -> None:
    table, (each,) = sent("aachen")
    if first is not State.SENT:
        MOVES[first](table, each)
    allowed = {
        (State.SENT, State.WAITING),
        (State.SENT, State.DONE),
        (State.SENT, State.FAILED),
        (State.WAITING, State.SENT),
        (State.WAITING, State.FAILED),
        (State.FAILED, State.SENT),
    }
    assert (then in FOLLOWING[first]) == ((first, then) in allowed)
    if (first, then) in allowed:
        MOVES[then](table, each)
        assert table.in_state(then) == [each]
    else:
        with pytest.raises(ValueError, match=f"aachen: a task that is {first.value}"):
            MOVES[then](table, each)
        assert table.in_state(first) == [each]


def test_tasks_of_a_state_are_in_the_order_in_which_they_came_to_it() -> None:
    table, (aachen, bochum, bremen) = sent(*CLIENTS)
    for each in (bremen, aachen, bochum):
        table.fail(each)
    assert table.in_state(State.FAILED) == [bremen, aachen, bochum]
    table.send(bochum, Letter("1"))
    table.send(bremen, Letter("2"))
    assert table.awaited == [bochum, bremen]
    assert table.num_asked == len(list(table)) == 3


def test_a_reply_belongs_to_the_newest_message_of_a_task_that_is_sent() -> None:
    table, (aachen, bochum, bremen) = sent(*CLIENTS)
    assert table.answered_by("aachen") is aachen
    table.wait(aachen, 1.0)
    assert table.answered_by("aachen") is None
    table.send(aachen, Letter("again"))
    assert table.answered_by("aachen") is None
    assert table.answered_by("again") is aachen
    table.finish(bochum)
    assert table.answered_by("bochum") is None
    bremen.sent = Letter("")  # not sent yet: no reply names it
    assert table.answered_by("") is None


def test_what_was_fetched_is_awaited_again_only_when_it_is_sent_again() -> None:
    table, (aachen,) = sent("aachen")
    aachen.is_fetched, aachen.is_alive, aachen.probes = True, True, ["probe"]
    assert table.awaited == []
    table.wait(aachen, 1.0)
    table.send(aachen, Letter("again"))
    assert table.awaited == [aachen]
    assert (aachen.is_alive, aachen.probes) == (False, [])


def test_waits_are_counted_over_an_exchange_and_anew_after_it() -> None:
    table, (aachen,) = sent("aachen")
    aachen.num_waits = 3
    table.wait(aachen, 7.0)
    table.send(aachen, Letter("again"))
    assert (aachen.num_waits, aachen.waits_until) == (3, 7.0)
    table.fail(aachen)
    assert aachen.num_waits == 0


def test_the_weights_of_a_task_that_is_done_are_let_go_and_of_one_that_failed_are_kept() -> None:
    table, (aachen, bochum) = sent("aachen", "bochum")
    table.finish(aachen)
    table.fail(bochum)
    assert aachen.arrays == {}
    assert bochum.arrays.keys() == {"w"}


def test_a_phase_starts_with_no_task() -> None:
    table, _ = sent(*CLIENTS)
    table.open("evaluate")
    assert (table.phase, table.num_asked, table.awaited) == ("evaluate", 0, [])


def test_who_has_most_images_is_first_and_who_is_unknown_counts_like_it() -> None:
    tasks = [task("bremen"), task("aachen", "b"), task("aachen", "a"), task("bochum")]
    ordered = longest_first(tasks, {"aachen": 1, "bochum": 9})
    found = [(each.member.client, each.model) for each in ordered]
    assert found == [("bochum", None), ("bremen", None), ("aachen", "a"), ("aachen", "b")]
