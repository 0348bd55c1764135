"""What honest training cannot reach is refused: bounds against torch's optimisers, and runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_nodes
import must_fail
import numpy as np
import pytest
import small_federation as small
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_policy import arm_policy
from test_policy import policy as node_policy

from clients.accepted_weights import ACCEPTED
from clients.policy import permission
from clients.policy.ledger import LEDGER, read_ledger
from clients.policy.node_policy import (
    ArmPolicy,
    RefusedError,
    load_policy,
    policy_path,
    save_policy,
    state_path,
)
from clients.policy.start_weights import (
    WEIGHTS,
    packed_start,
    read_start,
    start_digest,
    write_start,
)
from clients.policy.trust_region import (
    NOISE_DEVIATIONS,
    change_between,
    check_region,
    least_radius,
    project_onto_region,
    radius,
    round_change,
    standalone_change,
)
from clients.vault.consent.terms import (
    LARGER,
    UNKNOWN,
    largest_elsewhere,
    max_change_of,
    terms_of,
)
from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.message_content import Request
from fl_ppseg.learning.reach import BETAS, poly
from fl_ppseg.setr.names import EMBEDDING_TENSORS, is_buffer
from fl_ppseg.system.errors import InputError, RunError
from strategies.aggregation.server_optimizer import ServerOptimizer
from strategies.rounds.federated import FederatedStrategy

NUM_STEPS = 40
RATE = 0.003


def bound(**changes: Any) -> float:
    """Of a round of `NUM_STEPS` steps, one client alone."""
    changes = {"learning_rate": RATE, "weight_decay": 0.0, "batch_size": 1} | changes
    found = round_change(TrainingConfig(**changes), None, NUM_STEPS)
    assert found is not None
    return found


def moved_by(
    kind: Callable[..., torch.optim.Optimizer], gradients: Sequence[float], **settings: Any
) -> list[float]:
    """Where a weight that starts at 0 is after each step."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer, places = kind([weight], lr=RATE, **settings), []
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        places.append(float(weight.detach()))
    return places


def worst_gradients(num_steps: int) -> np.ndarray:
    """g_i = a_i / c_i: of equality in Cauchy and Schwarz at the last step."""
    past = np.arange(num_steps)[::-1]
    return np.asarray((BETAS[0] / BETAS[1]) ** past)


# Steps.


def test_the_decays_are_those_of_the_optimiser_that_trains() -> None:
    assert torch.optim.AdamW([torch.zeros(1)]).defaults["betas"] == BETAS


@pytest.mark.parametrize("num_steps", [1, 2, 7, 40, 300])
def test_the_last_step_of_the_worst_gradients_reaches_the_bound_of_adamw(num_steps: int) -> None:
    """In float64, with gradients so large that eps is nothing beside them."""
    places = moved_by(torch.optim.AdamW, 1e6 * worst_gradients(num_steps), weight_decay=0)
    step = abs(places[-1] - (places[-2] if num_steps > 1 else 0.0))
    training = TrainingConfig(learning_rate=RATE, weight_decay=0, batch_size=1)
    upto, before = (round_change(training, None, n) for n in (num_steps, num_steps - 1))
    assert upto is not None and before is not None
    assert step == pytest.approx(upto - before, rel=1e-9)


def test_the_bound_of_a_step_is_what_it_is_said_to_be_in_words() -> None:
    training = TrainingConfig(learning_rate=1, weight_decay=0, batch_size=1)
    first, many = (round_change(training, None, n) for n in (1, 20_000))
    before = round_change(training, None, 19_999)
    assert first == pytest.approx(1, rel=1e-12) and many is not None and before is not None
    assert many - before == pytest.approx(7.27, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_no_gradients_move_a_weight_of_adamw_beyond_the_bound(seed: int, decay: float) -> None:
    drawn = np.random.default_rng(seed)
    kinds = [
        drawn.normal(size=NUM_STEPS) * np.exp(3 * drawn.normal(size=NUM_STEPS)),
        np.cumprod(1 + drawn.random(NUM_STEPS)),
        worst_gradients(NUM_STEPS),
        -np.ones(NUM_STEPS),
    ]
    most = bound(weight_decay=decay)
    for gradients in kinds:
        places = moved_by(torch.optim.AdamW, gradients, weight_decay=decay)
        assert 0 < max(map(abs, places)) <= most


def test_clipped_sgd_reaches_its_bound_and_does_not_pass_it() -> None:
    settings = {"optimizer": "sgd", "momentum": 0.9, "gradient_clip": 0.5}
    places = moved_by(torch.optim.SGD, [0.5] * NUM_STEPS, momentum=0.9)
    assert abs(places[-1]) == pytest.approx(bound(**settings), rel=1e-9)
    drawn = np.random.default_rng(0).uniform(-0.5, 0.5, NUM_STEPS)
    assert abs(moved_by(torch.optim.SGD, list(drawn), momentum=0.9)[-1]) < bound(**settings)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "gradient_clip": 0.5}])
def test_decay_of_a_large_weight_is_within_the_region(settings: dict[str, Any]) -> None:
    training = TrainingConfig(learning_rate=RATE, weight_decay=0.4, batch_size=1, **settings)
    change = round_change(training, None, NUM_STEPS)
    assert change is not None
    weight = torch.nn.Parameter(torch.tensor([50.0], dtype=torch.float64))
    is_sgd = training.optimizer == "sgd"
    optimizer = (
        torch.optim.SGD([weight], lr=RATE, momentum=0.9, weight_decay=0.4)
        if is_sgd
        else torch.optim.AdamW([weight], lr=RATE, weight_decay=0.4)
    )
    for _ in range(NUM_STEPS):
        weight.grad = torch.tensor([0.5], dtype=torch.float64)
        optimizer.step()
    went = 50 - float(weight.detach())
    most = float(radius(np.array([50.0]), change, training)[0])
    assert change < went <= most


def test_sgd_without_clipping_has_no_bound() -> None:
    training = TrainingConfig(optimizer="sgd", gradient_clip=0)
    assert round_change(training, None, 10) is None
    assert round_change(training, FederationConfig(strategy="fedavgm"), 10) is None
    assert standalone_change(training, FederationConfig(), 10) is None
    settled = round_change(training, FederationConfig(strategy="fedadam"), 10)
    assert settled is not None and settled < 0.03  # the server's own steps are bounded


@pytest.mark.parametrize("changes", [{"weight_decay": 10, "learning_rate": 10}])
def test_settings_without_a_sensible_bound_have_none(changes: dict[str, Any]) -> None:
    assert round_change(TrainingConfig(**changes), FederationConfig(), 10**6) is None


def test_epochs_batches_and_the_heads_factor_count() -> None:
    one = bound()
    assert bound(head_multiplier=10) == pytest.approx(10 * one)
    assert bound(head_multiplier=0.1) == one
    assert bound(local_epochs=3, batch_size=3) == pytest.approx(
        round_change(TrainingConfig(weight_decay=0, batch_size=1), None, 42) or 0
    )


# The server.


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "fedavg"},
        {"strategy": "fedavg", "server_learning_rate": 2.0},
        {"strategy": "fedavgm", "server_momentum": 0.9},
        {"strategy": "fedadam"},
        {"strategy": "fedadam", "server_momentum": 0.5, "server_learning_rate": 0.1},
    ],
)
def test_no_updates_move_a_weight_of_the_server_beyond_the_bound(settings: dict[str, Any]) -> None:
    federation = FederationConfig(num_rounds=12, **settings)
    training = TrainingConfig(learning_rate=RATE, weight_decay=0, batch_size=1)
    update = bound()
    change = round_change(training, federation, NUM_STEPS)
    assert change is not None
    factor = 0.9**2 / 0.99
    for updates in ([update] * 12, [update * factor ** (12 - r) for r in range(1, 13)]):
        server, weights = ServerOptimizer(federation), {"w": np.zeros(1)}
        for round, each in enumerate(updates, 1):
            weights = server.apply(weights, {"w": weights["w"] + each})
            assert 0 < abs(float(weights["w"][0])) <= round * change * (1 + 1e-9)


def test_noise_of_the_coordinators_is_allowed_for_and_fewer_clients_mean_more() -> None:
    training = TrainingConfig(weight_decay=0)
    privacy = {"noise_multiplier": 0.5, "clipping_norm": 2.0}
    federation = FederationConfig.model_validate({"privacy": privacy, "min_replies": 0.5})
    quiet, noisy = (round_change(training, f, 8, 10) for f in (FederationConfig(), federation))
    assert quiet is not None and noisy is not None
    assert noisy - quiet == pytest.approx(NOISE_DEVIATIONS * 0.5 * 2.0 / 5)


def test_who_trains_alone_meets_no_server() -> None:
    settings = small.config(None, arms=["local-only", "plain"], federation={"strategy": "fedadam"})
    arms = arms_of(settings)
    alone_, together = (
        max_change_of(settings, arms[name], 100) for name in ("local-only", "plain")
    )
    assert alone_ is not None and together is not None
    assert alone_ == max_change_of(settings.model_copy(update={"federation": FederationConfig(
        num_rounds=2)}), arms["local-only"], 100)  # fmt: skip
    assert alone_ != together


@pytest.mark.parametrize(
    ("arm", "federation", "does_fall"),
    [
        ("plain", {}, True),
        ("plain", {"aggregation": "median"}, True),
        ("local-only", {"strategy": "fedadam"}, True),
        ("plain", {"strategy": "fedavgm"}, False),  # carries earlier, larger changes on
        ("plain", {"strategy": "fedadam"}, False),
        ("plain", {"privacy": {"noise_multiplier": 0.5, "clipping_norm": 2.0}}, False),
    ],
)
def test_the_bound_falls_with_the_learning_rate_where_nothing_else_moves_weights(
    arm: str, federation: dict[str, Any], does_fall: bool
) -> None:
    settings = small.config(None, arms=[arm], federation=federation)
    # a narrower bound of the owner's own falls too, a wider one is for what the config cannot know
    for own, falling in ((None, does_fall), (1e-4, does_fall), (1e4, False)):
        terms = terms_of(settings, arm, arms_of(settings)[arm], 19, 8, "train", 50, own)
        assert terms.change_falls == falling and terms.max_change == (own or terms.max_change)


def test_the_region_is_the_sum_of_what_each_round_can_do(tmp_path: Path) -> None:
    training = TrainingConfig(poly_power=0.9)
    start = {0: write_start(tmp_path, START)}
    arm = arm_policy(
        start=start, max_change=CHANGE, change_falls=True, num_rounds=30, training=training
    )
    shares = [(1 - number / 30) ** 0.9 for number in range(30)]
    assert change_between(arm, 0, 29) == pytest.approx(CHANGE * sum(shares[:29]))
    assert change_between(arm, 27, 29) == pytest.approx(CHANGE * (shares[27] + shares[28]))
    constant = arm.model_copy(update={"change_falls": False})
    assert change_between(constant, 0, 29) == 29 * CHANGE > 1.75 * change_between(arm, 0, 29)
    moved = 0.9 * 29 * CHANGE
    late = replace(request("train", 30, layer__weight=with_weight(moved)), training=training)
    check_region(constant, late)
    with pytest.raises(RefusedError, match="training reaches at most"):
        check_region(arm, late)


def test_a_rate_that_falls_moves_weights_as_its_bound_falls() -> None:
    """AdamW with the gradients that move it furthest, rounds on end, against the sum of rounds."""
    rounds, training = (
        5,
        TrainingConfig(
            learning_rate=RATE, weight_decay=0.0, batch_size=1, poly_power=0.9, gradient_clip=0.0
        ),
    )
    change = round_change(training, FederationConfig(num_rounds=rounds), NUM_STEPS)
    assert change is not None
    weight, reached = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)), 0.0
    b1, b2 = BETAS
    for number in range(rounds):
        optimizer = torch.optim.AdamW([weight], lr=RATE, weight_decay=0.0, eps=1e-12)
        for step in range(NUM_STEPS):
            progress = (number + step / NUM_STEPS) / rounds
            optimizer.param_groups[0]["lr"] = RATE * poly(progress, training.poly_power)
            gradient = -((b1 / b2) ** (NUM_STEPS - step)) - 1e-3
            weight.grad = torch.full((1,), gradient, dtype=torch.float64)
            optimizer.step()
        reached += change * poly(number / rounds, training.poly_power)
        assert 0.05 * reached < float(weight.detach()) <= reached


def test_an_owner_assumes_larger_clients_than_its_own() -> None:
    assert (largest_elsewhere(85), largest_elsewhere(0)) == (LARGER * 85, UNKNOWN)
    assert largest_elsewhere(85) > 365  # the largest client of Cityscapes


# The node.


START = {
    "layer.weight": np.array([[0.5, -2.0], [0.0, 1.0]], np.float32),
    "norm.running_mean": np.zeros(2, np.float32),
    "norm.num_batches_tracked": np.array(7),
}
CHANGE = 0.25


def agreed(place: Path) -> ArmPolicy:
    start = {0: write_start(place, START)}
    return arm_policy(start=start, max_change=CHANGE)


def request(task: Any = "train", round: int = 3, **arrays: np.ndarray) -> Request:
    named = {name.replace("__", "."): value for name, value in arrays.items()}
    arrays = {name: value.copy() for name, value in START.items()} | named
    return fake_nodes.request(task=task, round=round, num_rounds=4, arrays=arrays)


def with_weight(value: float) -> np.ndarray:
    weight = START["layer.weight"].copy()
    weight[1, 0] = value  # began at 0: decay does not count
    return weight


@pytest.mark.parametrize(("task", "round", "rounds"), [
    ("train", 1, 0), ("train", 3, 2), ("evaluate", 1, 1), ("evaluate", 3, 3),
])  # fmt: skip
def test_weights_are_taken_up_to_the_bound_and_refused_beyond(
    task: str, round: int, rounds: int, tmp_path: Path
) -> None:
    arm, tolerance = agreed(tmp_path), 1e-4 + 1e-3 * 2
    most = rounds * CHANGE + tolerance
    check_region(arm, request(task, round))
    for sign in (1, -1):
        check_region(arm, request(task, round, layer__weight=with_weight(sign * 0.999 * most)))
        with pytest.raises(RefusedError) as caught:
            check_region(arm, request(task, round, layer__weight=with_weight(sign * 1.001 * most)))
        told = str(caught.value)
        assert told.startswith("refused: weights in layer.weight lie ") and "\n" not in told
        assert f"training reaches at most {most:.3g}" in told


@pytest.mark.parametrize("arrays", [
    {"layer__weight": np.zeros((2, 3), np.float32)},
    {"layer__weight": np.zeros(4, np.float32)},
    {"other": np.zeros(1, np.float32)},
])  # fmt: skip
def test_other_names_and_shapes_are_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="the names and shapes of the agreed start"):
        check_region(agreed(tmp_path), request(**arrays))
    short = request()
    short.arrays.pop("layer.weight")
    with pytest.raises(RefusedError, match="names and shapes"):
        check_region(agreed(tmp_path), short)


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_what_is_no_number_is_beyond_every_bound(value: float, tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        check_region(agreed(tmp_path), request(layer__weight=with_weight(value)))


def test_statistics_and_a_policy_without_a_start_are_held_to_the_wide_bound_alone(
    tmp_path: Path,
) -> None:
    far = np.full(2, 1e5, np.float32)
    check_region(agreed(tmp_path), request(norm__running_mean=far))
    check_region(arm_policy(), request(layer__weight=with_weight(1e5)))


def test_the_nearest_weights_of_the_region_are_taken_and_lie_at_its_edge(tmp_path: Path) -> None:
    arm = agreed(tmp_path)
    drawn = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e6):
        wild = {"layer.weight": (scale * drawn.normal(size=(2, 2))).astype(np.float32)}
        for round in (1, 3):
            near = project_onto_region(wild, read_start(next(iter((arm.start or {}).values()))),
                           (round - 1) * CHANGE, arm.training)  # fmt: skip
            check_region(arm, request("train", round, layer__weight=near["layer.weight"]))


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), max_size=5),
    st.floats(0, 1e3),
    st.floats(0, 1),
)
def test_no_weight_has_a_smaller_radius_than_the_least(
    start: list[float], change: float, decay: float
) -> None:
    """A tensor that moved no further is taken without a look at each weight's own."""
    training = TrainingConfig(weight_decay=decay)
    radii = radius(np.array(start, np.float32), change, training)
    assert (radii >= least_radius(change)).all()


def test_start_and_bound_belong_together_in_a_policy(tmp_path: Path) -> None:
    for changes, error in (
        ({"start": {0: tmp_path}}, "must be given together"),
        ({"max_change": 0.1}, "must be given together"),
        ({"start": {1: tmp_path}, "max_change": 0.1}, "a folder for each seed"),
    ):
        with pytest.raises(ValueError, match=error):
            arm_policy(**changes)


# The file.


def test_equal_weights_make_equal_files_whatever_their_order_and_strides() -> None:
    turned = {n: np.asfortranarray(v) for n, v in reversed(START.items())}
    assert packed_start(turned) == packed_start(START)
    assert not any(is_buffer(name) for name in read_names(packed_start(START)))


def read_names(content: bytes) -> list[str]:
    length = int.from_bytes(content[:8], "little")
    return list(json.loads(content[8 : 8 + length]))


def test_a_file_is_read_and_nobody_writes_into_what_was_read(tmp_path: Path) -> None:
    found = read_start(write_start(tmp_path, START))
    np.testing.assert_array_equal(found["layer.weight"], START["layer.weight"])
    with pytest.raises(ValueError, match="read-only"):
        found["layer.weight"][0, 0] = 1


@must_fail.of("start_weights")
def test_start_files_that_must_fail(vector: must_fail.Vector, tmp_path: Path) -> None:
    """The folder's name is right for the content, but where the vector is of another file."""
    content = vector.content
    name = "0" * 32 if vector.name.startswith("another") else start_digest(content)
    folder = tmp_path / name
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(content)
    (folder / WEIGHTS).chmod(0o600)
    with pytest.raises(InputError) as caught:
        read_start(folder)
    assert vector.error in str(caught.value) and "\n" not in str(caught.value)


def test_a_link_an_open_file_and_none_are_refused(tmp_path: Path) -> None:
    folder = write_start(tmp_path, START)
    path, elsewhere = folder / WEIGHTS, tmp_path / "elsewhere"
    path.rename(elsewhere)
    with pytest.raises(InputError, match="cannot be read"):
        read_start(folder)
    path.symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link; expected a regular file"):
        read_start(folder)
    path.unlink()
    elsewhere.rename(path)
    path.chmod(0o666)
    with pytest.raises(InputError, match="others may write this file of start weights"):
        read_start(folder)


# Honest federations.


RUNS: dict[str, dict[str, Any]] = {
    "fedavg": {"arms": ["plain", "per-image-invariant", "per-client-private", "local-only",
                        "centralised", "plain-frozen-embedding"]},
    "fedavgm": {"federation": {"strategy": "fedavgm"}},
    "fedadam": {"federation": {"strategy": "fedadam"}},
    "sgd": {"training": {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 1e-3}},
    "unclipped": {"training": {"optimizer": "sgd", "learning_rate": 0.05, "gradient_clip": 0}},
    "private mean": {"federation": {"privacy": {"noise_multiplier": 0.5, "clipping_norm": 1.0}}},
    "median": {"federation": {"aggregation": "median"}},
    "batch norm and a louder head": {
        "model": {"norm": "batch"}, "training": {"head_multiplier": 10, "proximal_mu": 0.1},
    },
    "shared key": {"arms": ["domain-adaptation"]},
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_honest_training_is_never_refused(
    name: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds of three clients; a refusal would leave the clients out and end the run."""
    changes = {"arms": ["plain"]} | RUNS[name]
    changes["federation"] = {"num_rounds": 3, "last_rounds": 3} | changes.get("federation", {})
    experiment = small.prepared(small.config(scenes, **changes), tmp_path)
    ratios: list[float] = []

    def look(arm: ArmPolicy, asked: Request) -> None:
        check_region(arm, asked)  # raises where it refuses
        ratios.append(_ratio(arm, asked))

    monkeypatch.setattr(permission, "check_region", look)
    folder = small.federate(experiment)
    lines = [json.loads(line) for line in folder.results.read_text("utf-8").splitlines()]
    assert lines and not any(line.get("rejected") for line in lines)
    for arm in changes["arms"]:
        checkpoint = folder.latest(arm, 0)
        assert checkpoint is not None and checkpoint.round == 3
    is_bounded = name != "unclipped"
    assert (0 < max(ratios) <= 1) == is_bounded
    for number in range(experiment.num_nodes):
        state = state_path(experiment.nodes, number)
        assert not any(entry.refused for entry in read_ledger(state / LEDGER))
        assert (state / ACCEPTED).is_dir() == is_bounded


def _ratio(arm: ArmPolicy, asked: Request) -> float:
    """The largest share of the bound that a weight has used; 0 where there is no bound."""
    if arm.start is None or arm.max_change is None or asked.round - (asked.task == "train") == 0:
        return 0.0
    start = read_start(arm.start[asked.seed])
    change = change_between(arm, 0, asked.round - (asked.task == "train"))
    own = EMBEDDING_TENSORS if asked.embedding in ("adapted", "private") else ()
    return max(
        float((np.abs(value - start[name]) / radius(start[name], change, arm.training)).max())
        for name, value in asked.arrays.items()
        if not is_buffer(name) and name not in own
    )


@pytest.fixture
def experiment(scenes: Path, tmp_path: Path) -> Experiment:
    return small.prepared(small.config(scenes, arms=["plain"], seeds=[0, 1]), tmp_path)


def starts_of(experiment: Experiment) -> list[dict[int, Path]]:
    found = [load_policy(policy_path(experiment.nodes, n)) for n in range(experiment.num_nodes)]
    starts = [policy.arms["plain"].start for policy in found]
    assert all(start is not None for start in starts)
    return [start for start in starts if start is not None]


def test_a_simulation_has_one_file_a_seed_for_all_nodes(experiment: Experiment) -> None:
    first, *others = starts_of(experiment)
    assert first.keys() == {0, 1} and first[0] != first[1]
    assert all(other == first for other in others)
    for seed, folder in first.items():
        checkpoint = experiment.folder.latest("plain", seed)
        assert checkpoint is not None
        assert small.bits(read_start(folder)) == small.bits(checkpoint.arrays)
        assert folder.parent == experiment.nodes / "start"
        assert (folder / WEIGHTS).stat().st_mode & 0o777 == 0o600


def test_a_run_that_has_begun_keeps_its_own_start_whatever_its_weights_are_by_now(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = starts_of(experiment)
    monkeypatch.setattr(
        "fl_ppseg.experiment.initial_weights.initial_model", lambda *_: small.model(depth=2)
    )
    again = small.prepared(experiment.config, tmp_path)
    assert starts_of(again) == before
    small.federate(again)
    assert all(again.folder.latest("plain", seed).round == 2 for seed in (0, 1))  # type: ignore[union-attr]


def test_a_file_that_was_changed_refuses_every_request(experiment: Experiment) -> None:
    folder = starts_of(experiment)[0][0]
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1] + b"\7")
    with pytest.raises(InputError, match="damaged start weights"):
        read_start(folder)


def test_paths_of_start_weights_move_with_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    held = node_policy(arms={"plain": agreed(tmp_path / "start")})
    save_policy(held, path)
    assert str(tmp_path) not in path.read_text("utf-8")
    assert load_policy(path) == held


def test_a_run_that_goes_on_with_fewer_rounds_is_not_refused(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds done moved weights by the rates of a longer training."""
    longer, shorter = (
        small.config(scenes, arms=["plain"], federation={"num_rounds": number, "last_rounds": 1})
        for number in (12, 7)
    )
    made = small.prepared(longer, tmp_path)
    finished = FederatedStrategy.aggregate_evaluate

    def stop(self: FederatedStrategy, number: int, replies: Any) -> Any:
        found = finished(self, number, replies)
        if number == 6:
            raise RunError("stopped")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(FederatedStrategy, "aggregate_evaluate", stop)
        with pytest.raises(RunError, match="stopped"):
            small.federate(made)
    recorder = small.Recorder()
    again = small.prepared(shorter, tmp_path)
    for number in range(again.num_nodes):
        assert not load_policy(policy_path(again.nodes, number)).arms["plain"].change_falls
    small.federate(again, client_app=recorder)
    assert [str(x.error.reason) for x in recorder.sent if x.has_error()] == []
