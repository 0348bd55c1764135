"""Whole rounds over fake nodes: the mean, the draw, the rejections, the results, the resume."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_nodes import (
    TRAIN,
    VAL,
    Answer,
    FakeNodes,
    Listener,
    honest,
    nodes,
    reply,
    request,
)
from flwr.app import Error, RecordDict

from fl_ppseg.config import FederationConfig
from fl_ppseg.errors import RunError
from fl_ppseg.messages import Arrays, Role, pack_arrays
from fl_ppseg.run_folder import Checkpoint, RunFolder
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from strategies.arm_run import ArmRun
from strategies.city_strategy import CityStrategy
from strategies.grid import LazyGrid
from strategies.local_only import LocalOnlyStrategy

EMBEDDING = EMBEDDING_TENSORS[0]
START: Arrays = {
    EMBEDDING: np.zeros((2, 2), np.float32),
    "head.w": np.array([1, 2, 3], np.float32),
    "norm.num_batches_tracked": np.array(4),
}
ABOUT = {"arm": "plain", "seed": 0}
MEAN_STEP = (1 * 1 + 2 * 2 + 3 * 3) / (1 + 2 + 3)
"""Of all three cities: steps 1, 2, 3 weighted by 1, 2, 3 examples."""


class Run:
    """A strategy over fake nodes, from its start or from a checkpoint."""

    def __init__(self, path: Path, fake: FakeNodes | None = None) -> None:
        self.fake = fake or nodes()
        self.folder = RunFolder(path)
        self.folder.path.mkdir(exist_ok=True)
        self.listener = Listener()

    def train(
        self,
        federation: Mapping[str, Any] | None = None,
        resumed: Checkpoint | None = None,
        until: int | None = None,
        kind: type[CityStrategy] = CityStrategy,
        is_centralised: bool = False,
        **changes: Any,
    ) -> "Run":
        config = FederationConfig.model_validate({"num_rounds": 2} | dict(federation or {}))
        roll = self.fake.roll(self.listener)
        run = ArmRun(request(**changes), config, roll, ABOUT, is_centralised)
        arrays = resumed.arrays if resumed else START
        kind(run, self.folder, self.listener, resumed).start(
            LazyGrid(self.fake.grid),
            pack_arrays(arrays),
            num_rounds=(until or config.num_rounds) - (resumed.round if resumed else 0),
            timeout=60,
        )
        return self

    def checkpoint(self) -> Checkpoint:
        found = self.folder.latest("plain", 0)
        assert found is not None
        return found

    def trained(self) -> list[list[str]]:
        """Cities asked in each round."""
        asked = [(round, city) for task, round, city in self.fake.asked if task == "train"]
        rounds = sorted({round for round, _ in asked})
        return [[city for r, city in asked if r == round] for round in rounds]

    def lines(self, role: str) -> list[dict[str, Any]]:
        return [line for line in self.folder.lines() if line["role"] == role]


def assert_same(ours: Arrays, theirs: Arrays) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert (value.dtype, value.shape) == (theirs[name].dtype, theirs[name].shape)
        assert value.tobytes() == theirs[name].tobytes()


def moved(by: float) -> Arrays:
    """The start, every weight moved; counters are whole numbers."""
    return {name: np.asarray(value + by, dtype=value.dtype) for name, value in START.items()}


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    """14 / 6 a round on fp32; the int64 counter drops its fraction: 4 + 2, then 6 + 2."""
    run = Run(tmp_path).train()
    weights = run.checkpoint().arrays
    assert weights["head.w"] == pytest.approx(START["head.w"] + 2 * MEAN_STEP, rel=1e-6)
    assert weights["norm.num_batches_tracked"] == 8
    assert run.checkpoint().round == 2
    assert {name: (v.dtype, v.shape) for name, v in weights.items()} == {
        name: (v.dtype, v.shape) for name, v in START.items()
    }


def test_results_are_sorted_and_complete(tmp_path: Path) -> None:
    run = Run(tmp_path).train()
    one_round = [*(("train", c) for c in TRAIN), *(("heldout", c) for c in TRAIN)]
    one_round += [*(("val", c) for c in VAL), ("round", None)]
    found = [(line["round"], line["role"], line["city"]) for line in run.folder.lines()]
    assert found == [(k, *who) for k in (1, 2) for who in one_round]
    nbytes = sum(value.nbytes for value in START.values())
    assert {line["bytes_up"] for line in run.lines("train")} == {nbytes}
    assert {line["bytes_up"] for line in run.lines("val")} == {0}
    assert {line["bytes_down"] for line in run.lines("val")} == {nbytes}
    loss = (1 * 0.25 + 2 * 0.5 + 3 * 0.75) / 6
    assert [line["loss"] for line in run.lines("round")] == pytest.approx([loss, loss])
    road, sky = 100 * 20 / 22, 100 * 10 / 12
    miou = pytest.approx((road + sky) / 2)
    assert run.listener.rounds == [(1, pytest.approx(loss), miou), (2, pytest.approx(loss), miou)]


def altered(name: str, value: np.ndarray) -> Answer:
    def answer(asked: Any, city: str) -> Any:
        good = reply(asked, city)
        return reply(asked, city, arrays=good.arrays | {name: value}) if good.arrays else good

    return answer


def when_training(bad: Answer) -> Answer:
    return lambda asked, city: (bad if asked.task == "train" else honest)(asked, city)


BAD_UPDATES: dict[str, tuple[Answer, str]] = {
    "error": (lambda asked, city: Error(500, "the node failed"), "the node failed"),
    "empty": (lambda asked, city: RecordDict(), "wanted records"),
    "NaN": (altered("head.w", np.array([1, np.nan, 1], np.float32)), "head.w holds NaN"),
    "shape": (altered("head.w", np.ones(4, np.float32)), "head.w has another shape"),
    "dtype": (altered("head.w", np.ones(3)), "head.w has another shape or dtype"),
    "name": (altered("key", np.ones(3)), "not allowed: key"),
    "missing": (lambda asked, city: reply(asked, city, arrays={}), "3 arrays are missing"),
    "examples": (lambda asked, city: reply(asked, city, num_examples=0), "must be positive"),
    "round": (lambda asked, city: reply(asked, city, round=asked.round - 1), "another run"),
    "run": (lambda asked, city: reply(asked, city, run_id="old"), "another run"),
    "city": (lambda asked, city: reply(asked, "aachen"), "another run, round or city"),
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
    assert [line["city"] for line in run.lines("train")] == ["aachen", "bremen"]
    assert run.listener.messages == [f"round 1: {rejected}"]


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_a_bad_update_leaves_a_lonely_city_where_it_was(tmp_path: Path, case: str) -> None:
    bad, why = BAD_UPDATES[case]
    run = Run(tmp_path, nodes({"bochum": when_training(bad)}))
    run.train({"num_rounds": 1}, kind=LocalOnlyStrategy)
    weights = run.checkpoint().arrays
    assert weights["bochum//head.w"].tolist() == [1, 2, 3]
    assert weights["bremen//head.w"].tolist() == [4, 5, 6]
    assert why in run.lines("round")[0]["rejected"][0]


FAILS: Answer = lambda asked, city: Error(500, "out of memory")  # noqa: E731


@pytest.mark.parametrize("kind", [CityStrategy, LocalOnlyStrategy])
def test_too_few_good_updates_end_the_run_and_leave_no_results(
    tmp_path: Path, kind: type[CityStrategy]
) -> None:
    run = Run(tmp_path, nodes({"aachen": FAILS, "bochum": FAILS}))
    with pytest.raises(RunError) as failure:
        run.train({"max_retries": 0}, kind=kind)
    assert str(failure.value) == (
        "arm plain, round 1: 1 of 3 cities gave a good update, wanted 2 "
        "(aachen: out of memory; bochum: out of memory)"
    )
    assert run.folder.lines() == []
    assert run.folder.latest("plain", 0) is None


@pytest.mark.parametrize(("share", "ends"), [(0.3, False), (0.34, True), (1.0, True)])
def test_the_quorum_is_the_config_s(tmp_path: Path, share: float, ends: bool) -> None:
    run = Run(tmp_path, nodes({"aachen": FAILS, "bochum": FAILS}))
    if ends:
        with pytest.raises(RunError, match="1 of 3 cities"):
            run.train({"min_replies": share})
    else:
        assert len(run.train({"min_replies": share}).lines("round")) == 2


def in_round(number: int, bad: Answer) -> Answer:
    return lambda asked, city: (bad if asked.round == number else honest)(asked, city)


def test_a_val_city_with_bad_counts_is_rejected_alone(tmp_path: Path) -> None:
    three = np.eye(3, dtype=np.int64)
    bad: Answer = lambda asked, city: reply(asked, city, confusion=three)  # noqa: E731
    run = Run(tmp_path, nodes({"lindau": in_round(1, bad)})).train()
    assert [line["city"] for line in run.lines("val")] == ["munster", *VAL]
    rejected = run.lines("round")[0]["rejected"]
    assert rejected == [
        "lindau: confusion counts of another number of classes",
        "val: no scores without lindau",
    ]


def test_a_round_without_all_val_cities_has_no_scores(tmp_path: Path) -> None:
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
    scored = [(x["round"], x["city"]) for x in run.lines("val") if x["confusion"] is not None]
    assert scored == [(2, city) for city in VAL]
    assert run.trained() == [list(TRAIN), sorted(TRAIN, reverse=True)]


def test_an_arm_whose_last_rounds_all_lack_scores_is_a_failed_run(tmp_path: Path) -> None:
    """Round 1 has scores but is not one of the last two; the last round can be tried again."""
    fails: Answer = lambda asked, city: (honest if asked.round == 1 else FAILS)(asked, city)  # noqa: E731
    rounds = {"num_rounds": 3, "last_rounds": 2}
    run = Run(tmp_path, nodes({"lindau": fails}))
    with pytest.raises(RunError) as failure:
        run.train(rounds)
    assert str(failure.value) == (
        "arm plain: none of the last 2 rounds has scores of all val cities "
        "(lindau: out of memory; val: no scores without lindau)"
    )
    assert [line["round"] for line in run.lines("round")] == [1, 2]
    assert run.checkpoint().round == 2
    again = Run(tmp_path).train(rounds, resumed=run.checkpoint())
    assert [line["round"] for line in again.lines("round")] == [1, 2, 3]


def test_the_one_that_trains_alone_is_not_the_only_one_that_is_scored(tmp_path: Path) -> None:
    """A centralised arm: the first city trains for all, every city scores its own images."""
    run = Run(tmp_path).train({"num_rounds": 1}, is_centralised=True)
    assert run.trained() == [["aachen"]]
    assert [line["city"] for line in run.lines("heldout")] == list(TRAIN)
    assert [line["num_examples"] for line in run.lines("heldout")] == list(TRAIN.values())


def many(order: int = 1) -> FakeNodes:
    """Eight training cities and a val city; node ids with or against the alphabet."""
    cities: dict[str, Role] = dict.fromkeys("abcdefgh", "train") | {"val": "val"}
    return FakeNodes(dict(list(cities.items())[::order]), {})


SOME = {"fraction_train": 0.5, "num_rounds": 6}


def test_the_draw_depends_on_the_seed_and_not_on_node_ids(tmp_path: Path) -> None:
    first = Run(tmp_path / "a", many()).train(SOME)
    again = Run(tmp_path / "b", many(order=-1)).train(SOME)
    other = Run(tmp_path / "c", many()).train(SOME, seed=1)
    assert first.trained() == again.trained()
    assert first.trained() != other.trained()
    assert_same(first.checkpoint().arrays, again.checkpoint().arrays)


def test_each_round_draws_the_fraction_anew(tmp_path: Path) -> None:
    trained = Run(tmp_path, many()).train(SOME).trained()
    assert [len(set(cities)) for cities in trained] == [4] * 6
    assert len({tuple(cities) for cities in trained}) > 1
    assert trained == [sorted(cities) for cities in trained]  # all have one image
    assert len(Counter(city for cities in trained for city in cities)) > 4


@pytest.mark.parametrize(("fraction", "number"), [(0.01, 1), (0.3, 2), (0.99, 8), (1.0, 8)])
def test_the_fraction_is_rounded_to_cities(tmp_path: Path, fraction: float, number: int) -> None:
    run = Run(tmp_path, many()).train({"fraction_train": fraction, "num_rounds": 1})
    assert [len(cities) for cities in run.trained()] == [number]


@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [(1, 1, [1, 2, 3, 4, 5]), (2, 1, [2, 4, 5]), (4, 3, [3, 4, 5]), (9, 2, [4, 5])],
)
def test_evaluated_rounds(tmp_path: Path, every: int, last: int, expected: list[int]) -> None:
    rounds = {"num_rounds": 5, "evaluate_every": every, "last_rounds": last}
    run = Run(tmp_path).train(rounds)
    assert sorted({line["round"] for line in run.lines("val")}) == expected
    assert sorted({line["round"] for line in run.lines("heldout")}) == expected
    assert [line["round"] for line in run.lines("round")] == [1, 2, 3, 4, 5]
    assert [miou is not None for _, _, miou in run.listener.rounds] == [
        k in expected for k in range(1, 6)
    ]


@pytest.mark.parametrize("kind", [CityStrategy, LocalOnlyStrategy])
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    tmp_path: Path, kind: type[CityStrategy], strategy: str
) -> None:
    federation = SOME | {"strategy": strategy, "num_rounds": 4}
    whole = Run(tmp_path / "whole", many()).train(federation, kind=kind)
    half = Run(tmp_path / "half", many()).train(federation, until=2, kind=kind)
    rest = Run(tmp_path / "half", many()).train(federation, resumed=half.checkpoint(), kind=kind)
    assert half.trained() + rest.trained() == whole.trained()
    assert rest.checkpoint().round == 4
    assert_same(rest.checkpoint().arrays, whole.checkpoint().arrays)
    assert [line["round"] for line in rest.lines("round")] == [1, 2, 3, 4]


def test_old_checkpoints_go(tmp_path: Path) -> None:
    Run(tmp_path).train({"num_rounds": 5, "keep_checkpoints": 2})
    names = sorted(path.stem for path in tmp_path.rglob("*.safetensors"))
    assert names == ["round_0004", "round_0005"]


@pytest.mark.parametrize("embedding", ["frozen", "private"])
def test_an_embedding_that_stays_home_is_sent_out_and_never_taken_back(
    tmp_path: Path, embedding: str
) -> None:
    run = Run(tmp_path).train({"num_rounds": 1}, embedding=embedding)
    assert all(EMBEDDING in arrays for _, arrays in run.fake.weights)
    weights = run.checkpoint().arrays
    assert weights.keys() == START.keys()
    assert weights[EMBEDDING].tobytes() == START[EMBEDDING].tobytes()
    assert weights["head.w"] == pytest.approx(START["head.w"] + MEAN_STEP, rel=1e-6)
    nbytes = sum(v.nbytes for name, v in START.items() if name != EMBEDDING)
    assert {line["bytes_up"] for line in run.lines("train")} == {nbytes}


@pytest.mark.parametrize("embedding", ["adapted", "invariant"])
def test_every_other_embedding_is_averaged(tmp_path: Path, embedding: str) -> None:
    weights = Run(tmp_path).train({"num_rounds": 1}, embedding=embedding).checkpoint().arrays
    assert weights[EMBEDDING] == pytest.approx(START[EMBEDDING] + MEAN_STEP, rel=1e-6)


@pytest.mark.parametrize("embedding", ["frozen", "private"])
@pytest.mark.parametrize("kind", [CityStrategy, LocalOnlyStrategy])
def test_an_embedding_that_must_stay_home_is_rejected(
    tmp_path: Path, kind: type[CityStrategy], embedding: str
) -> None:
    leaks: Answer = lambda asked, city: reply(asked, city, arrays=asked.arrays)  # noqa: E731
    run = Run(tmp_path, nodes({"bochum": when_training(leaks)}))
    run.train({"num_rounds": 1}, embedding=embedding, kind=kind)
    assert run.lines("round")[0]["rejected"] == [
        f"bochum: arrays that are not allowed: {EMBEDDING}"
    ]


def test_lonely_cities_keep_their_models_apart(tmp_path: Path) -> None:
    """Each city adds its own step a round to what it had."""
    run = Run(tmp_path).train(kind=LocalOnlyStrategy)
    weights = run.checkpoint().arrays
    assert weights.keys() == {f"{city}//{name}" for city in TRAIN for name in START}
    for city, step in TRAIN.items():
        own = {name: weights[f"{city}//{name}"] for name in START}
        assert_same(own, moved(2 * step))


def test_lonely_models_are_scored_at_home_and_in_every_val_city(tmp_path: Path) -> None:
    run = Run(tmp_path).train({"num_rounds": 1}, kind=LocalOnlyStrategy)
    found = [(line["city"], line["model"]) for line in run.lines("heldout") + run.lines("val")]
    assert found == [(c, c) for c in TRAIN] + [(val, city) for val in VAL for city in TRAIN]
    asked = [task for task, _, _ in run.fake.asked]
    scored = [pair for task, pair in zip(asked, run.fake.weights, strict=True) if task != "train"]
    seen = Counter((city, float(arrays["head.w"][0])) for city, arrays in scored)
    at_home = {(city, 1.0 + step): 1 for city, step in TRAIN.items()}
    away = {(val, 1.0 + step): 1 for val in VAL for step in TRAIN.values()}
    assert seen == at_home | away


def exploding(asked: Any, city: str) -> Any:
    if asked.task != "train":
        return honest(asked, city)
    far = {name: np.asarray(value + 10**6, value.dtype) for name, value in asked.arrays.items()}
    return reply(asked, city, arrays=far)


@pytest.mark.parametrize("kind", [CityStrategy, LocalOnlyStrategy])
def test_an_exploding_update_is_rejected_by_its_norm(
    tmp_path: Path, kind: type[CityStrategy]
) -> None:
    """An honest step moves 4 + 3 floating weights by 1, 2 or 3: norms up to 3 sqrt 7."""
    run = Run(tmp_path, nodes({"bochum": in_round(2, exploding)}))
    run.train({"max_norm_ratio": 10.0}, kind=kind)
    assert run.lines("round")[0]["rejected"] == []
    ((rejected,),) = [line["rejected"] for line in run.lines("round")[1:]]
    assert rejected == (
        "bochum: an update of norm 2.65e+06, more than 10 times the median 5.29 of the round before"
    )
    norms = [(x["round"], x["city"], x["update_norm"]) for x in run.lines("train")]
    expected = [(1, c, s * 7**0.5) for c, s in TRAIN.items()]
    expected += [(2, c, s * 7**0.5) for c, s in TRAIN.items() if c != "bochum"]
    assert [n[:2] for n in norms] == [e[:2] for e in expected]
    assert [n[2] for n in norms] == pytest.approx([e[2] for e in expected])


def test_a_resumed_run_measures_norms_as_before(tmp_path: Path) -> None:
    rounds = {"max_norm_ratio": 10.0}
    half = Run(tmp_path).train(rounds, until=1)
    bad = nodes({"bochum": in_round(2, exploding)})
    rest = Run(tmp_path, bad).train(rounds, resumed=half.checkpoint())
    assert "more than 10 times the median" in rest.lines("round")[1]["rejected"][0]


def test_norms_are_neither_computed_nor_written_by_default(tmp_path: Path) -> None:
    run = Run(tmp_path, nodes({"bochum": in_round(2, exploding)})).train()
    assert all("update_norm" not in line for line in run.folder.lines())
    assert run.lines("round")[1]["rejected"] == []


def failing(times: int) -> Answer:
    """Fails the given number of trainings, then is honest."""
    left = [times]

    def answer(asked: Any, city: str) -> Any:
        if asked.task == "train" and left[0]:
            left[0] -= 1
            return Error(500, "out of memory")
        return honest(asked, city)

    return answer


@pytest.mark.parametrize("kind", [CityStrategy, LocalOnlyStrategy])
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_round_below_its_quorum_asks_the_others_again_to_the_same_bits(
    tmp_path: Path, strategy: str, kind: type[CityStrategy]
) -> None:
    whole = Run(tmp_path / "whole").train({"strategy": strategy}, kind=kind)
    fake = nodes({"aachen": failing(1), "bochum": failing(2)})
    run = Run(tmp_path / "again", fake).train(
        {"strategy": strategy, "min_replies": 1.0, "max_retries": 2}, kind=kind
    )
    assert_same(run.checkpoint().arrays, whole.checkpoint().arrays)
    asked = [city for task, round_, city in fake.asked if task == "train" and round_ == 1]
    assert sorted(asked) == ["aachen"] * 2 + ["bochum"] * 3 + ["bremen"]
    assert [x["city"] for x in run.lines("train") if x["round"] == 1] == list(TRAIN)
    first = run.lines("round")[0]
    assert first["rejected"] == [
        "aachen: out of memory",
        "bochum: out of memory",
        "bochum: out of memory",
    ]
    assert run.listener.messages[2:4] == [
        "round 1: 1 of 3 cities gave a good update, wanted 3; asking aachen, bochum again "
        "(retry 1 of 2)",
        "round 1: bochum: out of memory",
    ]


def test_retries_are_bounded_and_said_in_the_end(tmp_path: Path) -> None:
    fake = nodes({"bochum": failing(99)})
    with pytest.raises(RunError) as failure:
        Run(tmp_path, fake).train({"min_replies": 1.0, "max_retries": 2})
    assert str(failure.value) == (
        "arm plain, round 1: 2 of 3 cities gave a good update, wanted 3 after 3 tries "
        "(bochum: out of memory; bochum: out of memory; bochum: out of memory)"
    )
    assert [city for _, _, city in fake.asked].count("bochum") == 3


def test_who_has_most_to_do_is_asked_first(tmp_path: Path) -> None:
    """By the images of the round before; all that are not known come as if they had the most."""
    run = Run(tmp_path).train({"num_rounds": 2})
    assert run.trained() == [["aachen", "bochum", "bremen"], ["bremen", "bochum", "aachen"]]


def test_a_city_that_joins_trains_from_the_next_round(tmp_path: Path) -> None:
    fake = nodes()
    grid = fake.grid
    hidden = {4}  # aachen

    class Joining(type(grid)):  # type: ignore[misc]
        def get_node_ids(self) -> Any:
            return [n for n in super().get_node_ids() if n not in hidden]

    grid.__class__ = Joining

    class Door(Listener):
        def round_finished(self, round: int, *rest: Any) -> None:
            super().round_finished(round, *rest)
            if round == 2:
                hidden.clear()

    run = Run(tmp_path, fake)
    run.listener = Door()
    run.train({"num_rounds": 4})
    assert [sorted(cities) for cities in run.trained()] == [["bochum", "bremen"]] * 2 + [
        list(TRAIN)
    ] * 2
