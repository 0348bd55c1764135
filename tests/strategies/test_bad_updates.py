"""Bad updates: each is rejected alone, whatever it is, and counts for nothing."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from fake_nodes import Listener, nodes, request
from flwr.app import Error, Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed import Mutation, metadata, mutations, put, repacked

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.system.arrays import Arrays
from strategies.aggregation.norms import NormError, NormRule
from strategies.aggregation.streaming_mean import StreamingMean
from strategies.rounds.exchange import collect, pack
from strategies.rounds.round_log import RoundLog
from strategies.rounds.tasks import State, Task

WEIGHTS: Arrays = {"head.w": np.array([1, 2, 3], np.float32), "steps": np.array(4)}
WITHOUT_BOCHUM = np.float32([3.5, 4.5, 5.5])
"""Steps 1 and 3 of 1 and 3 examples: (1 * 1 + 3 * 3) / 4 = 2.5 beyond the start."""
MANY = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


def exchanged(change: Mutation) -> tuple[RoundLog, StreamingMean]:
    """A training exchange with three clients; what bochum answers is changed."""
    fake, log = nodes(), RoundLog(request(), 3, Listener())
    tasks = [Task(member, WEIGHTS) for member in fake.registry.with_role("train")]
    replies: list[Message] = []
    for message in fake.grid.send_and_receive(pack(log, tasks, 60)):
        is_bochum = message.metadata.src_node_id == tasks[1].member.node_id
        replies += change(message) if is_bochum else [message]
    return log, folded(replies, log)


def folded(replies: Iterable[Message], log: RoundLog) -> StreamingMean:
    mean = StreamingMean(WEIGHTS)
    for task, found in collect(replies, log, list(WEIGHTS)):
        try:
            mean.add(found.arrays, found.num_examples)
        except ValueError as error:
            log.fail(task, str(error))
            continue
        log.accept(task, found)
    return mean


@MANY
@given(mutations())
def test_malformed_messages_are_rejected_alone_and_leave_the_mean_as_it_was(
    change: Mutation,
) -> None:
    log, mean = exchanged(change)
    assert mean.result()["head.w"].tobytes() == WITHOUT_BOCHUM.tobytes()
    assert len(log.tasks.in_state(State.DONE)) == 2
    assert [task.member.client for task in log.tasks.in_state(State.FAILED)] == ["bochum"]
    assert all(line.isprintable() and len(line) < 400 for line in log.rejected)
    json.loads(json.dumps(log.result_lines(), allow_nan=False))


def test_the_same_reply_unchanged_counts() -> None:
    """Else the test above could reject everything."""
    log, mean = exchanged(lambda message: [message])
    assert len(log.tasks.in_state(State.DONE)) == 3
    assert log.rejected == []
    assert mean.num_examples == 6


ENTRIES = {
    "another client": (put("settings", "client", "aachen"), "another run, round or client"),
    "a stale round": (put("settings", "round", 2), "another run, round or client"),
    "another run": (put("settings", "run_id", "old"), "another run, round or client"),
    "another node": (metadata(src_node_id=77), "reply from another node"),
    "all examples": (put("figures", "num_examples", 2**48 - 2), "num_examples is not between"),
    "endless loss": (put("figures", "loss", [1e300]), "loss is not between"),
    "twice": (lambda message: [message, message], "unexpected reply: no task is outstanding"),
    "no reason": (lambda message: [_error(message)], "error 5"),
    "name": (
        repacked(lambda arrays: arrays | {"\x1b[31mkey": np.ones(1)}),
        "not allowed: ?[31mkey",
    ),
}


def _error(message: Message) -> Message:
    return Message(Error(5), reply_to=message)


@pytest.mark.parametrize("case", ENTRIES)
def test_what_is_wrong_is_said_by_city(case: str) -> None:
    change, why = ENTRIES[case]
    if case == "no reason":
        fake, log = (
            nodes({"bochum": lambda asked, client: Error(5)}),
            RoundLog(request(), 3, Listener()),
        )
        tasks = [Task(member, WEIGHTS) for member in fake.registry.with_role("train")]
        folded(list(fake.grid.send_and_receive(pack(log, tasks, 60))), log)
    else:
        log, _ = exchanged(change)
    (line,) = log.rejected
    assert line.startswith("bochum: ")
    assert why in line


class Garbling(InProcessGrid):
    """Hands bochum's reply over as bytes, some of which are others than were sent."""

    spoil: Any
    victim: int

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for message in super().pull_messages(message_ids):
            if message.metadata.src_node_id != self.victim:
                yield message
                continue
            message.metadata.__dict__["_message_id"] = message.object_id
            objects = {key: item.deflate() for key, item in get_all_nested_objects(message).items()}
            self.spoil(objects)
            yield inflate_object_from_contents(message.object_id, objects)  # type: ignore[misc]


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8), st.booleans(), st.integers(0, 99))
def test_garbled_bytes_are_one_bad_reply(place: int, junk: bytes, cuts: bool, which: int) -> None:
    """On the wire a message is a tree of objects; any byte of any of them may be any other."""

    def spoil(objects: dict[str, bytes]) -> None:
        key = sorted(objects)[which % len(objects)]
        at = place % len(objects[key])
        rest = b"" if cuts else objects[key][at + len(junk) :]
        objects[key] = objects[key][:at] + junk + rest

    fake, log = nodes(), RoundLog(request(), 3, Listener())
    grid: Any = fake.grid
    tasks = [Task(member, WEIGHTS) for member in fake.registry.with_role("train")]
    grid.__class__, grid.spoil, grid.victim = Garbling, spoil, tasks[1].member.node_id
    mean = folded(LazyGrid(grid).send_and_receive(pack(log, tasks, 60), timeout=5), log)
    counted = {line["client"] for line in log.result_lines() if line["role"] == "train"}
    assert {"aachen", "bremen"} <= counted
    assert np.isfinite(mean.result()["head.w"]).all()
    if "bochum" not in counted:
        assert mean.result()["head.w"].tobytes() == WITHOUT_BOCHUM.tobytes()


def rule(**changes: Any) -> FederationConfig:
    return FederationConfig.model_validate(changes)


def test_the_norm_of_an_update_may_be_limited() -> None:
    limited = NormRule(rule(max_update_norm=2.0))
    limited.check(2.0)
    with pytest.raises(NormError, match=r"at most 2, got 2\.1"):
        limited.check(2.1)


def test_the_median_of_the_round_before_is_the_measure_of_this_one() -> None:
    """Median of 1, 2, 30 is 2; three times that is 6; round 1 has nothing to compare with."""
    compared = NormRule(rule(max_norm_ratio=3.0))
    compared.check(1e9)
    compared.end_round([1.0, 30.0, 2.0])
    compared.check(6.0)
    with pytest.raises(
        NormError, match=r"at most 3 times the median 2 of an earlier round, got 6\.1"
    ):
        compared.check(6.1)
    compared.end_round([])
    with pytest.raises(NormError):
        compared.check(6.1)


def test_a_resumed_run_has_the_measure_of_its_newest_round() -> None:
    norms = ({"update_norm": 50.0}, {"update_norm": 1.0}, {})
    lines = [{"role": "train", "round": n} | norm for n, norm in enumerate(norms, 1)]
    with pytest.raises(NormError, match="the median 1 "):
        NormRule(rule(max_norm_ratio=2.0), lines).check(3.0)


def large(scale: float) -> Arrays:
    """Weights of norm 5 and a batch statistic, of which the weights are moved by 5 times scale."""
    return {
        "head.w": np.float32([3 + 3 * scale, 4 + 4 * scale]),
        "norm.running_var": np.float32([1.0]),
        "norm.num_batches_tracked": np.array(3),
    }


@pytest.mark.parametrize("scale", [10.1, 5e7, 1e37])
def test_a_limit_holds_from_the_first_round_on(scale: float) -> None:
    """Finite weights of 3e38 in one reply ended a run: every honest answer after it diverged."""
    by_default = NormRule(rule())
    assert by_default.measure(large(9.9), large(0)) == pytest.approx(49.5)
    with pytest.raises(
        NormError, match=r"at most 50 \(federation\.max_relative_norm 10 of weights of norm 5\)"
    ):
        by_default.measure(large(scale), large(0))
    assert NormRule(rule(max_relative_norm=None)).measure(large(scale), large(0)) > 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm.running_var", np.float32([3e38])),
        ("norm.running_var", np.float32([-1.0])),
        ("norm.num_batches_tracked", np.array(2**62)),
        ("norm.num_batches_tracked", np.array(-1)),
    ],
)
def test_batch_statistics_are_bounded_one_by_one(name: str, value: np.ndarray) -> None:
    with pytest.raises(NormError, match=f"{name}: expected batch statistics of"):
        NormRule(rule()).measure(large(0.1) | {name: value}, large(0))


def test_weights_of_nothing_can_be_left() -> None:
    """A model whose weights are all zero has a norm to begin with, too."""
    start = {"head.w": np.zeros(2, np.float32)}
    assert NormRule(rule()).measure({"head.w": np.float32([1, 1])}, start) == pytest.approx(2**0.5)
