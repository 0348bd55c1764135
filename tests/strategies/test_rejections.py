"""What a round does without: bad updates and scores, too few of them, and asking again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_nodes import TRAIN, VAL, Answer, honest, nodes, reply
from fake_runs import ABOUT, EMBEDDING, START, Run, assert_same
from flwr.app import Error, RecordDict

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.system.errors import RunError
from strategies.rounds.federated import FederatedStrategy
from strategies.rounds.local_only import LocalOnlyStrategy


def altered(name: str, value: np.ndarray) -> Answer:
    def answer(asked: Any, client: str) -> Any:
        good = reply(asked, client)
        return reply(asked, client, arrays=good.arrays | {name: value}) if good.arrays else good

    return answer


def when_training(bad: Answer) -> Answer:
    return lambda asked, client: (bad if asked.task == "train" else honest)(asked, client)


BAD_UPDATES: dict[str, tuple[Answer, str]] = {
    "error": (lambda asked, client: Error(500, "the node failed"), "the node failed"),
    "empty": (lambda asked, client: RecordDict(), "expected records"),
    "NaN": (altered("head.w", np.array([1, np.nan, 1], np.float32)), "head.w holds NaN"),
    "shape": (altered("head.w", np.ones(4, np.float32)), "head.w has another shape"),
    "dtype": (altered("head.w", np.ones(3)), "head.w has another shape or dtype"),
    "name": (altered("key", np.ones(3)), "not allowed: key"),
    "missing": (lambda asked, client: reply(asked, client, arrays={}), "3 arrays are missing"),
    "examples": (lambda asked, client: reply(asked, client, num_examples=-1), "is negative"),
    "round": (lambda asked, client: reply(asked, client, round=asked.round - 1), "another run"),
    "run": (lambda asked, client: reply(asked, client, run_id="old"), "another run"),
    "client": (lambda asked, client: reply(asked, "aachen"), "another run, round or client"),
}


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_a_bad_update_counts_for_nothing(tmp_path: Path, case: str) -> None:
    """Without bochum: (1 * 1 + 3 * 3) / 4 = 2.5, exact in fp32."""
    bad, why = BAD_UPDATES[case]
    run = Run(tmp_path, nodes({"bochum": when_training(bad)})).train({"num_rounds": 1})
    assert run.checkpoint().arrays["head.w"].tolist() == [3.5, 4.5, 5.5]
    ((rejected,),) = [line["rejected"] for line in run.lines("round")]
    assert rejected.startswith("bochum: ")
    assert why in rejected
    assert [line["client"] for line in run.lines("train")] == ["aachen", "bremen"]
    heavy = "round 1: bremen weighs 75% of the mean, 3 of 4 images"
    assert run.listener.messages == [f"round 1: {rejected}", heavy]


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_a_bad_update_leaves_a_lonely_client_where_it_was(tmp_path: Path, case: str) -> None:
    bad, why = BAD_UPDATES[case]
    run = Run(tmp_path, nodes({"bochum": when_training(bad)}))
    run.train({"num_rounds": 1}, kind=LocalOnlyStrategy)
    weights = run.checkpoint().arrays
    assert weights["bochum//head.w"].tolist() == [1, 2, 3]
    assert weights["bremen//head.w"].tolist() == [4, 5, 6]
    assert why in run.lines("round")[0]["rejected"][0]


FAILS: Answer = lambda asked, client: Error(500, "out of memory")  # noqa: E731


@pytest.mark.parametrize("kind", [FederatedStrategy, LocalOnlyStrategy])
def test_too_few_good_updates_end_the_run_and_leave_no_results(
    tmp_path: Path, kind: type[FederatedStrategy]
) -> None:
    run = Run(tmp_path, nodes({"aachen": FAILS, "bochum": FAILS}))
    with pytest.raises(RunError) as failure:
        run.train({"max_retries": 0}, kind=kind)
    assert str(failure.value) == (
        "arm plain, round 1: expected good updates from 2 of 3 clients, got 1 "
        "(aachen: out of memory; bochum: out of memory)"
    )
    assert run.folder.lines() == []
    assert run.folder.latest("plain", 0) is None


@pytest.mark.parametrize(("share", "ends"), [(0.3, False), (0.34, True), (1.0, True)])
def test_the_quorum_is_the_config_s(tmp_path: Path, share: float, ends: bool) -> None:
    run = Run(tmp_path, nodes({"aachen": FAILS, "bochum": FAILS}))
    if ends:
        with pytest.raises(RunError, match="of 3 clients, got 1"):
            run.train({"min_replies": share})
    else:
        assert len(run.train({"min_replies": share}).lines("round")) == 2


def in_round(number: int, bad: Answer) -> Answer:
    return lambda asked, client: (bad if asked.round == number else honest)(asked, client)


def test_a_val_client_with_bad_counts_is_rejected_alone(tmp_path: Path) -> None:
    three = np.eye(3, dtype=np.int64)
    bad: Answer = lambda asked, client: reply(asked, client, confusion=three)  # noqa: E731
    run = Run(tmp_path, nodes({"lindau": in_round(1, bad)})).train()
    assert [line["client"] for line in run.lines("val")] == ["munster", *VAL]
    rejected = run.lines("round")[0]["rejected"]
    assert rejected == [
        "lindau: expected confusion counts of 2 classes",
        "val: no scores without lindau",
    ]


def test_a_round_without_all_val_clients_has_no_scores(tmp_path: Path) -> None:
    """The round counts for training; nobody takes munster's score for that of both."""
    run = Run(tmp_path, nodes({"lindau": in_round(1, FAILS)})).train()
    assert [(number, miou is None) for number, _, miou in run.listener.rounds] == [
        (1, True),
        (2, False),
    ]
    assert run.listener.messages == [
        "round 1: lindau: out of memory",
        "round 1: val: no scores without lindau",
    ]
    scored = [(x["round"], x["client"]) for x in run.lines("val") if x["confusion"] is not None]
    assert scored == [(2, client) for client in VAL]
    assert run.trained() == [list(TRAIN), sorted(TRAIN, reverse=True)]


def test_an_arm_whose_last_rounds_all_lack_scores_is_a_failed_run(tmp_path: Path) -> None:
    """Round 1 has scores but is not one of the last two; the last round can be tried again."""
    fails: Answer = lambda asked, client: (honest if asked.round == 1 else FAILS)(asked, client)  # noqa: E731
    rounds = {"num_rounds": 3, "last_rounds": 2}
    run = Run(tmp_path, nodes({"lindau": fails}))
    with pytest.raises(RunError) as failure:
        run.train(rounds)
    assert str(failure.value) == (
        "arm plain: expected scores of all val clients in one of the last 2 rounds, got none "
        "(lindau: out of memory; val: no scores without lindau)"
    )
    assert [line["round"] for line in run.lines("round")] == [1, 2]
    assert run.checkpoint().round == 2
    again = Run(tmp_path).train(rounds, resumed=run.checkpoint())
    assert [line["round"] for line in again.lines("round")] == [1, 2, 3]


@pytest.mark.parametrize("embedding", ["frozen", "private"])
@pytest.mark.parametrize("kind", [FederatedStrategy, LocalOnlyStrategy])
def test_an_embedding_that_must_stay_home_is_rejected(
    tmp_path: Path, kind: type[FederatedStrategy], embedding: str
) -> None:
    leaks: Answer = lambda asked, client: reply(asked, client, arrays=asked.arrays)  # noqa: E731
    run = Run(tmp_path, nodes({"bochum": when_training(leaks)}))
    run.train({"num_rounds": 1}, embedding=embedding, kind=kind)
    assert run.lines("round")[0]["rejected"] == [
        f"bochum: arrays that are not allowed: {EMBEDDING}"
    ]


def exploding(asked: Any, client: str) -> Any:
    if asked.task != "train":
        return honest(asked, client)
    far = {name: np.asarray(value + 10**6, value.dtype) for name, value in asked.arrays.items()}
    return reply(asked, client, arrays=far)


@pytest.mark.parametrize("kind", [FederatedStrategy, LocalOnlyStrategy])
def test_an_exploding_update_is_rejected_by_its_norm(
    tmp_path: Path, kind: type[FederatedStrategy]
) -> None:
    """An honest step moves 4 + 3 floating weights by 1, 2 or 3: norms up to 3 sqrt 7."""
    run = Run(tmp_path, nodes({"bochum": in_round(2, exploding)}))
    run.train({"max_norm_ratio": 10.0}, kind=kind)
    assert run.lines("round")[0]["rejected"] == []
    ((rejected,),) = [line["rejected"] for line in run.lines("round")[1:]]
    assert rejected == (
        "bochum: expected an update of norm at most 10 times the median 5.29 of an "
        "earlier round, got 2.65e+06"
    )
    norms = [(x["round"], x["client"], x["update_norm"]) for x in run.lines("train")]
    expected = [(1, c, s * 7**0.5) for c, s in TRAIN.items()]
    expected += [(2, c, s * 7**0.5) for c, s in TRAIN.items() if c != "bochum"]
    assert [n[:2] for n in norms] == [e[:2] for e in expected]
    assert [n[2] for n in norms] == pytest.approx([e[2] for e in expected])


def test_a_resumed_run_measures_norms_as_before(tmp_path: Path) -> None:
    rounds = {"max_norm_ratio": 10.0}
    half = Run(tmp_path).train(rounds, until=1)
    bad = nodes({"bochum": in_round(2, exploding)})
    rest = Run(tmp_path, bad).train(rounds, resumed=half.checkpoint())
    assert "at most 10 times the median" in rest.lines("round")[1]["rejected"][0]


def test_norms_are_written_and_an_exploding_update_is_rejected_by_default(tmp_path: Path) -> None:
    default = {"max_relative_norm": FederationConfig().max_relative_norm}
    run = Run(tmp_path, nodes({"bochum": in_round(2, exploding)})).train(default)
    assert all(line["update_norm"] > 0 for line in run.lines("train"))
    assert [line["client"] for line in run.lines("train")] == [*TRAIN, "aachen", "bremen"]
    assert "(federation.max_relative_norm 10 of weights" in run.lines("round")[1]["rejected"][0]


def test_the_norms_of_a_private_run_are_not_published(tmp_path: Path) -> None:
    privacy = {"noise_multiplier": 1e-3, "clipping_norm": 1.0}
    start = {name: value for name, value in START.items() if "num_batches" not in name}
    resumed = Checkpoint(0, start, {}, ABOUT)
    run = Run(tmp_path).train({"privacy": privacy}, resumed=resumed)
    assert all("update_norm" not in line for line in run.folder.lines())


def test_a_client_that_moves_the_weights_much_further_than_the_others_is_said(
    tmp_path: Path,
) -> None:
    """Accepted: one client of three could move the model by the whole clip norm unnoticed."""
    far = altered("head.w", np.float32([101, 102, 103]))
    run = Run(tmp_path, nodes({"bochum": when_training(far)})).train(
        {"aggregation": "norm-clipping", "clip_norm": 3.0}
    )
    told = [line for line in run.listener.messages if "times as long" in line]
    assert told == [
        "round 1: the update of bochum is more than 10 times as long as the median; see "
        "update_norm in results.jsonl, and federation.max_norm_ratio"
    ]


def failing(times: int) -> Answer:
    """Fails the given number of trainings, then is honest."""
    left = [times]

    def answer(asked: Any, client: str) -> Any:
        if asked.task == "train" and left[0]:
            left[0] -= 1
            return Error(500, "out of memory")
        return honest(asked, client)

    return answer


@pytest.mark.parametrize("kind", [FederatedStrategy, LocalOnlyStrategy])
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_round_below_its_quorum_asks_the_others_again_to_the_same_bits(
    tmp_path: Path, strategy: str, kind: type[FederatedStrategy]
) -> None:
    whole = Run(tmp_path / "whole").train({"strategy": strategy}, kind=kind)
    fake = nodes({"aachen": failing(1), "bochum": failing(2)})
    run = Run(tmp_path / "again", fake).train(
        {"strategy": strategy, "min_replies": 1.0, "max_retries": 2}, kind=kind
    )
    assert_same(run.checkpoint().arrays, whole.checkpoint().arrays)
    asked = [client for task, round_, client in fake.asked if task == "train" and round_ == 1]
    assert sorted(asked) == ["aachen"] * 2 + ["bochum"] * 3 + ["bremen"]
    assert [x["client"] for x in run.lines("train") if x["round"] == 1] == list(TRAIN)
    first = run.lines("round")[0]
    assert first["rejected"] == [
        "aachen: out of memory",
        "bochum: out of memory",
        "bochum: out of memory",
    ]
    assert run.listener.messages[2:4] == [
        "round 1: expected good updates from 3 of 3 clients, got 1; asking aachen, bochum again "
        "(retry 1 of 2)",
        "round 1: bochum: out of memory",
    ]


def test_retries_are_bounded_and_said_in_the_end(tmp_path: Path) -> None:
    fake = nodes({"bochum": failing(99)})
    with pytest.raises(RunError) as failure:
        Run(tmp_path, fake).train({"min_replies": 1.0, "max_retries": 2})
    assert str(failure.value) == (
        "arm plain, round 1: expected good updates from 3 of 3 clients, got 2 after 3 tries "
        "(bochum: out of memory; bochum: out of memory; bochum: out of memory)"
    )
    assert [client for _, _, client in fake.asked].count("bochum") == 3
