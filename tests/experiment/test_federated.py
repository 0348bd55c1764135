"""The whole federation: equal to plain local training, whatever the engine or order of replies."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import small_federation as small
import torch
from flwr.app import Message

from clients.policy.node_policy import load_policy, policy_path
from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.data.shard import open_shard
from fl_ppseg.federation.messages import unpack_arrays
from fl_ppseg.flower import in_process
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.learning.training import Position, local_update
from fl_ppseg.progress.events import Event, Replied
from fl_ppseg.progress.observer import Observer
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import RunError


def test_one_client_and_one_round_are_plain_local_training(scenes: Path, tmp_path: Path) -> None:
    settings = small.config(
        scenes, arms=["per-image"], clients=1, federation={"num_rounds": 1}, seeds=[4]
    )
    experiment = small.prepared(settings, tmp_path)
    start = small.final(experiment.folder, "per-image", 4)

    policy = load_policy(policy_path(experiment.nodes, 0))
    alone = local_update(
        small.model(),
        {name: torch.from_numpy(value) for name, value in start.items()},
        {},
        open_shard(policy.arms["per-image"].shards[4]),
        settings.training,
        Position(1, 1),
        seed=4,
    )
    trained = small.final(small.federate(experiment), "per-image", 4)

    assert small.bits(trained) == small.bits(alone.weights)
    assert small.bits(trained) != small.bits(start)


class ShuffledGrid(InProcessGrid):
    """Its nodes have other ids than their partitions, and answer in another order."""

    chance = random.Random(0)

    def get_node_ids(self) -> Iterable[int]:
        return self.chance.sample(list(super().get_node_ids()), k=5)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Most looks find nothing: who answers first is chance."""
        for message_id in message_ids:
            if self.chance.random() < 0.3:
                yield from super().pull_messages([message_id])


def test_replies_in_any_order_give_the_same_weights(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small.config(scenes, arms=["plain"], federation={"strategy": "fedadam"})
    found, orders = set(), set()

    class Watch(Observer):
        def on_event(self, event: Event) -> None:
            if isinstance(event, Replied):
                self.clients = [*getattr(self, "clients", []), event.client]

    monkeypatch.setattr(in_process, "InProcessGrid", ShuffledGrid)
    monkeypatch.setattr("fl_ppseg.flower.grid.POLL_SECONDS", 0.001)
    for run in ("a", "b", "c"):
        watch = Watch()
        experiment = small.prepared(settings, tmp_path / run)
        found.add(small.bits(small.final(small.federate(experiment, watch), "plain")))
        orders.add(tuple(watch.clients))
    assert len(orders) == 3
    assert len(found) == 1


def test_embedding_that_is_frozen_never_travels_back(scenes: Path, tmp_path: Path) -> None:
    settings = small.config(scenes, arms=["plain-frozen-embedding", "plain"])
    experiment = small.prepared(settings, tmp_path)
    start = small.final(experiment.folder, "plain-frozen-embedding")
    recorder = small.Recorder()
    folder = small.federate(experiment, client_app=recorder)

    sent: dict[str, set[str]] = {"plain-frozen-embedding": set(), "plain": set()}
    for request, reply in zip(recorder.received, recorder.sent, strict=True):
        arm = request.content.config_records["settings"]["arm"]
        sent[str(arm)] |= set(unpack_arrays(reply.content.array_records["arrays"]))
    assert sent["plain"] == set(start)
    assert sent["plain-frozen-embedding"] == set(start) - set(EMBEDDING_TENSORS)

    frozen = small.final(folder, "plain-frozen-embedding")
    trained = small.final(folder, "plain")
    for name in EMBEDDING_TENSORS:
        np.testing.assert_array_equal(frozen[name], start[name])
        assert (trained[name] != start[name]).any()
    assert all((frozen[n] != start[n]).any() for n in start if n.startswith("decoder"))


def test_centralised_trains_on_as_many_images_as_a_federation_that_asks_some_of_its_clients(
    scenes: Path, tmp_path: Path
) -> None:
    some = {"federation": {"fraction_train": 0.34, "server_learning_rate": 1.5, "num_rounds": 2}}
    share = {"training": {"pass_fraction": 0.34}, "federation": {"num_rounds": 2}}
    found = [
        small.federate(
            small.prepared(small.config(scenes, arms=["centralised"], **settings), tmp_path / name)
        )
        for name, settings in (("some", some), ("share", share))
    ]
    assert small.bits(small.final(found[0], "centralised")) == small.bits(
        small.final(found[1], "centralised")
    )


def test_centralised_trains_on_everything_and_local_only_never_mixes(
    scenes: Path, tmp_path: Path
) -> None:
    arms = ["centralised", "local-only"]
    experiment = small.prepared(small.config(scenes, arms=arms), tmp_path)
    start = small.final(experiment.folder, "local-only")
    folder = small.federate(experiment)
    lines = folder.lines()

    trained = [x for x in lines if x["role"] == "train"]
    together = [x for x in trained if x["arm"] == "centralised"]
    alone = [x for x in trained if x["arm"] == "local-only" and x["round"] == 1]
    assert [x["client"] for x in together] == ["aachen", "aachen"]
    assert {x["num_examples"] for x in together} == {sum(x["num_examples"] for x in alone)}
    home = {arm: [x for x in lines if (x["arm"], x["role"]) == (arm, "heldout")] for arm in arms}
    scored = {arm: [(x["client"], x["num_examples"]) for x in home[arm]] for arm in arms}
    assert scored["centralised"] == scored["local-only"]
    assert [client for client, _ in scored["centralised"]] == ["aachen", "bochum", "bremen"] * 3

    weights = small.final(folder, "local-only")
    settings = experiment.config.training
    for number, client in enumerate(["aachen", "bochum", "bremen"]):
        policy = load_policy(policy_path(experiment.nodes, number))
        assert policy.client == client
        shard = open_shard(policy.arms["local-only"].shards[0])
        state = {name: torch.from_numpy(value) for name, value in start.items()}
        for round_ in (1, 2):
            position = Position(round_, 2)
            update = local_update(small.model(), state, {}, shard, settings, position, 0)
            state = update.weights
        own = {n.removeprefix(f"{client}//"): v for n, v in weights.items() if n.startswith(client)}
        assert small.bits(own) == small.bits(state)
    val = [x for x in lines if x["role"] == "val" and x["arm"] == "local-only"]
    assert {x["model"] for x in val if x["round"]} == {"aachen", "bochum", "bremen"}
    assert not any("model" in x for x in val if not x["round"])  # they start from the same


def test_a_failing_client_is_said_and_not_counted(scenes: Path, tmp_path: Path) -> None:
    experiment = small.prepared(small.config(scenes, arms=["plain"]), tmp_path)
    policy = load_policy(policy_path(experiment.nodes, 0))
    (shard,) = policy.arms["plain"].shards[0]
    (shard / "manifest.json").unlink()
    folder = small.federate(experiment)
    rounds = [x for x in folder.lines() if x["role"] == "round"]
    clients = {x["client"] for x in folder.lines() if x["role"] == "train"}
    assert clients == {"bochum", "bremen"}
    for line in rounds:
        assert line["rejected"]
        assert all(
            text == "aachen: the node failed with InputError; see its own log"
            for text in line["rejected"]
        )


def test_too_few_good_updates_end_the_run(scenes: Path, tmp_path: Path) -> None:
    settings = small.config(scenes, arms=["plain"], federation={"min_replies": 1.0})
    experiment = small.prepared(settings, tmp_path)
    (shard,) = load_policy(policy_path(experiment.nodes, 0)).arms["plain"].shards[0]
    (shard / "manifest.json").unlink()
    with pytest.raises(RunError, match="round 1: expected good updates from 3 of 3 clients, got 2"):
        small.federate(experiment)


def test_proximal_term_reaches_the_clients(scenes: Path, tmp_path: Path) -> None:
    """The coordinator's training settings are those that a node trains with."""
    found = [
        small.final(
            small.federate(
                small.prepared(
                    small.config(scenes, arms=["plain"], training={"proximal_mu": mu}),
                    tmp_path / str(mu),
                )
            ),
            "plain",
        )
        for mu in (0.0, 10.0)
    ]
    assert small.bits(found[0]) != small.bits(found[1])
    assert TrainingConfig().proximal_mu == 0


@pytest.mark.federated
def test_ray_gives_the_same_weights_and_leaves_nothing_running(
    scenes: Path, tmp_path: Path
) -> None:
    """In a process of its own, as a user's command: Ray is started once and ended with it."""
    arms = ["plain", "per-client"]
    experiment = small.prepared(small.config(scenes, arms=arms), tmp_path)
    small.federate(experiment)

    again = tmp_path / "again"
    text, _, _ = experiment.folder.config.read_text("utf-8").rpartition("# sha256")  # our own now
    (tmp_path / "ray.yaml").write_text(
        text.replace("engine: in-process", "engine: ray").replace(
            "num_workers: 1", "num_workers: 2"
        ),
        "utf-8",
    )
    command = [sys.executable, "-m", "fl_ppseg.simulate", "--config", str(tmp_path / "ray.yaml")]
    command += ["--out", str(again), "--vault-dir", str(tmp_path / "vaults"), "--quiet"]
    marked = os.environ | {MARK: str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=marked, timeout=240, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    wait = time.monotonic() + 60  # Ray's workers are niced: on a busy machine they end late
    while (left := _processes_of(tmp_path)) and time.monotonic() < wait:
        time.sleep(0.2)
    assert left == []

    for arm in arms:
        file = f"{arm}/seed_0/round_0002.safetensors"
        assert (again / file).read_bytes() == (experiment.folder.path / file).read_bytes()


MARK = "FL_PPSEG_TEST_RUN"
"""Environment variable that all processes of a command inherit."""


def _processes_of(run: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(run):
                found.append(f"{process.pid} {process.name()} {process.status()}")
    return found
