"""The server's step against hand-worked numbers and against Flower's own strategies."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from fl_ppseg.config.federation import FederationConfig
from strategies.aggregation.server_optimizer import ServerOptimizer

Arrays = dict[str, np.ndarray]

FLOATS = array_of(np.float32, 3, elements=st.floats(-(2.0**99), 2.0**99, width=32))
START = np.array([1.0, -2.0, 0.5])
MEANS = (np.array([1.5, -2.0, 0.25]), np.array([1.0, -1.0, 0.0]), np.array([2.0, 3.0, -1.0]))


def optimizer(strategy: str, **values: float) -> ServerOptimizer:
    return ServerOptimizer(FederationConfig.model_validate({"strategy": strategy} | values))


def steps(server: ServerOptimizer, means: Sequence[np.ndarray] = MEANS) -> list[np.ndarray]:
    weights = {"w": START}
    trace = []
    for mean in means:
        weights = server.apply(weights, {"w": mean})
        trace.append(weights["w"])
    return trace


@settings(max_examples=30)
@given(FLOATS, FLOATS)
def test_fedavg_is_the_mean_bit_for_bit(weights: np.ndarray, mean: np.ndarray) -> None:
    result = optimizer("fedavg").apply({"w": weights}, {"w": mean})["w"]
    assert result.tobytes() == mean.tobytes()


def test_fedavg_goes_a_part_of_the_way_with_a_smaller_step() -> None:
    """1 + 0.25 (3 - 1) = 1.5."""
    server = optimizer("fedavg", server_learning_rate=0.25)
    assert server.apply({"w": np.array([1.0])}, {"w": np.array([3.0])})["w"] == [1.5]
    assert server.state == {}


def test_fedavgm_by_hand() -> None:
    """v1 = 2, w1 = 1 + 0.5 * 2 = 2; then v2 = 0.5 * 2 + (2 - 2) = 1, w2 = 2 + 0.5 * 1 = 2.5."""
    server = optimizer("fedavgm", server_learning_rate=0.5, server_momentum=0.5)
    first = server.apply({"w": np.array([1.0])}, {"w": np.array([3.0])})
    assert first["w"] == [2.0]
    assert server.apply(first, {"w": np.array([2.0])})["w"] == [2.5]
    assert server.state["momentum"]["w"] == [1.0]


def test_fedadam_by_hand() -> None:
    """Two steps of algorithm 2 of Reddi et al., with beta1 0.9, beta2 0.99, tau 0.001, eta 0.1.

    d1 = 1: v = 0.1, s = 0.01, step 0.1 * 0.1 / (0.1 + 0.001). d2 = -1 - w1 + 1: see below.
    """
    server = optimizer("fedadam", server_learning_rate=0.1, server_momentum=0.9)
    first = server.apply({"w": np.array([0.0])}, {"w": np.array([1.0])})
    w1 = 0.1 * 0.1 / (0.1 + 0.001)
    assert first["w"][0] == pytest.approx(w1, rel=1e-14)
    second = server.apply(first, {"w": first["w"] - 2.0})
    momentum = 0.9 * 0.1 + 0.1 * -2.0  # -0.11
    variance = 0.99 * 0.01 + 0.01 * 4.0  # 0.0499
    assert second["w"][0] == pytest.approx(w1 + 0.1 * momentum / (math.sqrt(variance) + 0.001))


def test_default_steps_are_those_of_the_docs() -> None:
    """eta: 1 for fedavgm; 0.01 for fedadam, whose first step is then 0.01 * 0.1 / (0.1 + tau)."""
    mean = {"w": np.array([1.0])}
    assert optimizer("fedavgm").apply({"w": np.array([0.0])}, mean)["w"] == [1.0]
    assert optimizer("fedadam").apply({"w": np.array([0.0])}, mean)["w"][0] == pytest.approx(
        0.01 * 0.1 / 0.101
    )


@pytest.fixture
def _flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower wants to know before it makes a message."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(logging.getLogger("flwr"), "level", logging.ERROR)


def flower_steps(strategy: FedAvg, eta_of: object = None) -> list[np.ndarray]:
    """The weights after each round of one of Flower's strategies whose mean we choose."""
    arrays = ArrayRecord({"w": Array(START)})
    trace = []
    for number, mean in enumerate(MEANS, start=1):
        if callable(eta_of):
            strategy.eta = eta_of(number)  # type: ignore[attr-defined]
        strategy.current_arrays = (  # type: ignore[attr-defined]
            {"w": arrays["w"].numpy()} if isinstance(strategy, FedAdam) else arrays
        )
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(mean)}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        result, _ = strategy.aggregate_train(number, [Message(content, 1, "train")])
        assert result is not None
        arrays = result
        trace.append(arrays["w"].numpy())
    return trace


@pytest.mark.usefixtures("_flower")
def test_fedavgm_is_flowers() -> None:
    flower = FedAvgM(server_learning_rate=0.3, server_momentum=0.8)
    ours = steps(optimizer("fedavgm", server_learning_rate=0.3, server_momentum=0.8))
    np.testing.assert_allclose(ours, flower_steps(flower), rtol=1e-12)


@pytest.mark.usefixtures("_flower")
def test_fedadam_is_flowers_without_its_bias_correction() -> None:
    """Flower scales eta by sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1)); the paper does not."""
    eta, beta1, beta2 = 0.1, 0.9, 0.99

    def uncorrected(number: int) -> float:
        return eta * (1 - beta1 ** (number + 1)) / math.sqrt(1 - beta2 ** (number + 1))

    flower = FedAdam(eta=eta, beta_1=beta1, beta_2=beta2, tau=1e-3)
    ours = steps(optimizer("fedadam", server_learning_rate=eta, server_momentum=beta1))
    np.testing.assert_allclose(ours, flower_steps(flower, uncorrected), rtol=1e-12)


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
def test_shapes_and_dtypes_stay_those_of_the_weights(strategy: str) -> None:
    weights: Arrays = {
        "w": np.ones((2, 3), np.float32),
        "half": np.ones(2, np.float16),
        "num_batches_tracked": np.array(4),
    }
    server = optimizer(strategy, server_learning_rate=0.5)
    for _ in range(2):
        mean = {name: np.asarray(value + np.ones_like(value)) for name, value in weights.items()}
        weights_after = server.apply(weights, mean)
        for name, value in weights.items():
            assert isinstance(weights_after[name], np.ndarray)
            assert weights_after[name].dtype == value.dtype
            assert weights_after[name].shape == value.shape
        for moment in server.state.values():
            assert {name: value.shape for name, value in moment.items()} == {
                "w": (2, 3),
                "half": (2,),
            }


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
def test_statistics_are_the_mean_and_a_variance_stays_positive(strategy: str) -> None:
    """A falling variance: momentum would carry it past the mean, to below zero."""
    server = optimizer(strategy, server_learning_rate=0.9, server_momentum=0.9)
    names = ("head.norm.running_var", "head.norm.running_mean", "head.norm.num_batches_tracked")
    weights: Arrays = dict.fromkeys(names, np.ones(2)) | {"head.norm.weight": np.ones(2)}
    for value in (0.5, 0.25, 0.125, 0.0625):
        weights = server.apply(weights, {name: np.full(2, value) for name in weights})
        assert {name: weights[name].tolist() for name in names} == dict.fromkeys(names, [value] * 2)
        assert weights["head.norm.weight"].tolist() != [value] * 2


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_going_on_from_a_kept_state_is_going_on(strategy: str) -> None:
    whole = steps(optimizer(strategy))
    before = optimizer(strategy)
    middle = steps(before, MEANS[:1])[0]
    after = optimizer(strategy)
    after.state = {moment: dict(value) for moment, value in before.state.items()}
    weights = after.apply({"w": middle}, {"w": MEANS[1]})
    last = after.apply(weights, {"w": MEANS[2]})
    assert last["w"].tobytes() == whole[-1].tobytes()
    fresh = optimizer(strategy).apply({"w": middle}, {"w": MEANS[1]})
    assert fresh["w"].tobytes() != whole[1].tobytes()
