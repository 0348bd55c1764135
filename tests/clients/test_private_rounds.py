"""Differential privacy in a federation: on the coordinator's side, and on the owner's."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from fake_nodes import TRAIN, nodes
from fake_runs import Run

from clients.local_privacy import check_form, privatise_counts, privatise_update, with_rows
from clients.policy.ledger import LEDGER, Limits, Question, grant, make_ledger, read_ledger
from clients.policy.node_policy import (
    LocalPrivacy,
    RefusedError,
    load_policy,
    policy_path,
    save_policy,
    state_path,
)
from fl_ppseg.config.federation import PrivacyConfig
from fl_ppseg.federation.messages import unpack_arrays
from fl_ppseg.learning.privacy import epsilon
from fl_ppseg.system.errors import InputError
from strategies.aggregation import private_mean
from strategies.aggregation.private_mean import PrivateMean

CENTRAL = PrivacyConfig(noise_multiplier=2.0, clipping_norm=1.0, delta=1e-4)
WEIGHTS = {"w": np.zeros(3, np.float32)}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No noise; its standard deviations, as they were asked for."""
    asked: list[float] = []

    def still(update: Any, deviation: float) -> Any:
        asked.append(deviation)
        return update

    monkeypatch.setattr(private_mean, "noisy", still)
    return asked


def test_a_private_mean_by_hand(quiet: list[float]) -> None:
    """(3, 4, 0) is clipped to (.6, .8, 0), (0, 0, .5) stays; four were asked: sums over four."""
    mean = PrivateMean(WEIGHTS, CENTRAL, num_asked=4)
    mean.add({"w": np.array([3, 4, 0], np.float32)}, 1)
    mean.add({"w": np.array([0, 0, 0.5], np.float32)}, 1000)
    assert mean.result()["w"] == pytest.approx([0.15, 0.2, 0.125])
    assert quiet == [2.0]


def test_one_client_moves_the_sum_by_the_clipping_norm_at_most(quiet: list[float]) -> None:
    """With or without it, whatever it sends: what the noise is measured by."""
    for seed in range(5):
        chance = np.random.default_rng(seed)
        others = [{"w": chance.normal(size=3).astype(np.float32)} for _ in range(3)]
        with_it, without = (PrivateMean(WEIGHTS, CENTRAL, num_asked=4) for _ in range(2))
        for arrays in others:
            with_it.add(arrays, 1)
            without.add(arrays, 1)
        with_it.add({"w": (1e6 * chance.normal(size=3)).astype(np.float32)}, 10**6)
        apart = 4 * (with_it.result()["w"].astype(float) - without.result()["w"])
        assert np.linalg.norm(apart) <= 1.0 + 1e-6


def test_the_noise_of_a_private_mean() -> None:
    """Standard deviation z C / m = 2 / 4 on every weight, anew at each call."""
    mean = PrivateMean({"w": np.zeros(20_000, np.float32)}, CENTRAL, num_asked=4)
    drawn = [mean.result()["w"] for _ in range(2)]
    assert drawn[0].std() == pytest.approx(0.5, rel=0.05)
    assert np.corrcoef(*drawn)[0, 1] == pytest.approx(0, abs=0.05)


def test_batch_statistics_are_refused() -> None:
    for name in ("norm.running_var", "norm.num_batches_tracked"):
        with pytest.raises(InputError, match=r"set model\.norm to group"):
            PrivateMean({name: np.zeros(3)}, CENTRAL, 4)


PRIVACY = {"noise_multiplier": 2.0, "clipping_norm": 1.0, "delta": 1e-4}


def test_a_round_says_what_privacy_costs_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_runs.START", {"head.w": np.zeros(3, np.float32)})
    run = Run(tmp_path).train({"num_rounds": 2, "privacy": PRIVACY})
    spent = [(x["num_releases"], x["epsilon"], x["delta"]) for x in run.lines("round")]
    assert spent == [(k, pytest.approx(epsilon(k, 2.0, 1e-4)), 1e-4) for k in (1, 2)]
    assert run.listener.messages == [
        f"round {k}: privacy per client: epsilon {epsilon(k, 2.0, 1e-4):.3g} at delta 0.0001"
        for k in (1, 2)
    ]
    assert np.isfinite(run.checkpoint().arrays["head.w"]).all()


def test_a_round_that_is_repeated_costs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first result may have been seen: the clients scored it before the server was killed."""
    monkeypatch.setattr("fake_runs.START", {"head.w": np.zeros(3, np.float32)})
    half = Run(tmp_path).train({"num_rounds": 2, "privacy": PRIVACY}, until=1)
    start = half.checkpoint()
    Run(tmp_path).train({"num_rounds": 2, "privacy": PRIVACY}, resumed=start)
    half.folder.keep_lines(lambda line: line["round"] <= 1)
    again = Run(tmp_path).train({"num_rounds": 2, "privacy": PRIVACY}, resumed=start)
    assert [line["num_releases"] for line in again.lines("round")] == [1, 3]


def test_nothing_is_said_without_privacy(tmp_path: Path) -> None:
    run = Run(tmp_path, nodes()).train({"num_rounds": 1})
    assert "epsilon" not in run.lines("round")[0]
    assert list(tmp_path.rglob("releases.txt")) == []


def demand(**changes: Any) -> LocalPrivacy:
    values = {"clipping_norm": 0.5, "noise_multiplier": 1.0, "max_epsilon": 20.0}
    return LocalPrivacy.model_validate(values | changes)


def test_an_update_that_leaves_is_clipped_and_noisy() -> None:
    """Noise of 2 C z = 1 on each weight; what is left of an update of norm 1000 sqrt 2 is 0.5."""
    start = {"w": np.zeros(20_000, np.float32), "kept at home": np.zeros(1, np.float32)}
    after = {"w": np.full(20_000, 10, np.float32)}
    found = privatise_update(after, start, demand())
    assert found.keys() == {"w"}
    assert found["w"].dtype == np.float32
    assert found["w"].std() == pytest.approx(1.0, rel=0.05)
    assert found["w"].mean() == pytest.approx(0.5 / math.sqrt(20_000), abs=0.05)


def test_without_a_demand_updates_leave_bit_for_bit() -> None:
    after = {"w": np.float32([1, -0.0, 3])}
    assert privatise_update(after, WEIGHTS, None) is after


def question(round: int, task: Any = "train") -> Question:
    return Question(None, "per-client", 0, round, task, f"{round:064x}")


def test_the_budget_counts_every_answer_repeats_too_and_then_refuses(tmp_path: Path) -> None:
    """An evaluation costs what an update does; a repeated question has fresh noise: it costs."""
    make_ledger(tmp_path)
    privacy = demand(max_epsilon=epsilon(3, 1.0, 1e-5) + 1e-6)
    free = Limits(9, 99)
    for asked in (question(1), question(1), question(1, "evaluate")):
        grant(tmp_path, asked, free, privacy)
    for asked in (question(2), question(1), question(1, "evaluate")):
        with pytest.raises(RefusedError, match=r"budget is spent after 3 answers \(epsilon 8"):
            grant(tmp_path, asked, free, privacy)
    assert [entry.is_release for entry in read_ledger(tmp_path / LEDGER)] == [True] * 3
    grant(tmp_path, question(2), free, None)  # its owner demands nothing any more


def test_counts_that_leave_are_noisy(tmp_path: Path) -> None:
    """Noise of sqrt(2) P z = 141 on each, P the pixels of the largest label map."""
    counts = np.full((150, 150), 10_000)
    found = privatise_counts(counts, [(5, 20), (2, 3)], demand(), tmp_path)
    assert found.dtype == np.int64 and found.shape == counts.shape
    assert (found - counts).std() == pytest.approx(math.sqrt(2) * 100, rel=0.05)
    assert (found - counts).mean() == pytest.approx(0, abs=5)
    assert privatise_counts(np.zeros((50, 50), int), [(5, 20)], demand(), tmp_path).min() == 0


def test_noisy_counts_say_the_same_of_the_labels_each_time(tmp_path: Path) -> None:
    """A coordinator refuses a client whose label maps change; fresh noise must not look like it."""
    counts = np.diag([40_000, 300, 0, 7_000])
    sizes = [(100, 200)]
    found = [privatise_counts(counts, sizes, demand(), tmp_path) for _ in range(3)]
    assert {tuple(each.sum(axis=1)) for each in found} == {tuple(found[0].sum(axis=1))}
    assert not (found[0] == found[1]).all() and min(each.min() for each in found) >= 0
    other = privatise_counts(counts, [*sizes, (100, 200)], demand(), tmp_path)
    assert tuple(other.sum(axis=1)) != tuple(found[0].sum(axis=1))
    (first, *_) = tmp_path.glob("rows_*.json")
    first.write_text("[1, 2]")
    with pytest.raises(InputError, match=r"damaged \(expected 4 sums"):
        for each in (sizes, sizes * 2):
            privatise_counts(counts, each, demand(), tmp_path)


def test_rows_are_dealt_out_in_proportion() -> None:
    counts = np.array([[5, 3, 2], [0, 0, 0], [2**40, 1, 1]])
    for rows in ([10, 3, 2**41], [7, 0, 5], [0, 1, 1]):
        found = with_rows(counts, rows)
        assert found.sum(axis=1).tolist() == rows
        assert (np.abs(found[0] - rows[0] * counts[0] / 10) < 1).all()


def test_without_a_demand_counts_leave_as_they_are(tmp_path: Path) -> None:
    counts = np.eye(3, dtype=np.int64)
    assert privatise_counts(counts, [(5, 20)], None, tmp_path) is counts
    assert list(tmp_path.iterdir()) == []


def test_batch_statistics_do_not_leave_with_noise() -> None:
    arrays = {"norm.running_var": np.ones(3, np.float32)}
    for refuse in (
        lambda: privatise_update(arrays, arrays, demand()),
        lambda: check_form(arrays, demand()),
    ):
        with pytest.raises(RefusedError, match="batch statistics"):
            refuse()


def test_the_owner_s_policy_demands_noise_whatever_is_asked(scenes: Path, tmp_path: Path) -> None:
    """One client of three adds noise to every answer until its budget ends; the run goes on."""
    rounds = {"num_rounds": 3, "last_rounds": 3, "max_relative_norm": 100}  # small, in much noise
    settings = small.config(scenes, arms=["per-client"], federation=rounds)
    experiment = small.prepared(settings, tmp_path)
    for number in range(experiment.num_nodes):  # noise moves weights further than training does
        path = policy_path(experiment.nodes, number)
        policy = load_policy(path)
        arms = {
            name: arm.model_copy(update={"max_change": 10}) for name, arm in policy.arms.items()
        }
        save_policy(policy.model_copy(update={"arms": arms}), path)
    path = policy_path(experiment.nodes, 0)
    policy = load_policy(path)
    budget = epsilon(5, 1.0, 1e-5) + 1e-6  # the start's evaluation, and two answers a round
    privacy = demand(max_epsilon=budget)
    save_policy(policy.model_copy(update={"privacy": privacy}), path)
    assert load_policy(path).privacy == privacy

    recorder = small.Recorder()
    folder = small.federate(experiment, client_app=recorder)
    trained = [(x["round"], x["client"]) for x in folder.lines() if x["role"] == "train"]
    assert trained == [(k, c) for k in (1, 2, 3) for c in TRAIN if (k, c) != (3, policy.client)]
    rejected = [line["rejected"] for line in folder.lines() if line["role"] == "round"]
    assert rejected[:3] == [[], [], []]
    assert ["privacy budget is spent after 5 answers" in why for why in rejected[3]] == [True] * 2
    entries = read_ledger(state_path(experiment.nodes, 0) / LEDGER)
    assert [(e.round, e.task) for e in entries] == [(0, "evaluate")] + [
        (k, task) for k in (1, 2) for task in ("train", "evaluate")
    ]
    assert all(entry.is_release for entry in entries)
    losses = {(x["client"], x["loss"] is None) for x in folder.lines() if x["client"] in TRAIN}
    assert losses == {("aachen", True), ("bochum", False), ("bremen", False)}

    lengths = {}
    for asked, sent in zip(recorder.received, recorder.sent, strict=True):
        about = asked.content.config_records["settings"]
        if (about["task"], about["round"]) == ("train", 1):
            given, back = (unpack_arrays(m.content.array_records["arrays"]) for m in (asked, sent))
            apart = [back[name] - given[name] for name in back]
            client = str(sent.content.config_records["settings"]["client"])
            lengths[client] = math.sqrt(sum(float((a**2).sum()) for a in apart))
            size = sum(a.size for a in apart)
    assert lengths["aachen"] == pytest.approx(math.sqrt(size), rel=0.05)
    assert max(lengths["bochum"], lengths["bremen"]) < 0.5 * lengths["aachen"]
