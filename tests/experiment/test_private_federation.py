"""What private embeddings promise of a whole federation, and that every arm of the table runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch

from clients.policy.node_policy import load_policy, policy_path, state_path
from clients.private_state import load_private, load_start, trained_folder, versions
from clients.vault.assignment import Assignment
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.shard import open_shard
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.messages import unpack_arrays
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays

FROZEN_ARM = "per-client-private"
FROZEN = builtin_arms()[FROZEN_ARM]
TABLE = {"trained": FROZEN.model_dump() | {"private_rate": 0.1}}
SGD = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 2}
"""Its steps follow small differences of gradients; Adam's make large ones of gradients near 0."""
WEIGHT = EMBEDDING_TENSORS[0]


def uploads(recorder: small.Recorder, arm: str) -> dict[tuple[str, int], Arrays]:
    """What the clients sent after training, by client and round."""
    found = {}
    for request, reply in zip(recorder.received, recorder.sent, strict=True):
        settings, answer = request.content.config_records["settings"], reply.content
        if (settings["arm"], settings["task"]) == (arm, "train"):
            place = answer.config_records["settings"]
            arrays = unpack_arrays(answer.array_records["arrays"])
            client, round_ = str(place["client"]), int(str(place["round"]))
            found[client, round_] = arrays
    return found


def distance(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def private_folders(experiment: Experiment, arm: str) -> list[tuple[Path, Path]]:
    """Of each node: its owner's folder, and that of what it trained."""
    found = []
    for number in range(experiment.num_nodes):
        policy = load_policy(policy_path(experiment.nodes, number))
        start = (policy.arms[arm].private or {})[0]
        found.append((start, trained_folder(state_path(experiment.nodes, number), start)))
    return found


@pytest.fixture(scope="module")
def run(
    scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Experiment, small.Recorder]:
    arms = ["plain-frozen-embedding", FROZEN_ARM, "per-client", "trained"]
    settings = small.config(scenes, arms=arms, arm_table=TABLE, training=SGD)
    experiment = small.prepared(settings, tmp_path_factory.mktemp("run"))
    recorder = small.Recorder()
    small.federate(experiment, client_app=recorder)
    return experiment, recorder


def test_uploads_are_those_of_plain_training_with_the_public_embedding(
    run: tuple[Experiment, small.Recorder],
) -> None:
    """E'x' = Ex: what the coordinator sees of a frozen one does not depend on any key."""
    experiment, recorder = run
    plain = uploads(recorder, "plain-frozen-embedding")
    private = uploads(recorder, FROZEN_ARM)
    uploaded = uploads(recorder, "per-client")
    start = small.final(experiment.folder, "plain-frozen-embedding")
    assert plain.keys() == private.keys() and len(plain) == 3 * 2
    for place, wanted in plain.items():
        assert set(wanted) == set(start) - set(EMBEDDING_TENSORS)
        assert distance(private[place], wanted) < 1e-5
        foreign = {name: uploaded[place][name] for name in wanted}
        assert distance(foreign, wanted) > 1e-3
    finals = [small.final(experiment.folder, a) for a in ("plain-frozen-embedding", FROZEN_ARM)]
    assert distance(*finals) < 1e-5


def test_an_embedding_that_is_trained_moves_at_home_alone(
    run: tuple[Experiment, small.Recorder],
) -> None:
    experiment, recorder = run
    assert all(not set(EMBEDDING_TENSORS) & set(x) for x in uploads(recorder, "trained").values())
    folders = private_folders(experiment, "trained")
    assert [versions(trained) for _, trained in folders] == [[1, 2]] * 3 + [[]] * 2
    for places in folders[:3]:
        first, second, third = (load_private(*places, round_)[WEIGHT] for round_ in (0, 1, 2))
        assert not np.array_equal(first, second) and not np.array_equal(second, third)
        assert np.abs(third - first).max() < 0.1
    frozen = private_folders(experiment, FROZEN_ARM)
    assert [(versions(start), versions(trained)) for start, trained in frozen] == [([0], [])] * 5


def test_a_newcomer_needs_the_public_weights_and_a_key_of_its_own(
    run: tuple[Experiment, small.Recorder], scenes: Path, tmp_path: Path
) -> None:
    """A client that no round has met reads its ciphertexts as the public model reads its images."""
    experiment, _ = run
    weights = small.final(experiment.folder, FROZEN_ARM)
    found = open_dataset(scenes, load_class_table("cityscapes")).split("val")["lindau"]
    prepared = prepare_shards(
        Assignment(
            vault=tmp_path / "lindau",
            client="lindau",
            train=(),
            heldout=found,
            data=experiment.config.data,
            block_size=8,
            seed=0,
            protections={"plain": builtin_arms()["plain"], "mine": FROZEN},
            public={name: weights[name] for name in EMBEDDING_TENSORS},
        )
    )
    assert prepared["mine"].private is not None
    public = {name: torch.from_numpy(value) for name, value in weights.items()}
    wanted = logits(public, prepared["plain"].shard)
    private = load_start(prepared["mine"].private)
    own = public | {name: torch.from_numpy(np.array(value)) for name, value in private.items()}
    torch.testing.assert_close(logits(own, prepared["mine"].shard), wanted, atol=1e-4, rtol=0)
    assert (logits(public, prepared["mine"].shard) - wanted).abs().max() > 0.1


def logits(state: dict[str, torch.Tensor], shard: Path) -> torch.Tensor:
    network = small.model().eval()
    network.load_state_dict(state)
    images = np.stack([image for image, _ in open_shard([shard]).heldout()])
    with torch.inference_mode():
        main: torch.Tensor = network(to_input(torch.from_numpy(images))).main
    return main


def test_a_run_that_lost_a_round_ends_as_if_it_had_not(scenes: Path, tmp_path: Path) -> None:
    """The coordinator goes back to an older checkpoint; nodes start from the version before."""
    settings = small.config(scenes, arms=["trained"], arm_table=TABLE, federation={"num_rounds": 4})
    experiment = small.prepared(settings, tmp_path)
    whole = small.final(small.federate(experiment), "trained")
    folders = private_folders(experiment, "trained")
    private = [small.bits(load_private(*places, 4)) for places in folders]

    for file in (tmp_path / "run" / "trained" / "seed_0").glob("round_0004.*"):
        file.unlink()
    experiment = small.prepared(settings, tmp_path)
    assert versions(folders[0][1]) == [2, 3]
    again = small.final(small.federate(experiment), "trained")
    assert small.bits(again) == small.bits(whole)
    assert [small.bits(load_private(*places, 4)) for places in folders] == private


@pytest.mark.parametrize("arm", builtin_arms())
def test_every_arm_of_the_table_runs(arm: str, scenes: Path, tmp_path: Path) -> None:
    """One round: all clients train, all are scored, and what is not frozen moves."""
    settings = small.config(scenes, arms=[arm], federation={"num_rounds": 1})
    experiment = small.prepared(settings, tmp_path)
    start = small.final(experiment.folder, arm)
    folder = small.federate(experiment)
    lines: list[dict[str, Any]] = folder.lines()
    rounds = [line for line in lines if line["role"] == "round"]
    assert [(line["round"], line["rejected"]) for line in rounds] == [(0, []), (1, [])]
    is_centralised = builtin_arms()[arm].training == "centralised"
    trained = [line["client"] for line in lines if line["role"] == "train"]
    assert trained == ["aachen", "bochum", "bremen"][: 1 if is_centralised else 3]
    scored = {line["client"] for line in lines if line["role"] == "val"}
    assert scored == {"lindau", "munster"}
    assert all(sum(map(sum, x["confusion"])) > 0 for x in lines if x["role"] == "val")
    after = small.final(folder, arm)
    stays = builtin_arms()[arm].embedding in ("frozen", "private")
    for name, value in after.items():  # of local-only arms: <client>//<tensor>
        tensor = name.rpartition("//")[2]
        is_kept = stays and tensor in EMBEDDING_TENSORS
        assert (value == start[tensor]).all() == is_kept, name
