"""The training node: answers through the allow-list, and errors that tell nothing of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch
from flwr.app import ConfigRecord, Message, MessageType
from flwr.serverapp import Grid

from clients import client_app
from clients.client_app import FAILED, REFUSED, app
from clients.policy import NODES_VARIABLE, load_policy, policy_path, save_policy
from clients.private_state import forget_after, load_private, save_private, versions
from fl_ppseg.config import builtin_arms
from fl_ppseg.engines.in_process import InProcessGrid
from fl_ppseg.evaluation import confusion_counts, segment
from fl_ppseg.messages import (
    Reply,
    Request,
    pack_request,
    unpack_description,
    unpack_reply,
)
from fl_ppseg.preparation import Experiment
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.shard import open_shard
from fl_ppseg.training import LocalUpdate, local_update

KINDS = {
    "describe": MessageType.QUERY,
    "train": MessageType.TRAIN,
    "evaluate": MessageType.EVALUATE,
}
TRAINED = builtin_arms()["per-client-private"].model_dump() | {"private_rate": 0.5}
EMBEDDINGS = {
    "plain": "uploaded",
    "plain-frozen-embedding": "frozen",
    "per-image": "uploaded",
    "per-client-private": "private",
    "trained": "private",
}
NODES = ("aachen", "bochum", "bremen", "lindau", "munster")


@pytest.fixture(scope="module")
def experiment(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    table = {"trained": TRAINED}
    rounds = {"federation": {"num_rounds": 4}}
    settings = small.config(scenes, arms=[*EMBEDDINGS], arm_table=table, **rounds)
    return small.prepared(settings, tmp_path_factory.mktemp("experiment"))


@pytest.fixture
def grid(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.setenv(NODES_VARIABLE, str(experiment.nodes))
    return InProcessGrid(app, len(NODES))


@pytest.fixture
def request_of(experiment: Experiment) -> Callable[..., Request]:
    def build(arm: str = "plain", **changes: Any) -> Request:
        checkpoint = experiment.folder.latest("plain", 0)
        assert checkpoint is not None
        asked: dict[str, Any] = {
            "task": "train",
            "run_id": "run",
            "round": 1,
            "num_rounds": experiment.config.federation.num_rounds,
            "arm": arm,
            "seed": 0,
            "embedding": EMBEDDINGS[arm],
            "num_classes": small.NUM_CLASSES,
            "model": experiment.config.model,
            "training": experiment.config.training,
            "arrays": checkpoint.arrays,
        }
        return Request(**asked | changes)

    return build


def ask(grid: Grid, request: Request, city: str = "aachen", content: Any = None) -> Message:
    node_id = list(grid.get_node_ids())[NODES.index(city)]
    message = Message(content or pack_request(request), node_id, KINDS[request.task])
    (reply,) = grid.send_and_receive([message])
    return reply


def answer(grid: Grid, request: Request, city: str = "aachen", allowed: Any = ()) -> Reply:
    message = ask(grid, request, city)
    assert not message.has_error(), message.error.reason
    return unpack_reply(message.content, allowed)


def test_node_names_its_city_and_role(grid: Grid, request_of: Callable[..., Request]) -> None:
    for city, role in (("bochum", "train"), ("lindau", "val")):
        reply = ask(grid, request_of(task="describe", arrays={}), city)
        description = unpack_description(reply.content)
        assert (description.run_id, description.city, description.role) == ("run", city, role)


def private_folder(experiment: Experiment, arm: str = "trained", number: int = 0) -> Path:
    """Where a node keeps its private embedding."""
    private = load_policy(policy_path(experiment.nodes, number)).arms[arm].private
    assert private is not None
    return private[0]


@pytest.mark.parametrize("arm", EMBEDDINGS)
def test_training_sends_exactly_the_weights_that_may_leave(
    arm: str, grid: Grid, request_of: Callable[..., Request]
) -> None:
    asked = request_of(arm)
    kept = set() if EMBEDDINGS[arm] == "uploaded" else set(EMBEDDING_TENSORS)
    reply = answer(grid, asked, allowed=asked.arrays.keys() - kept)
    assert reply.arrays.keys() == asked.arrays.keys() - kept
    assert reply.confusion is None
    assert (reply.city, reply.run_id, reply.round) == ("aachen", "run", 1)
    assert reply.num_examples == 6
    assert all(value.dtype == asked.arrays[n].dtype for n, value in reply.arrays.items())


def test_evaluation_counts_what_the_model_says_of_the_heldout_images(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    asked = request_of(task="evaluate")
    reply = answer(grid, asked, "lindau")
    assert reply.arrays == {}
    assert reply.num_examples == 2

    network = small.model()
    network.load_state_dict({n: torch.from_numpy(v) for n, v in asked.arrays.items()})
    counts = torch.zeros(19, 19, dtype=torch.int64)
    shards = load_policy(policy_path(experiment.nodes, 3)).arms["plain"].shards[0]
    with torch.inference_mode():
        for image, labels in open_shard(shards).heldout():
            guess = segment(network.eval(), torch.tensor(image)[None], labels.shape)
            counts += confusion_counts(guess, torch.tensor(labels)[None], 19)
    assert reply.confusion is not None
    np.testing.assert_array_equal(reply.confusion, counts.numpy())


def test_answers_are_the_same_bits_whatever_came_between(
    grid: Grid, request_of: Callable[..., Request]
) -> None:
    """One model serves all requests of a process: nothing of one may reach the next."""
    asked = request_of("per-image")
    first = answer(grid, asked, allowed=asked.arrays).arrays
    answer(grid, request_of(task="evaluate"), "munster")
    frozen = request_of("plain-frozen-embedding")
    answer(grid, frozen, "bremen", frozen.arrays.keys() - set(EMBEDDING_TENSORS))
    assert small.bits(answer(grid, asked, allowed=asked.arrays).arrays) == small.bits(first)


@pytest.mark.parametrize("arm", ["per-client-private", "trained"])
def test_private_embedding_takes_the_place_of_the_public_one(
    arm: str, grid: Grid, request_of: Callable[..., Request]
) -> None:
    """What the coordinator sends in its place changes nothing."""
    asked = request_of(arm)
    other = {
        name: value + (name in EMBEDDING_TENSORS) * np.float32(0.5)
        for name, value in asked.arrays.items()
    }
    allowed = asked.arrays.keys() - set(EMBEDDING_TENSORS)
    first, second = (
        answer(grid, dataclasses.replace(asked, arrays=arrays), allowed=allowed)
        for arrays in (asked.arrays, other)
    )
    assert small.bits(first.arrays) == small.bits(second.arrays)
    first, second = (
        answer(grid, request_of(arm, task="evaluate", arrays=arrays), "munster")
        for arrays in (asked.arrays, other)
    )
    assert first.confusion is not None and second.confusion is not None
    np.testing.assert_array_equal(first.confusion, second.confusion)


def test_frozen_private_embedding_stays_as_its_owner_made_it(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    folder = private_folder(experiment, "per-client-private")
    before = small.bits(load_private(folder, 9))
    asked = request_of("per-client-private")
    answer(grid, asked, allowed=asked.arrays.keys() - set(EMBEDDING_TENSORS))
    assert versions(folder) == [0]
    assert small.bits(load_private(folder, 9)) == before


def test_a_repeated_round_starts_from_the_version_before(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    folder = private_folder(experiment)
    forget_after(folder, 0)

    def trained(round: int) -> str:
        asked = request_of("trained", round=round)
        allowed = asked.arrays.keys() - set(EMBEDDING_TENSORS)
        reply = answer(grid, asked, allowed=allowed)
        return small.bits(reply.arrays) + small.bits(load_private(folder, round))

    first = [trained(round) for round in (1, 2, 3)]
    assert versions(folder) == [0, 1, 2, 3]
    assert len({small.bits(load_private(folder, round)) for round in range(4)}) == 4
    assert trained(3) == first[2]
    assert trained(2) == first[1]
    assert versions(folder) == [0, 1, 2]


def test_a_private_embedding_that_diverged_is_not_kept(
    grid: Grid,
    experiment: Experiment,
    request_of: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = private_folder(experiment)
    forget_after(folder, 0)

    def diverging(*args: Any, **options: Any) -> LocalUpdate:
        update = local_update(*args, **options)
        update.private[EMBEDDING_TENSORS[0]][0, 0, 0, 0] = torch.nan
        return update

    monkeypatch.setattr(client_app, "local_update", diverging)
    reply = ask(grid, request_of("trained"))
    assert reply.has_error() and reply.error.code == FAILED
    assert versions(folder) == [0]


def test_evaluation_of_a_round_uses_no_later_embedding(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    folder = private_folder(experiment)
    forget_after(folder, 0)
    counts = []
    for later in (False, True):
        if later:  # of a round that the coordinator lost
            noise = {name: torch.randn_like(v) for name, v in load_private(folder, 0).items()}
            save_private(folder, 2, noise)
        counts.append(
            [
                answer(grid, request_of("trained", task="evaluate", round=round)).confusion
                for round in (1, 2)
            ]
        )
    forget_after(folder, 0)
    np.testing.assert_array_equal(counts[0][0], counts[0][1])
    np.testing.assert_array_equal(counts[1][0], counts[0][0])
    assert (counts[1][1] != counts[0][0]).any()


def test_node_without_its_private_embedding_fails_and_tells_nothing(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    folder = private_folder(experiment)
    moved = folder.rename(folder.with_name("elsewhere"))
    try:
        reply = ask(grid, request_of("trained"))
    finally:
        moved.rename(folder)
    assert reply.error.code == FAILED
    assert reply.error.reason == "the node failed with InputError; its own log says more"


def test_evaluation_leaves_threads_as_they_were(
    grid: Grid, request_of: Callable[..., Request]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        answer(grid, request_of(task="evaluate"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("city", "changes", "reason"),
    [
        ("aachen", {"arm": "per-client"}, "has not agreed to arm per-client"),
        ("aachen", {"embedding": "frozen"}, "keeps the embedding uploaded"),
        ("aachen", {"arm": "plain-frozen-embedding", "embedding": "uploaded"}, "keeps the embed"),
        ("aachen", {"arm": "per-client-private", "embedding": "uploaded"}, "embedding private"),
        ("aachen", {"arm": "trained", "embedding": "frozen"}, "keeps the embedding private"),
        ("lindau", {}, "only evaluates"),
        ("aachen", {"seed": 99}, "was prepared for this seed"),
    ],
)
def test_refusals_travel_as_errors_without_weights(
    city: str, changes: Any, reason: str, grid: Grid, request_of: Callable[..., Request]
) -> None:
    asked = dataclasses.replace(request_of(), **changes)
    reply = ask(grid, asked, city)
    assert reply.has_error()
    assert reply.error.code == REFUSED
    assert reason in reply.error.reason
    assert not reply.has_content()


def test_message_of_another_form_is_refused(grid: Grid, request_of: Callable[..., Request]) -> None:
    content = pack_request(request_of())
    content.config_records["settings"]["data_root"] = "/home/owner"
    reply = ask(grid, request_of(), content=content)
    assert reply.error.code == REFUSED
    assert "/home/owner" not in reply.error.reason

    content = pack_request(request_of())
    content.config_records["more"] = ConfigRecord({"a": 1})
    assert ask(grid, request_of(), content=content).error.code == REFUSED


def test_a_failure_says_its_kind_and_no_more(
    experiment: Experiment,
    request_of: Callable[..., Request],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No path, no file name, no value of the owner's, for whatever goes wrong on a node."""
    policy = load_policy(policy_path(experiment.nodes, 0))
    secret = tmp_path / "owners-secret-place"
    moved = policy.arms["plain"].model_copy(update={"shards": {0: (secret,)}})
    save_policy(
        policy.model_copy(update={"arms": {"plain": moved}}), policy_path(tmp_path / "nodes", 0)
    )
    (tmp_path / "nodes" / "node_0001.yaml").write_text("city: 5-owners-secret\n", "utf-8")
    monkeypatch.setenv(NODES_VARIABLE, str(tmp_path / "nodes"))
    grid = InProcessGrid(app, len(NODES))
    wrong = request_of()
    wrong.arrays["decoder.classifier.conv.bias"] = np.full(5, 0.123, np.float32)
    for city, asked, kind in (
        ("aachen", request_of(), "InputError"),  # no shard
        ("bochum", request_of(), "InputError"),  # a policy of another form
        ("bremen", request_of(), "InputError"),  # no policy
    ):
        reply = ask(grid, asked, city)
        assert reply.error.code == FAILED
        assert reply.error.reason == f"the node failed with {kind}; its own log says more"

    monkeypatch.setenv(NODES_VARIABLE, str(experiment.nodes))
    reply = ask(grid, wrong)
    assert reply.error.code == FAILED
    assert reply.error.reason == "the node failed with RuntimeError; its own log says more"


def test_node_without_any_policy_answers(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NODES_VARIABLE, raising=False)
    reply = ask(InProcessGrid(app, len(NODES)), request_of())
    assert reply.error.code == FAILED
    assert "InputError" in reply.error.reason


def test_a_node_without_a_labelled_pixel_answers_with_no_loss(
    grid: Grid, request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said 0.0: the best loss of all."""

    def unlabelled(*args: Any, **options: Any) -> LocalUpdate:
        return dataclasses.replace(local_update(*args, **options), loss=None)

    def unscored(*args: Any) -> tuple[torch.Tensor, float]:
        return torch.zeros(19, 19, dtype=torch.int64), float("nan")

    monkeypatch.setattr(client_app, "local_update", unlabelled)
    monkeypatch.setattr(client_app, "evaluate", unscored)
    asked = request_of("per-image")
    assert answer(grid, asked, allowed=asked.arrays).loss is None
    assert answer(grid, request_of(task="evaluate"), "lindau").loss is None
