"""Weights whose loss on held-out images is far above that of accepted ones are refused."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small

from clients.heldout_loss import LOSSES, keep_loss, least_loss, loss_file
from clients.policy.ledger import LEDGER, read_ledger
from clients.policy.node_policy import (
    LocalPrivacy,
    load_policy,
    policy_path,
    save_policy,
    state_path,
)
from clients.vault.consent.floor import Floor, apply_floor
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.system.errors import InputError, RunError
from strategies.rounds.federated import FederatedStrategy

RATIO = 2.0


def guarded(scenes: Path, place: Path, ratio: float = RATIO, **changes: Any) -> Experiment:
    """A federation whose owners look at the loss."""
    made = small.prepared(small.config(scenes, **changes), place)
    for number in range(made.num_nodes):
        path = policy_path(made.nodes, number)
        save_policy(load_policy(path).model_copy(update={"max_loss_ratio": ratio}), path)
    return made


@pytest.mark.parametrize("arm", ["plain", "per-client-private", "per-image-invariant"])
def test_honest_rounds_are_answered(arm: str, scenes: Path, tmp_path: Path) -> None:
    made = guarded(scenes, tmp_path, arms=[arm])
    recorder = small.Recorder()
    folder = small.federate(made, client_app=recorder)
    assert [str(x.error.reason) for x in recorder.sent if x.has_error()] == []
    reported = [x["loss"] for x in folder.lines() if x["role"] in ("heldout", "val")]
    kept = [
        least_loss(file)
        for number in range(made.num_nodes)
        for file in (state_path(made.nodes, number) / LOSSES).iterdir()
    ]
    assert len(kept) == made.num_nodes
    assert min(reported) in [pytest.approx(loss, rel=1e-6) for loss in kept]


def test_weights_that_forget_are_refused_once_by_name_and_counted(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far from any training: with the trust region off, the loss alone stands in the way."""
    made = guarded(scenes, tmp_path, arms=["plain"], federation={"num_rounds": 2, "max_retries": 0})
    for number in range(made.num_nodes):
        path = policy_path(made.nodes, number)
        policy = load_policy(path)
        off = {"start": None, "max_change": None}
        arms = {name: arm.model_copy(update=off) for name, arm in policy.arms.items()}
        save_policy(policy.model_copy(update={"arms": arms}), path)
    honest = FederatedStrategy.take_step

    def forgetting(self: FederatedStrategy, *arguments: Any) -> None:
        honest(self, *arguments)
        name = "decoder.classifier.conv.bias"
        bias = np.linspace(-60, 60, self.weights[name].size, dtype=np.float32)
        self.weights = self.carried.put(self.weights | {name: bias})

    monkeypatch.setattr(FederatedStrategy, "take_step", forgetting)
    recorder = small.Recorder()
    with suppress(RunError):  # the run ends, since no node answers
        small.federate(made, client_app=recorder)
    reasons = {str(x.error.reason) for x in recorder.sent if x.has_error()}
    assert reasons and all("more than 2 times the least" in each for each in reasons)
    refused = [
        entry
        for number in range(made.num_nodes)
        for entry in read_ledger(state_path(made.nodes, number) / LEDGER)
        if entry.refused is not None
    ]
    assert refused and {entry.refused for entry in refused} == {"loss"}


def test_the_least_loss_is_kept(tmp_path: Path) -> None:
    file = loss_file(tmp_path, "run", "plain", 0)
    assert least_loss(file) is None
    for loss, least in ((2.0, 2.0), (3.5, 2.0), (1.5, 1.5)):
        keep_loss(file, loss)
        assert least_loss(file) == least
    assert file.stat().st_mode & 0o777 == 0o600
    assert (
        loss_file(tmp_path, "run", "plain", 1) != file != loss_file(tmp_path, "other", "plain", 0)
    )


@pytest.mark.parametrize("content", ["", "{}", '{"loss": -1}', '{"loss": 1e999}', '{"loss": "1"}x'])
def test_a_damaged_file_stops_the_answer(content: str, tmp_path: Path) -> None:
    file = loss_file(tmp_path, "run", "plain", 0)
    keep_loss(file, 1.0)
    file.write_text(content, "utf-8")
    with pytest.raises(InputError, match=file.name):
        least_loss(file)


def test_it_does_not_go_together_with_noise(scenes: Path, tmp_path: Path) -> None:
    made = guarded(scenes, tmp_path, arms=["plain"])
    privacy = LocalPrivacy(noise_multiplier=1.0, clipping_norm=1.0, max_epsilon=1.0)
    policy = load_policy(policy_path(made.nodes, 0))
    with pytest.raises(ValueError, match="leave it or privacy out"):
        type(policy).model_validate(dict(policy) | {"privacy": privacy})


def test_the_stricter_of_floor_and_policy_holds(scenes: Path, tmp_path: Path) -> None:
    made = guarded(scenes, tmp_path, arms=["plain"], ratio=3.0)
    policy = load_policy(policy_path(made.nodes, 0))
    assert apply_floor(Floor(max_loss_ratio=2.0), policy).max_loss_ratio == 2.0
    assert apply_floor(Floor(max_loss_ratio=4.0), policy).max_loss_ratio == 3.0
    assert apply_floor(Floor(), policy).max_loss_ratio == 3.0
