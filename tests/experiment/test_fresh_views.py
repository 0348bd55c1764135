"""Fresh views in a simulation: which bits they have, when they are made, and when they go."""

import os
import re
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from flwr.app import Message

from clients.client_app import app
from clients.policy.fresh_views import STOPPED, is_finished, training_name
from clients.policy.node_policy import NODES_VARIABLE
from clients.vault import assignment
from clients.vault.keys.keyring import Vault
from clients.vault.shards.recovery import decrypt_shard
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config
from fl_ppseg.data.manifest import round_digest
from fl_ppseg.data.shard import ShardPart, open_shard
from fl_ppseg.data.views import is_unaugmented, views
from fl_ppseg.experiment import fresh_views, simulation
from fl_ppseg.experiment.fresh_views import ViewsMaker, make_ahead, make_round, views_made
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.experiment.views_plan import ArmRound, ViewsPlan
from fl_ppseg.federation.messages import unpack_request
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.in_process import run_in_process
from fl_ppseg.system.errors import InputError, RunError

DERIVED = builtin_arms()["per-image"].model_dump() | {"key_lifetime": "derived"}
ARMS = ("plain", "per-client-private", "derived")
NUM_ROUNDS, EPOCHS = 3, 2

Simulate = Callable[..., tuple[int, str, str]]


def fresh(root: Path, **changes: Any) -> Config:
    wanted: dict[str, Any] = {
        "data": {"fresh_views": True},
        "arms": list(ARMS),
        "arm_table": {"derived": DERIVED},
        "training": {"local_epochs": EPOCHS},
        "federation": {"num_rounds": NUM_ROUNDS},
    }
    return small.config(root, **wanted | changes)


@pytest.fixture
def experiment(scenes: Path, tmp_path: Path) -> Experiment:
    return small.prepared(fresh(scenes), tmp_path)


def plan_of(experiment: Experiment) -> ViewsPlan:
    assert experiment.views is not None
    return experiment.views


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def made_meanwhile(plan: ViewsPlan) -> Iterator[None]:
    """What `views_made` does, in a thread of this process."""
    (plan.place / STOPPED).unlink()
    stop = threading.Event()
    thread = threading.Thread(target=make_ahead, args=(plan, stop), daemon=True)
    thread.start()
    yield
    if not plan.next_rounds():
        wait_until(lambda: not [*plan.place.iterdir()])
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    (plan.place / STOPPED).write_text("nothing makes them now")


def train(experiment: Experiment, client_app: Callable[..., Message] = app) -> RunFolder:
    with made_meanwhile(plan_of(experiment)):
        return small.federate(experiment, client_app=client_app)


def bits_of(folder: RunFolder, config: Config) -> dict[tuple[str, int], str]:
    return {
        (arm, seed): small.bits(small.final(folder, arm, seed))
        for arm, seed in product(config.arms, config.seeds)
    }


def shard_of(plan: ViewsPlan, arm: str, round: int, client: str = "aachen") -> ShardPart:
    arm_round = ArmRound(arm, 0, round)
    make_round(plan, arm_round, set())
    return open_shard([plan.folder(arm_round, client)]).parts[0]


def flat(images: np.ndarray) -> np.ndarray:
    """(num_images, num_views, 3, H, W) -> (num_images * num_views, 3 * H * W)."""
    return np.array(images).reshape(images.shape[0] * images.shape[1], -1)


class Interrupting:
    """A ClientApp that is interrupted at a message to train, as Ctrl-C would."""

    def __init__(self, round: int, number: int) -> None:
        self.round, self.left = round, number

    def __call__(self, message: Message, context: Any) -> Message:
        request = unpack_request(message.content)
        if request.task == "train" and request.round == self.round:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return app(message, context)


# Bits.


def make_until(plan: ViewsPlan, stop: threading.Event) -> None:
    """Make views until the run is interrupted."""
    known: set[Path] = set()
    while not stop.is_set():
        for arm_round in plan.next_rounds():
            make_round(plan, arm_round, known)


def test_an_interrupted_run_goes_on_to_the_bits_of_one_that_was_not(
    scenes: Path, tmp_path: Path
) -> None:
    """The vaults are the same, and so the keys; whatever lay there is made again."""
    config = fresh(scenes, seeds=[0, 1], federation={"num_rounds": 2})
    whole = train(small.prepared(config, tmp_path))
    again = small.prepared(config, tmp_path, run="again")
    plan, stop = plan_of(again), threading.Event()
    (plan.place / STOPPED).unlink()
    maker = threading.Thread(target=make_until, args=(plan, stop))
    maker.start()
    with pytest.raises(KeyboardInterrupt):
        small.federate(again, client_app=Interrupting(2, 3))
    stop.set()
    maker.join()
    shutil.rmtree(plan.place)
    resumed = train(small.prepared(config, tmp_path, run="again"))
    assert bits_of(resumed, config) == bits_of(whole, config)
    assert len({*bits_of(whole, config).values()}) == len(ARMS) * 2
    fixed = fresh(scenes, data={}, arms=["plain"], federation={"num_rounds": 2})
    other = small.federate(small.prepared(fixed, tmp_path, run="fixed"))
    assert bits_of(other, fixed)["plain", 0] != bits_of(whole, config)["plain", 0]


# What a round's views are.


def test_rounds_have_only_unaugmented_images_in_common_and_that_under_one_key(
    experiment: Experiment,
) -> None:
    plan = plan_of(experiment)
    job = plan.jobs["aachen", 0]
    numbers = range(1, 1 + 3 * EPOCHS)
    itself = [sum(is_unaugmented(0, s.scene_id, n) for n in numbers) for s in job.train]
    assert max(itself) > 1
    for arm in ARMS:
        parts = [shard_of(plan, arm, round) for round in (1, 2, 3)]
        every = np.concatenate([flat(part.images) for part in parts])
        assert len(every) == len(numbers) * len(job.train)
        repeated = sum(n - 1 for n in itself if n) if arm != "derived" else 0
        assert len(np.unique(every, axis=0)) == len(every) - repeated
        assert [part.manifest.first_view for part in parts] == [1, 3, 5]


def test_views_that_are_drawn_in_another_way_have_another_name(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no run goes on with views of an earlier program."""
    job = plan_of(experiment).jobs["aachen", 0].of_round(2)
    now = assignment.shard_digest(job, plan_of(experiment).arms["plain"], None)
    monkeypatch.setattr(assignment, "UNAUGMENTED", 0)
    assert assignment.shard_digest(job, plan_of(experiment).arms["plain"], None) != now


def test_keys_differ_by_round_and_the_owner_decrypts_each(experiment: Experiment) -> None:
    plan = plan_of(experiment)
    job = plan.jobs["aachen", 0]
    keys = set()
    for round in (1, 2):
        part = shard_of(plan, "derived", round)
        vault, name = Vault(job.vault), part.manifest.record
        assert name is not None
        key, record = vault.find(name)
        found = [*decrypt_shard(vault, plan.folder(ArmRound("derived", 0, round), "aachen"))]
        assert len(found) == EPOCHS * len(job.train)
        for view in found:
            scene = next(each for each in job.train if each.scene_id == view.scene_id)
            made = views(*scene.load(), (32, 64), "resize", 1, 0, scene.scene_id, view.view)
            image, labels = next(made)
            np.testing.assert_array_equal(view.image, image)
            np.testing.assert_array_equal(view.labels, labels)
            keys.add(record.subkey(key, "train", view.scene_id, view.view).fingerprint)
    assert len(keys) == 2 * EPOCHS * len(job.train)


def test_what_is_made_ahead_holds_out_images_and_no_view(experiment: Experiment) -> None:
    for (client, _), shards in plan_of(experiment).shards.items():
        for folder in shards.values():
            part = open_shard([folder]).parts[0]
            assert part.manifest.client == client
            assert part.images.size == part.labels.size == 0
            assert part.manifest.num_images == len(plan_of(experiment).jobs[client, 0].train)
            assert len(part.heldout_images) == 1


# When they are made, and when they go.


def test_two_rounds_lie_on_disk_at_most_and_none_at_the_end(experiment: Experiment) -> None:
    plan, found = plan_of(experiment), []
    rounds = {
        round_digest(shards[arm].name, round): round
        for shards in plan.shards.values()
        for arm in ARMS
        for round in range(1, NUM_ROUNDS + 1)
    }

    def look(message: Message, context: Any) -> Message:
        request = unpack_request(message.content)
        reply = app(message, context)
        if request.task == "train":
            there = {rounds[path.name] for path in plan.place.iterdir() if path.name in rounds}
            assert request.round in there
            found.append(len(there))
        return reply

    train(experiment, look)
    assert len(found) == len(ARMS) * NUM_ROUNDS * 3
    assert {*found} <= {1, 2}
    assert [path.name for path in plan.place.iterdir()] == [STOPPED]


def test_a_round_whose_checkpoint_is_found_damaged_gets_its_views_again(
    scenes: Path, tmp_path: Path
) -> None:
    """The server reads checkpoints, and removes damaged ones, after the maker has begun."""
    config = fresh(scenes, arms=["plain"], federation={"num_rounds": 2})
    folder = train(experiment := small.prepared(config, tmp_path))
    plan = plan_of(experiment)
    again = {
        plan.folder(ArmRound("plain", 0, 2), client).name for client in experiment.partition.clients
    }
    stale = plan.place / ("0" * 32)
    stale.mkdir()
    stop = threading.Event()
    maker = threading.Thread(target=make_ahead, args=(plan, stop), daemon=True)
    maker.start()
    wait_until(lambda: not stale.exists())
    folder.discard_after("plain", 0, 1)
    wait_until(lambda: again <= {path.name for path in plan.place.iterdir()})
    stop.set()
    maker.join(60)
    assert not maker.is_alive()


def test_nodes_are_told_which_rounds_are_over_and_when_all_are(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the engine waits for its workers, which may hold messages of rounds that are over."""
    experiment = small.prepared(fresh(scenes, arms=["plain"]), tmp_path)
    monkeypatch.setenv(NODES_VARIABLE, str(experiment.nodes))
    monkeypatch.setattr(fresh_views, "SEEN", 0.01)
    plan, name, seen = plan_of(experiment), training_name("plain", 0), []

    def look(message: Message, context: Any) -> Message:
        request, since = unpack_request(message.content), time.monotonic_ns()
        if request.task == "train" and request.round == 2:
            wait_until(lambda: is_finished(plan.place, name, 1, since))
            seen.append(is_finished(plan.place, name, 2, since))
        return app(message, context)

    def run(server_app: Any, client_app: Any, num_nodes: int) -> None:
        run_in_process(server_app, look, num_nodes)  # type: ignore[arg-type]
        seen.append((plan.place / STOPPED).exists())

    monkeypatch.setattr(simulation, "run_in_process", run)
    simulation._federate(experiment, None, True, [])
    assert seen == [False, False, False, True]
    assert [path.name for path in plan.place.iterdir()] == [STOPPED]


def test_only_clients_that_a_round_asks_get_views(scenes: Path, tmp_path: Path) -> None:
    config = fresh(scenes, arms=["plain", "centralised"], federation={"fraction_train": 0.34})
    experiment = small.prepared(config, tmp_path)
    asked = defaultdict[tuple[str, int], list[str]](list)
    clients = [*experiment.partition.clients]

    def look(message: Message, context: Any) -> Message:
        request = unpack_request(message.content)
        reply = app(message, context)
        if request.task == "train":
            number = int(context.node_config["partition-id"])
            policy = experiment.nodes / f"node_{number:04d}.yaml"
            name = next(each for each in clients if f"client: {each}\n" in policy.read_text())
            asked[request.arm, request.round].append(name)
        return reply

    train(experiment, look)
    plan = plan_of(experiment)
    for round in (1, 2):
        assert plan.clients(ArmRound("plain", 0, round)) == asked["plain", round]
        assert len(asked["plain", round]) == 1
        assert sorted(plan.clients(ArmRound("centralised", 0, round))) == sorted(clients)


# What a user sees where they do not come.


def test_a_run_whose_maker_is_killed_says_so(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ViewsMaker.start

    def start_and_kill(maker: ViewsMaker) -> None:
        start(maker)
        assert maker._process.pid is not None
        os.kill(maker._process.pid, signal.SIGKILL)

    changes: dict[str, Any] = {"data": {"fresh_views": True}, "arms": ["plain"]}
    with monkeypatch.context() as patch:
        patch.setattr(ViewsMaker, "start", start_and_kill)
        status, _, error = simulate("--quiet", "--out", str(tmp_path / "run"), **changes)
    assert status == 1
    assert "no fresh views: the process that runs the owners' vaults was killed" in error
    assert "Traceback" not in error
    status, _, error = simulate("--quiet", "--out", str(tmp_path / "run"), "--resume")
    assert status == 0, error


def test_a_maker_that_ends_early_without_an_error_is_a_failure(experiment: Experiment) -> None:
    plan = plan_of(experiment)
    maker = ViewsMaker(plan, lambda text: None)
    maker._process = get_context("spawn").Process(target=time.sleep, args=(0,))
    maker.start()
    wait_until((plan.place / STOPPED).exists)
    assert maker.failure is not None
    assert "owners' vaults ended with 0 before the run" in maker.failure
    maker.close()
    assert "ended with 0" in maker.failure
    maker.stop()


def test_no_failure_of_the_maker_is_said_after_rounds_that_ended(experiment: Experiment) -> None:
    with views_made(plan_of(experiment)) as maker:
        assert maker is not None
        maker.close()
        began = time.monotonic()
        assert maker.failure is None
        assert time.monotonic() - began < fresh_views.CLOSING / 2


def test_a_vault_that_cannot_encrypt_ends_the_run_with_its_reason(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small.prepared(fresh(scenes, arms=["derived"]), tmp_path)
    monkeypatch.setenv(NODES_VARIABLE, str(experiment.nodes))
    plan = plan_of(experiment)
    key = plan.jobs["aachen", 0].vault / "master.key"
    key.chmod(0o644)
    with pytest.raises(RunError, match=r"no fresh views: key file .* is open to others"):
        simulation._federate(experiment, None, True, [])


def test_a_round_that_waits_for_its_views_is_said_to(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(fresh_views, "LATE", 0.0)
    monkeypatch.setattr(fresh_views, "SEEN", 0.01)
    plan = plan_of(experiment)
    busy = Vault(plan.jobs["bremen", 0].vault)
    with busy.lock(), views_made(plan, told.append):
        end = time.monotonic() + 60
        while not told and time.monotonic() < end:
            time.sleep(0.01)
    assert len(told) == 1
    said = (
        r"plain, seed 0: the views of round 1 are still being made \([012] of 3 clients are done\)"
    )
    assert re.fullmatch(said, told[0])


def test_after_a_rotation_no_views_are_made_with_another_key(experiment: Experiment) -> None:
    plan = plan_of(experiment)
    for record in (plan.jobs["aachen", 0].vault / "manifests").iterdir():
        record.unlink()
    with pytest.raises(InputError, match="salts do not belong to the current master key"):
        make_round(plan, ArmRound("derived", 0, 1), set())


def test_nothing_makes_views_for_flwr_run(simulate: Simulate) -> None:
    status, _, error = simulate("--quiet", "--prepare", data={"fresh_views": True})
    assert status == 2
    assert "data.fresh_views: `flwr run` starts no process that makes views" in error
