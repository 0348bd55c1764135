"""One exchange: every reply is counted, or rejected alone, by name and with the reason."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from fake_nodes import TRAIN, VAL, Answer, FakeNodes, Listener, nodes, reply, request
from flwr.app import Error, Message, RecordDict
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_ins_message

from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.federation.summary import summarise
from fl_ppseg.report.series import collect as series
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.exchange import collect, pack
from strategies.rounds.round_log import RoundLog
from strategies.rounds.tasks import Phase, State, Task

WEIGHTS = {"head.w": np.zeros((2, 3), np.float32), "head.b": np.zeros(2, np.float32)}
BYTES = (6 + 2) * 4
TTL = 60.0


def log() -> RoundLog:
    return RoundLog(request(), 3, Listener())


def tasks(fake: FakeNodes, arrays: Arrays = WEIGHTS) -> list[Task]:
    return [Task(member, arrays) for member in fake.registry.with_role("train")]


def answers(fake: FakeNodes, messages: Sequence[Message]) -> list[Message]:
    return list(fake.grid.send_and_receive(messages))


def open_phase(phase: Phase, log: RoundLog, tasks: list[Task], ttl: float) -> list[Message]:
    log.tasks.open(phase)
    return pack(log, tasks, ttl)


def num_asked_and_good(log: RoundLog) -> tuple[int, int]:
    return log.tasks.num_asked, len(log.tasks.in_state(State.DONE))


def accepted(replies: Sequence[Message], log: RoundLog, allowed: Sequence[str]) -> list[str]:
    """Clients whose replies are good."""
    clients = []
    for task, found in collect(replies, log, allowed):
        assert found.client == task.member.client
        log.accept(task, found)
        clients.append(task.member.client)
    return clients


def exchange(bad: Answer, phase: Phase = "train") -> RoundLog:
    """An exchange with three clients of which one, bochum, answers as given."""
    fake, round_log = nodes({"bochum": bad}), log()
    replies = answers(fake, open_phase(phase, round_log, tasks(fake), TTL))
    good = accepted(replies, round_log, list(WEIGHTS) if phase == "train" else [])
    assert sorted(good) == ["aachen", "bremen"]
    return round_log


@pytest.mark.parametrize("seed", range(3))
def test_good_replies_in_any_order(seed: int) -> None:
    fake, round_log = nodes(), log()
    replies = answers(fake, open_phase("train", round_log, tasks(fake), TTL))
    random.Random(seed).shuffle(replies)
    assert sorted(accepted(replies, round_log, list(WEIGHTS))) == list(TRAIN)
    assert round_log.rejected == []
    assert num_asked_and_good(round_log) == (3, 3)
    assert round_log.reasons() == "no replies"


def test_a_request_is_the_arm_s_with_task_round_and_arrays() -> None:
    fake, round_log = nodes(), log()
    answers(fake, open_phase("evaluate", round_log, tasks(fake)[:1], TTL))
    assert fake.asked == [("evaluate", 3, "aachen")]
    ((client, arrays),) = fake.weights
    assert client == "aachen"
    assert arrays.keys() == WEIGHTS.keys()


def test_weights_that_several_clients_get_are_packed_once() -> None:
    fake = nodes()
    shared = open_phase("train", log(), tasks(fake), TTL)
    assert len({id(message.content) for message in shared}) == 1
    own = [Task(m, {"w": np.full(1, k)}) for k, m in enumerate(fake.registry.with_role("train"))]
    answers(fake, open_phase("train", log(), own, TTL))
    found = {client: float(arrays["w"][0]) for client, arrays in fake.weights}
    assert found == {"aachen": 0, "bochum": 1, "bremen": 2}


BAD_REPLIES: dict[str, tuple[Answer, str]] = {
    "error": (lambda asked, client: Error(500, "the node failed"), "the node failed"),
    "empty": (lambda asked, client: RecordDict(), "expected records"),
    "name": (
        lambda asked, client: reply(asked, client, arrays=asked.arrays | {"key": np.ones(1)}),
        "arrays that are not allowed: key",
    ),
    "missing": (lambda asked, client: reply(asked, client, arrays={}), "2 arrays are missing"),
    "NaN loss": (
        lambda asked, client: reply(asked, client, loss=float("nan")),
        "loss is not finite",
    ),
    "examples": (lambda asked, client: reply(asked, client, num_examples=-1), "is negative"),
    "round": (lambda asked, client: reply(asked, client, round=2), "another run, round or client"),
    "run": (
        lambda asked, client: reply(asked, client, run_id="old"),
        "another run, round or client",
    ),
    "client": (lambda asked, client: reply(asked, "aachen"), "another run, round or client"),
    "counts": (
        lambda asked, client: reply(asked, client, confusion=np.eye(3, dtype=np.int64)),
        "expected confusion counts of 2 classes",
    ),
}


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_bad_reply_is_rejected_alone_and_named(case: str) -> None:
    bad, why = BAD_REPLIES[case]
    round_log = exchange(bad)
    (rejected,) = round_log.rejected
    assert rejected.startswith("bochum: ")
    assert why in rejected
    assert round_log.reasons() == rejected
    assert num_asked_and_good(round_log) == (3, 2)


def test_an_evaluation_without_counts_is_rejected() -> None:
    round_log = exchange(lambda asked, client: reply(asked, client, confusion=None), "evaluate")
    assert round_log.rejected == ["bochum: expected confusion counts, got none"]


def test_weights_sent_with_an_evaluation_are_rejected() -> None:
    round_log = exchange(lambda asked, client: reply(asked, client, arrays=WEIGHTS), "evaluate")
    assert round_log.rejected == ["bochum: arrays that are not allowed: head.b, head.w"]


def test_a_replayed_reply_counts_once() -> None:
    fake, round_log = nodes(), log()
    replies = answers(fake, open_phase("train", round_log, tasks(fake), TTL))
    good = accepted([*replies, replies[0]], round_log, list(WEIGHTS))
    assert sorted(good) == list(TRAIN)
    assert round_log.rejected == [f"{good[0]}: unexpected reply: no task is outstanding"]


def test_a_reply_of_the_round_before_is_not_taken_for_this_one() -> None:
    fake = nodes()
    old = answers(fake, open_phase("train", RoundLog(request(), 2, Listener()), tasks(fake), TTL))
    round_log = log()
    open_phase("train", round_log, tasks(fake), TTL)
    assert accepted(old, round_log, list(WEIGHTS)) == []
    nobody = [f"{client}: unexpected reply: no task is outstanding" for client in TRAIN]
    silent = [f"{client}: no reply before the deadline" for client in TRAIN]
    assert round_log.rejected == nobody + silent


def test_an_answer_of_a_stranger_is_named_as_such() -> None:
    fake = nodes()
    old = answers(fake, open_phase("train", RoundLog(request(), 2, Listener()), tasks(fake), TTL))
    round_log = log()
    open_phase("train", round_log, tasks(fake)[:1], TTL)
    assert accepted(old[1:2], round_log, list(WEIGHTS)) == []
    assert round_log.rejected[0] == "a node: unexpected reply: no task is outstanding"


def test_a_val_client_that_never_came_is_missed() -> None:
    """Two are expected; the one that is there cannot stand for both."""
    fake, round_log = nodes(), log()
    munster = [Task(member, WEIGHTS) for member in fake.registry.with_role("val")[1:]]
    accepted(answers(fake, open_phase("evaluate", round_log, munster, TTL)), round_log, [])
    round_log.reject_unscored(2)
    assert round_log.rejected == ["val: no scores without 1 that never connected"]
    assert round_log.scores() is None


def test_silent_clients_are_named_and_the_observer_hears_of_it() -> None:
    fake, listener = nodes(), Listener()
    round_log = RoundLog(request(), 3, listener)
    replies = answers(fake, open_phase("train", round_log, tasks(fake), TTL))
    assert len(accepted(replies[:1], round_log, list(WEIGHTS))) == 1
    assert round_log.rejected == [
        "bochum: no reply before the deadline",
        "bremen: no reply before the deadline",
    ]
    assert listener.messages == [f"round 3: {line}" for line in round_log.rejected]
    assert listener.replies == [("aachen", "train", 1, 3)]


def test_a_round_s_lines_are_sorted_and_complete() -> None:
    fake, round_log = nodes(), log()
    members = fake.registry.members
    train = answers(fake, open_phase("train", round_log, tasks(fake), TTL))
    accepted(train[::-1], round_log, list(WEIGHTS))
    evaluate = [Task(member, WEIGHTS, "aachen") for member in members]
    scored = answers(fake, open_phase("evaluate", round_log, evaluate, TTL))
    accepted(scored[::-1], round_log, [])
    round_log.reject("ulm", "a reason")
    lines = round_log.result_lines()

    assert [(line["role"], line["client"], line.get("model")) for line in lines] == [
        ("train", "aachen", None),
        ("train", "bochum", None),
        ("train", "bremen", None),
        ("heldout", "aachen", "aachen"),
        ("heldout", "bochum", "aachen"),
        ("heldout", "bremen", "aachen"),
        ("val", "lindau", "aachen"),
        ("val", "munster", "aachen"),
        ("round", None, None),
    ]
    assert {(line["arm"], line["seed"], line["round"]) for line in lines} == {("plain", 0, 3)}
    assert lines[1] == {
        "arm": "plain",
        "seed": 0,
        "round": 3,
        "client": "bochum",
        "role": "train",
        "confusion": None,
        "bytes_up": BYTES,
        "bytes_down": BYTES,
        "loss": 0.5,
        "num_examples": 2,
        "seconds": 0.5,
    }
    assert lines[6]["confusion"] == [[10, 1], [0, 5]]
    assert (lines[6]["bytes_up"], lines[6]["bytes_down"]) == (0, BYTES)
    last = lines[-1]
    assert last["rejected"] == ["ulm: a reason"]
    assert last["loss"] == pytest.approx((1 * 0.25 + 2 * 0.5 + 3 * 0.75) / 6)
    assert (last["bytes_up"], last["bytes_down"], last["confusion"]) == (0, 0, None)


def counting(counts: Mapping[str, Sequence[Sequence[int]]]) -> FakeNodes:
    """Nodes that answer an evaluation with the counts given; the others fail."""

    def answer(asked: Request, client: str) -> Reply | Error:
        if client not in counts:
            return Error(500, "out of memory")
        return reply(asked, client, confusion=np.array(counts[client]))

    return nodes(dict.fromkeys((*TRAIN, *VAL), answer))


def evaluated(fake: FakeNodes, models: Sequence[str | None] = (None,)) -> RoundLog:
    """A round in which all clients were asked to score each of the models."""
    round_log = log()
    asked = [Task(member, WEIGHTS, model) for member in fake.registry.members for model in models]
    accepted(answers(fake, open_phase("evaluate", round_log, asked, TTL)), round_log, [])
    round_log.reject_unscored(len(VAL))
    return round_log


VAL_COUNTS = {"lindau": [[9, 1], [0, 0]], "munster": [[0, 0], [5, 5]]}


def test_scores_are_of_the_summed_counts_of_val_clients_only() -> None:
    """Two val clients of [[9, 1], [0, 0]] and [[0, 0], [5, 5]]; the held-out one does not count."""
    round_log = evaluated(counting(VAL_COUNTS | {"aachen": [[0, 9], [9, 0]]}))
    scores = round_log.scores()
    assert scores is not None
    assert scores.mIoU == pytest.approx((100 * 9 / 15 + 100 * 5 / 11) / 2)
    assert round_log.train_loss is None
    assert log().scores() is None


def test_models_of_their_own_are_scored_as_in_the_summary() -> None:
    """Each model has all val clients; the one that is perfect and the one above are averaged."""

    def answer(asked: Request, client: str) -> Reply:
        mine = asked.arrays["head.b"].any()
        counts = VAL_COUNTS.get(client, [[0, 1], [1, 0]])
        return reply(asked, client, confusion=np.diag([3, 3]) if mine else np.array(counts))

    fake, round_log = nodes(dict.fromkeys((*TRAIN, *VAL), answer)), log()
    perfect = WEIGHTS | {"head.b": np.ones(2, np.float32)}
    val = fake.registry.with_role("val")
    asked = [Task(m, w, name) for m in val for w, name in ((WEIGHTS, "ulm"), (perfect, "bonn"))]
    accepted(answers(fake, open_phase("evaluate", round_log, asked, TTL)), round_log, [])
    expected = ((100 * 9 / 15 + 100 * 5 / 11) / 2 + 100) / 2
    scores = round_log.scores()
    assert scores is not None
    assert scores.mIoU == pytest.approx(expected)
    lines = [line for line in round_log.result_lines() if line["role"] == "val"]
    summary = summarise(round_log.result_lines(), ["plain"], ["road", "sky"], 1, 0, 0)
    assert summary.arms["plain"].mIoU == pytest.approx(expected)
    assert series(lines).val_miou["plain"] == {3: (pytest.approx(expected),)}


@pytest.mark.parametrize("models", [[None], ["ulm", "bonn"]])
def test_a_round_without_all_val_clients_has_no_scores_and_no_counts(
    models: Sequence[str | None],
) -> None:
    """Whoever reads its lines cannot take one client for all; what it cost stays."""
    home = {client: [[1, 0], [0, 1]] for client in TRAIN}
    round_log = evaluated(counting(home | {"munster": VAL_COUNTS["munster"]}), models)
    assert round_log.scores() is None
    assert round_log.rejected[-1] == "val: no scores without lindau"
    lines = round_log.result_lines()
    assert {line["client"] for line in lines if line["confusion"] is not None} == set(TRAIN)
    val = [line for line in lines if line["role"] == "val"]
    assert [(line["client"], line["bytes_down"]) for line in val] == [("munster", BYTES)] * len(
        models
    )


def test_an_error_of_flower_s_own_is_the_client_s_that_it_is_about() -> None:
    """The SuperLink signs as node 1, in no group: only the id of the message tells the client."""
    fake, round_log = nodes(), log()
    messages = open_phase("train", round_log, tasks(fake), TTL)
    replies = answers(fake, messages)
    bochum = messages[1].metadata
    lost = create_message_error_unavailable_ins_message(bochum.message_id, bochum.run_id)
    assert lost.metadata.src_node_id == 1
    good = accepted([replies[0], lost, replies[2]], round_log, list(WEIGHTS))
    assert good == ["aachen", "bremen"]
    (rejected,) = round_log.rejected
    assert rejected.startswith("bochum: ")
    assert "no answer" not in rejected


def test_an_answer_in_another_node_s_place_is_rejected() -> None:
    fake, round_log = nodes(), log()
    replies = answers(fake, open_phase("train", round_log, tasks(fake), TTL))
    replies[1].metadata.__dict__["_src_node_id"] = replies[0].metadata.src_node_id
    assert accepted(replies, round_log, list(WEIGHTS)) == ["aachen", "bremen"]
    assert round_log.rejected == ["bochum: reply from another node"]


def test_a_message_lives_as_long_as_its_round() -> None:
    fake = nodes()
    assert {m.metadata.ttl for m in open_phase("train", log(), tasks(fake), 7.5)} == {7.5}
