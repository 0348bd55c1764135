"""Robust aggregations against hand-worked values, other implementations, and clients that lie."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_nodes import Answer, FakeNodes, honest, nodes, reply
from fake_runs import START, Run
from flwr.app import Array, ArrayRecord, Error, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as np_arrays
from pydantic import ValidationError
from scipy.stats import trim_mean

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError
from strategies.aggregation.aggregators import aggregator_of, robustness_warning
from strategies.aggregation.robust import ClippedMean, CoordinateMedian, Krum, TrimmedMean
from strategies.aggregation.streaming_mean import Aggregator, StreamingMean

REFERENCE: Arrays = {"w": np.zeros((2, 2), np.float32), "b": np.zeros(3, np.float32)}
AGGREGATORS: dict[str, Callable[[Mapping[str, np.ndarray]], Aggregator]] = {
    "clipped": lambda reference: ClippedMean(reference, 1.5),
    "median": CoordinateMedian,
    "trimmed": lambda reference: TrimmedMean(reference, 0.2),
    "krum": lambda reference: Krum(reference, 1, is_multi=False),
    "multi-krum": lambda reference: Krum(reference, 1, is_multi=True),
}
LAWS = settings(max_examples=60)
NUMBERS = st.floats(-1e6, 1e6, width=32)


def replies(num: int, seed: int = 0) -> list[Arrays]:
    chance = np.random.default_rng(seed)
    return [
        {n: chance.normal(size=v.shape).astype(np.float32) for n, v in REFERENCE.items()}
        for _ in range(num)
    ]


def aggregate(aggregator: Aggregator, given: list[Arrays], weights: Any = None) -> Arrays:
    for number, arrays in enumerate(given):
        aggregator.add(arrays, 1 if weights is None else weights[number])
    return aggregator.result()


def of_numbers(aggregator: Callable[..., Aggregator], values: list[float], **options: Any) -> float:
    reference = {"w": np.zeros(1, np.float32)}
    given = [{"w": np.array([value], np.float32)} for value in values]
    return float(aggregate(aggregator(reference, **options), given)["w"][0])


def test_medians_by_hand() -> None:
    assert of_numbers(CoordinateMedian, [1, 1000, 2]) == 2
    assert of_numbers(CoordinateMedian, [1, 1000, 2, 4]) == 3


def test_trimmed_means_by_hand() -> None:
    """Of five values a fifth at each end is one: (2 + 3 + 7) / 3 = 4; of four, too: one at least.

    Of three the middle stays; of two nothing can be cut off.
    """
    assert of_numbers(TrimmedMean, [2, 1000, 3, 7, -1000], trim_fraction=0.2) == 4
    assert of_numbers(TrimmedMean, [1, 2, 3, 6], trim_fraction=0.2) == 2.5
    assert of_numbers(TrimmedMean, [1, 2, 1000], trim_fraction=0.1) == 2
    assert of_numbers(TrimmedMean, [1, 2], trim_fraction=0.4) == 1.5
    assert of_numbers(TrimmedMean, [1, 2, 3, 6], trim_fraction=0.25) == 2.5


def test_clipped_means_by_hand() -> None:
    """From (0, 0): (3, 4) of norm 5 becomes (0.6, 0.8); (0.6, 0) stays; the sum is halved."""
    mean = ClippedMean({"w": np.zeros(2, np.float32)}, clip_norm=1.0)
    mean.add({"w": np.array([3, 4], np.float32)}, 1)
    mean.add({"w": np.array([0.6, 0], np.float32)}, 1)
    assert mean.result()["w"] == pytest.approx([0.6, 0.4])


def test_clipping_starts_at_the_weights_that_were_sent() -> None:
    mean = ClippedMean({"w": np.array([10.0, 10.0])}, clip_norm=1.0)
    mean.add({"w": np.array([13.0, 14.0])}, 7)
    assert mean.result()["w"] == pytest.approx([10.6, 10.8])


def test_a_mean_of_short_updates_is_the_plain_mean_to_the_bit() -> None:
    given, weights = replies(5), [1, 2, 3, 4, 5]
    plain = aggregate(StreamingMean(REFERENCE), given, weights)
    clipped = aggregate(ClippedMean(REFERENCE, 1e9), given, weights)
    assert all(plain[name].tobytes() == clipped[name].tobytes() for name in plain)


def test_krum_by_hand() -> None:
    """n = 5, f = 1: the two nearest count. Squared distances of 0 1 2 4 9 give scores
    1 + 4, 1 + 1, 1 + 4, 4 + 9, 25 + 49: krum takes 1, multi-krum the mean of 0 1 2 4."""
    values = [0.0, 1.0, 2.0, 4.0, 9.0]
    assert of_numbers(Krum, values, num_byzantine=1, is_multi=False) == 1
    assert of_numbers(Krum, values, num_byzantine=1, is_multi=True) == 1.75


def test_krum_wants_two_f_plus_three_replies() -> None:
    with pytest.raises(RunError, match="num_byzantine 2 needs 7 good replies, got 6"):
        of_numbers(Krum, [1.0] * 6, num_byzantine=2, is_multi=False)


@LAWS
@given(np_arrays(np.float32, (7, 5), elements=NUMBERS))
def test_median_and_trimmed_mean_are_numpy_s_and_scipy_s(values: np.ndarray) -> None:
    reference = {"w": np.zeros(5, np.float32)}
    given = [{"w": row} for row in values]
    median = aggregate(CoordinateMedian(reference), given)["w"]
    assert median.tolist() == np.median(values, axis=0).astype(np.float32).tolist()
    trimmed = aggregate(TrimmedMean(reference, 0.3), given)["w"]
    wanted = trim_mean(values.astype(np.float64), 0.3, axis=0)
    assert trimmed == pytest.approx(wanted, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_lying", [1, 2])
def test_krum_chooses_what_flower_s_own_chooses(seed: int, num_lying: int) -> None:
    given = replies(9, seed)
    contents = [
        RecordDict({"arrays": ArrayRecord({n: Array(v) for n, v in arrays.items()})})
        for arrays in given
    ]
    for is_multi, number in ((False, 1), (True, 9 - num_lying)):
        chosen = select_multikrum(contents, num_lying, number)
        ours = aggregate(Krum(REFERENCE, num_lying, is_multi), given)
        theirs = [content.array_records["arrays"] for content in chosen]
        for name in REFERENCE:
            wanted = np.mean([records[name].numpy() for records in theirs], axis=0)
            assert ours[name] == pytest.approx(wanted, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_replies_changes_no_bit(name: str, seed: int) -> None:
    given = replies(7)
    given[3] = given[5]  # ties, too
    shuffled = [given[k] for k in np.random.default_rng(seed).permutation(7)]
    one, other = (aggregate(AGGREGATORS[name](REFERENCE), order) for order in (given, shuffled))
    assert all(one[tensor].tobytes() == other[tensor].tobytes() for tensor in REFERENCE)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_equal_replies_are_returned_as_they_are(name: str) -> None:
    one = {n: v / 10 for n, v in replies(1)[0].items()}
    found = aggregate(AGGREGATORS[name](REFERENCE), [one] * 5)
    assert all(found[n] == pytest.approx(one[n], rel=1e-6) for n in REFERENCE)
    assert {n: (v.shape, v.dtype) for n, v in found.items()} == {
        n: (v.shape, v.dtype) for n, v in REFERENCE.items()
    }


@pytest.mark.parametrize("name", AGGREGATORS)
def test_bad_updates_are_refused_and_change_nothing(name: str) -> None:
    aggregator, spoilt = AGGREGATORS[name](REFERENCE), AGGREGATORS[name](REFERENCE)
    for arrays in replies(5):
        aggregator.add(arrays, 1)
        spoilt.add(arrays, 1)
        for bad in ({"b": np.full(3, np.nan, np.float32)}, {"b": np.zeros(3)}, {"c": np.zeros(1)}):
            with pytest.raises(ValueError, match=r"^b |names"):
                spoilt.add(arrays | bad, 1)
        with pytest.raises(ValueError, match="expected num_examples above 0"):
            spoilt.add(arrays, 0)
    one, other = aggregator.result(), spoilt.result()
    assert all(one[n].tobytes() == other[n].tobytes() for n in REFERENCE)


CLIENTS: dict[str, Role] = dict.fromkeys("abcdefg", "train") | {"val": "val"}


def poisons(asked: Any, client: str) -> Any:
    """Ten times the honest step, the other way, and a claim of a thousand images."""
    if asked.task != "train":
        return honest(asked, client)
    arrays = {n: np.asarray(v - 10, v.dtype) for n, v in asked.arrays.items()}
    return reply(asked, client, arrays=arrays, num_examples=1000)


def step_of(tmp_path: Path, poisoned: Mapping[str, Answer], **federation: Any) -> float:
    """How far a round moved the first weight; every honest client moves it by 1."""
    run = Run(tmp_path, FakeNodes(CLIENTS, poisoned))
    run.train({"num_rounds": 1, "max_retries": 0} | federation)
    return float(run.checkpoint().arrays["head.w"][0] - START["head.w"][0])


ROBUST: dict[str, dict[str, Any]] = {
    "median": {},
    "trimmed-mean": {"trim_fraction": 0.3},
    "krum": {"num_byzantine": 2},
    "multi-krum": {"num_byzantine": 2},
}


@pytest.mark.parametrize("name", ROBUST)
def test_two_liars_of_seven_do_not_turn_a_robust_round(tmp_path: Path, name: str) -> None:
    liars = {"b": poisons, "f": poisons}
    assert step_of(tmp_path, liars, aggregation=name, **ROBUST[name]) == 1


def test_two_liars_of_seven_turn_the_mean(tmp_path: Path) -> None:
    """(5 * 1 - 2000 * 10) / 2005; with equal weights (5 - 20) / 7."""
    liars = {"b": poisons, "f": poisons}
    assert step_of(tmp_path / "a", liars) == pytest.approx(-19995 / 2005, rel=1e-5)
    equal = step_of(tmp_path / "b", liars, weighting="equal")
    assert equal == pytest.approx(-15 / 7, rel=1e-5)


def test_a_clipped_liar_moves_the_mean_no_further_than_an_honest_client(tmp_path: Path) -> None:
    """Steps of 1 on seven weights have norm sqrt 7; the liars' are scaled down to -1 each."""
    liars = {"b": poisons, "f": poisons}
    clip = {"aggregation": "norm-clipping", "clip_norm": 7**0.5, "weighting": "equal"}
    assert step_of(tmp_path, liars, **clip) == pytest.approx((5 - 2) / 7, rel=1e-5)


@pytest.mark.parametrize("name", [*ROBUST, "norm-clipping"])
def test_every_aggregation_is_reached_by_its_name(name: str) -> None:
    values = ROBUST.get(name, {"clip_norm": 1.0}) | {"aggregation": name}
    config = FederationConfig.model_validate(values)
    assert type(aggregator_of(config, REFERENCE, 7)) is not StreamingMean


def test_krum_s_quorum_is_what_krum_needs(tmp_path: Path) -> None:
    """Four of seven would do for the mean; krum with f = 2 wants all seven, and asks again."""
    fails: Answer = lambda asked, client: poisons(asked, "x")  # noqa: E731
    with pytest.raises(RunError, match="expected good updates from 7 of 7 clients, got 6"):
        step_of(tmp_path, {"b": fails}, aggregation="krum", num_byzantine=2)


def test_contradicting_options_are_refused() -> None:
    noise = {"noise_multiplier": 1.0, "clipping_norm": 1.0}
    for values, why in (
        ({"aggregation": "norm-clipping"}, "needs clip_norm"),
        ({"aggregation": "median", "privacy": noise}, "needs aggregation mean"),
        ({"max_norm_ratio": 2.0, "privacy": noise}, "forbids max_norm_ratio"),
    ):
        with pytest.raises(ValueError, match=why):
            FederationConfig.model_validate(values)


@pytest.mark.parametrize(
    ("clients", "changes", "is_enough"),
    [
        (2, {"aggregation": "krum"}, False),
        (4, {"aggregation": "multi-krum"}, False),
        (5, {"aggregation": "krum"}, True),
        (6, {"aggregation": "krum", "num_byzantine": 2}, False),
        (8, {"aggregation": "krum", "fraction_train": 0.5}, False),
        (10, {"aggregation": "krum", "fraction_train": 0.5}, True),
        (1, {"aggregation": "mean"}, True),
    ],
)
def test_krum_with_too_few_clients_is_refused_with_the_config(
    clients: int, changes: dict[str, Any], is_enough: bool
) -> None:
    """It was refused in round 1, after all images had been encrypted."""
    values = {"clients": clients, "federation": changes}
    if is_enough:
        Config.model_validate(values)
        return
    with pytest.raises(ValidationError, match=r"needs \d clients or more, got \d; lower num_byz"):
        Config.model_validate(values)


@pytest.mark.parametrize(
    ("aggregation", "num_asked", "why"),
    [
        ("trimmed-mean", 2, "cuts off no update with 2 clients per round: it is their plain mean"),
        ("trimmed-mean", 3, None),
        ("median", 2, "has no middle with 2 clients per round"),
        ("median", 3, None),
        ("mean", 1, None),
    ],
)
def test_robustness_warning_is_said(aggregation: str, num_asked: int, why: str | None) -> None:
    line = robustness_warning(
        FederationConfig.model_validate({"aggregation": aggregation}), num_asked
    )
    assert (line is None) == (why is None)
    assert why is None or why in str(line)


def test_a_round_waits_for_as_many_as_its_aggregation_wants(tmp_path: Path) -> None:
    """Of two replies nothing can be trimmed: that would be the mean under another name."""
    fake = nodes({"bochum": lambda asked, client: Error(500, "the node failed")})
    for aggregation in ("trimmed-mean", "median"):
        with pytest.raises(RunError, match="expected good updates from 3 of 3 clients, got 2"):
            Run(tmp_path / aggregation, fake).train({"aggregation": aggregation})
