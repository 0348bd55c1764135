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

from clients import handlers
from clients.accepted_weights import remove_accepted
from clients.client_app import FAILED, REFUSED, app
from clients.policy.ledger import LEDGER, MAX_REPEATS, make_ledger, read_ledger
from clients.policy.node_policy import (
    NODES_VARIABLE,
    load_policy,
    policy_path,
    save_policy,
    state_path,
)
from clients.policy.trust_region import change_between, radius
from clients.private_state import (
    load_private,
    remove_trained,
    save_trained,
    trained_folder,
    versions,
)
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.shard import open_shard
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.federation.messages import pack_request, unpack_description, unpack_reply
from fl_ppseg.federation.run_identity import read_identity
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.learning.evaluation import confusion_counts, segment
from fl_ppseg.learning.training import LocalUpdate, local_update
from fl_ppseg.setr.names import EMBEDDING_TENSORS

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
            "run": str(read_identity(experiment.folder.path)),
        }
        return Request(**asked | changes)

    return build


def ask(grid: Grid, request: Request, client: str = "aachen", content: Any = None) -> Message:
    node_id = list(grid.get_node_ids())[NODES.index(client)]
    message = Message(content or pack_request(request), node_id, KINDS[request.task])
    (reply,) = grid.send_and_receive([message])
    return reply


def answer(grid: Grid, request: Request, client: str = "aachen", allowed: Any = ()) -> Reply:
    message = ask(grid, request, client)
    assert not message.has_error(), message.error.reason
    return unpack_reply(message.content, allowed)


def small_files(folder: Path) -> dict[str, bytes]:
    """Name -> content of the files in a folder, not in those inside it."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_node_names_its_client_and_role(grid: Grid, request_of: Callable[..., Request]) -> None:
    for client, role in (("bochum", "train"), ("lindau", "val")):
        reply = ask(grid, request_of(task="describe", arrays={}), client)
        description = unpack_description(reply.content)
        assert (description.run_id, description.client, description.role) == ("run", client, role)


def private_folders(
    experiment: Experiment, arm: str = "trained", number: int = 0
) -> tuple[Path, Path]:
    """Where a node has its private embedding from, and where it keeps what it trained."""
    private = load_policy(policy_path(experiment.nodes, number)).arms[arm].private
    assert private is not None
    return private[0], trained_folder(state_path(experiment.nodes, number), private[0])


@pytest.mark.parametrize("arm", EMBEDDINGS)
def test_training_sends_exactly_the_weights_that_may_leave(
    arm: str, grid: Grid, request_of: Callable[..., Request]
) -> None:
    asked = request_of(arm)
    kept = set() if EMBEDDINGS[arm] == "uploaded" else set(EMBEDDING_TENSORS)
    reply = answer(grid, asked, allowed=asked.arrays.keys() - kept)
    assert reply.arrays.keys() == asked.arrays.keys() - kept
    assert reply.confusion is None
    assert (reply.client, reply.run_id, reply.round) == ("aachen", "run", 1)
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
    start, trained = private_folders(experiment, "per-client-private")
    before = small.bits(load_private(start, trained, 9))
    asked = request_of("per-client-private")
    answer(grid, asked, allowed=asked.arrays.keys() - set(EMBEDDING_TENSORS))
    assert versions(start) == [0] and not trained.exists()
    assert small.bits(load_private(start, trained, 9)) == before


def test_a_repeated_round_starts_from_the_version_before(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    places = private_folders(experiment)
    remove_trained(state_path(experiment.nodes, 0))

    def trained(round: int, **changes: Any) -> str:
        asked = request_of("trained", round=round, **changes)
        allowed = asked.arrays.keys() - set(EMBEDDING_TENSORS)
        reply = answer(grid, asked, allowed=allowed)
        return small.bits(reply.arrays) + small.bits(load_private(*places, round))

    owners = small_files(places[0])
    first = [trained(round) for round in (1, 2, 3)]
    assert versions(places[1]) == [1, 2, 3]
    assert len({small.bits(load_private(*places, round)) for round in range(4)}) == 4
    assert trained(3) == first[2]
    before = small_files(places[1])
    assert [trained(2), trained(1)] == [first[1], first[0]]
    assert small_files(places[1]) == before  # a coordinator that asks again erases nothing
    assert trained(3) == first[2]

    other = {name: value * np.float32(1.0005) for name, value in request_of().arrays.items()}
    assert trained(1, arrays=other) != first[0]  # and what it asks otherwise sets aside at most
    assert versions(places[1]) == [1]
    kept = {path.read_bytes() for path in (places[1] / "superseded").iterdir()}
    assert kept == set(before.values())
    assert trained(1) == first[0]
    assert [trained(2), trained(3)] == first[1:]
    assert small_files(places[0]) == owners


def test_a_private_embedding_that_diverged_is_not_kept(
    grid: Grid,
    experiment: Experiment,
    request_of: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remove_trained(state_path(experiment.nodes, 0))

    def diverging(*args: Any, **options: Any) -> LocalUpdate:
        update = local_update(*args, **options)
        update.private[EMBEDDING_TENSORS[0]][0, 0, 0, 0] = torch.nan
        return update

    monkeypatch.setattr(handlers, "local_update", diverging)
    reply = ask(grid, request_of("trained"))
    assert reply.has_error() and reply.error.code == FAILED
    assert not private_folders(experiment)[1].exists()


def test_evaluation_of_a_round_uses_no_later_embedding(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    start, trained = private_folders(experiment)
    remove_trained(state_path(experiment.nodes, 0))
    counts = []
    for later in (False, True):
        if later:  # of a round that the coordinator lost
            own = load_private(start, trained, 0)
            drawn = np.random.default_rng(0)
            other = {n: drawn.standard_normal(v.shape, np.float32) for n, v in own.items()}
            save_trained(trained, 2, other)
        counts.append(
            [
                answer(grid, request_of("trained", task="evaluate", round=round)).confusion
                for round in (0, 1, 2)
            ]
        )
    for early in (*counts[0], *counts[1][:2]):  # round 0: the version that its owner made
        np.testing.assert_array_equal(early, counts[0][0])
    assert (counts[1][2] != counts[0][0]).any()


def test_node_without_its_private_embedding_fails_and_tells_nothing(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    remove_trained(state_path(experiment.nodes, 0))
    folder, _ = private_folders(experiment)
    moved = folder.rename(folder.with_name("elsewhere"))
    try:
        reply = ask(grid, request_of("trained"))
    finally:
        moved.rename(folder)
    assert reply.error.code == FAILED
    assert reply.error.reason == "the node failed with InputError; see its own log"


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
    ("client", "changes", "reason"),
    [
        ("aachen", {"arm": "per-client"}, "has not agreed to arm per-client"),
        ("aachen", {"embedding": "frozen"}, "agreed to the embedding uploaded"),
        (
            "aachen",
            {"arm": "plain-frozen-embedding", "embedding": "uploaded"},
            "agreed to the embed",
        ),
        ("aachen", {"arm": "per-client-private", "embedding": "uploaded"}, "embedding private"),
        ("aachen", {"arm": "trained", "embedding": "frozen"}, "agreed to the embedding private"),
        ("lindau", {}, "only evaluates"),
        ("aachen", {"seed": 99}, "was prepared for this seed"),
    ],
)
def test_refusals_travel_as_errors_without_weights(
    client: str, changes: Any, reason: str, grid: Grid, request_of: Callable[..., Request]
) -> None:
    asked = dataclasses.replace(request_of(), **changes)
    reply = ask(grid, asked, client)
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
    state = state_path(tmp_path / "nodes", 0)
    state.mkdir(parents=True)
    make_ledger(state)
    (tmp_path / "nodes" / "node_0001.yaml").write_text("client: 5-owners-secret\n", "utf-8")
    monkeypatch.setenv(NODES_VARIABLE, str(tmp_path / "nodes"))
    grid = InProcessGrid(app, len(NODES))
    for client, asked, kind in (
        ("aachen", request_of(), "InputError"),  # no shard
        ("bochum", request_of(), "InputError"),  # a policy of another form
        ("bremen", request_of(), "InputError"),  # no policy
    ):
        reply = ask(grid, asked, client)
        assert reply.error.code == FAILED
        assert reply.error.reason == f"the node failed with {kind}; see its own log"

    monkeypatch.setenv(NODES_VARIABLE, str(experiment.nodes))
    monkeypatch.setattr(handlers, "local_update", lambda *_, **__: 1 / 0)
    reply = ask(grid, request_of())
    assert reply.error.code == FAILED
    assert reply.error.reason == "the node failed with ZeroDivisionError; see its own log"


def test_node_without_any_policy_answers(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NODES_VARIABLE, raising=False)
    reply = ask(InProcessGrid(app, len(NODES)), request_of())
    assert reply.error.code == FAILED
    assert "InputError" in reply.error.reason


# What a coordinator may not ask, and how often it may.


def used(experiment: Experiment, number: int = 0) -> Path:
    """The ledger of a node, begun anew, without weights that it accepted."""
    path = state_path(experiment.nodes, number) / LEDGER
    remove_accepted(path.parent)
    path.unlink(missing_ok=True)
    return make_ledger(path.parent)


def moved(request: Request, step: int) -> Request:
    """The same request with other weights."""
    arrays = {name: value + np.float32(step) / 2**20 for name, value in request.arrays.items()}
    return dataclasses.replace(request, arrays=arrays)


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"embed_dim": 512, "depth": 1}}, "another model"),
        ({"model": {"patch_size": 1}}, "another model"),
        ({"model": {"norm": "batch"}}, "another model"),
        ({"training": {"batch_size": 1}}, "other training settings"),
        ({"training": {"num_threads": 1000}}, "other training settings"),
        ({"num_classes": 200}, "agreed to 19 classes, got a request for 200"),
        ({"round": 5}, "to 4, got 5"),
        ({"round": 10**6}, "to 4, got 1000000"),
        ({"num_rounds": 10**6}, "another number of rounds"),
        ({"run": ""}, "was prepared for another run"),
    ],
)
def test_what_the_owner_has_not_agreed_to_is_asked_in_vain(
    changes: dict[str, Any],
    reason: str,
    task: str,
    grid: Grid,
    experiment: Experiment,
    request_of: Callable[..., Request],
) -> None:
    """Each of these let a coordinator read label maps, in training or in evaluation."""
    ledger, asked = used(experiment), request_of(task=task)
    for section in ("model", "training"):
        if section in changes:
            settings = getattr(asked, section).model_copy(update=changes[section])
            changes = changes | {section: settings}
    reply = ask(grid, dataclasses.replace(asked, **changes))
    assert reply.has_error() and reply.error.code == REFUSED
    assert reason in reply.error.reason
    assert read_ledger(ledger) == []


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize("arm", ["plain", "per-client-private"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3e15, "refused: expected weights of at most 1e+06 in decoder.classifier.conv.bias, got 3"),
        (-2e6, "refused: expected weights of at most 1e+06 in decoder.classifier.conv.bias, got 2"),
        (np.nan, "refused: expected finite weights in decoder.classifier.conv.bias"),
        (-np.inf, "refused: expected finite weights in decoder.classifier.conv.bias"),
    ],
)
def test_weights_that_no_honest_training_makes_are_refused_before_they_count(
    value: float,
    reason: str,
    arm: str,
    task: str,
    grid: Grid,
    experiment: Experiment,
    request_of: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Position embeddings of 1e15 made one step tell training label maps."""
    computed: list[str] = []
    for name in ("_shard", "_model", "local_update", "evaluate"):
        monkeypatch.setattr(handlers, name, lambda *_, name=name: computed.append(name))
    ledger, asked = used(experiment), request_of(arm, task=task)
    bias = asked.arrays["decoder.classifier.conv.bias"].copy()
    bias[3] = value
    arrays = asked.arrays | {"decoder.classifier.conv.bias": bias}
    reply = ask(grid, dataclasses.replace(asked, arrays=arrays))
    assert reply.has_error() and reply.error.code == REFUSED
    assert reply.error.reason.startswith(reason) and "\n" not in reply.error.reason
    assert not computed and read_ledger(ledger) == []


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize("round", [1, 4])
def test_weights_as_far_as_training_comes_are_answered_and_none_beyond(
    task: str, round: int, grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    ledger, asked = used(experiment), request_of(task=task, round=round)
    arm = load_policy(policy_path(experiment.nodes, 0)).arms["plain"]
    change = change_between(arm, 0, round - (task == "train"))
    bias = asked.arrays["decoder.classifier.conv.bias"].copy()
    (most,) = {float(each) for each in radius(bias, change, arm.training)}
    bias[3] += np.float32(1.001 * most)
    arrays = asked.arrays | {"decoder.classifier.conv.bias": bias}
    reply = ask(grid, dataclasses.replace(asked, arrays=arrays))
    assert reply.has_error() and reply.error.code == REFUSED
    assert reply.error.reason.startswith("refused: weights in decoder.classifier.conv.bias lie ")
    assert read_ledger(ledger) == []
    bias = asked.arrays["decoder.classifier.conv.bias"].copy()
    bias[3] += np.float32(0.999 * most)
    arrays = asked.arrays | {"decoder.classifier.conv.bias": bias}
    allowed = asked.arrays.keys() if task == "train" else ()
    answer(grid, dataclasses.replace(asked, arrays=arrays), allowed=allowed)
    assert len(read_ledger(ledger)) == 1


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_a_round_is_asked_a_bounded_number_of_questions(
    task: str, grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    """22 evaluations of one round read two held-out label maps; a repeat tells nothing new."""
    ledger, asked = used(experiment), request_of(task=task)
    allowed = asked.arrays.keys() if task == "train" else ()
    first = answer(grid, asked, allowed=allowed)
    for step in (1, 2, 3):
        answer(grid, moved(asked, step), allowed=allowed)
    for step in range(4, 22):
        reply = ask(grid, moved(asked, step))
        assert reply.error.code == REFUSED
        assert (
            f"4 different questions to {task} in round 1 were already answered"
            in reply.error.reason
        )
    again = answer(grid, asked, allowed=allowed)
    assert small.bits(again.arrays) == small.bits(first.arrays)
    np.testing.assert_array_equal(again.confusion, first.confusion)
    entries = read_ledger(ledger)
    assert [(e.task, e.round, e.arm, e.seed) for e in entries] == [(task, 1, "plain", 0)] * 5
    assert [e.weights for e in entries].count(entries[0].weights) == 2
    assert entries[0].run == asked.run


def test_all_rounds_together_are_asked_a_bounded_number_of_questions(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    """As many as rounds are scored and three to spare, whatever round each is said to be of."""
    used(experiment)
    arm = load_policy(policy_path(experiment.nodes, 0)).arms["plain"]
    assert (arm.num_rounds, arm.evaluations, arm.models, arm.spare) == (4, 5, 1, 3)
    replies = [
        ask(grid, moved(request_of(task="evaluate", round=round), step))
        for round in (1, 2, 3, 4)
        for step in range(4)
    ]
    assert [reply.has_error() for reply in replies] == [False] * 8 + [True] * 8
    assert "8 different questions to evaluate in this arm were" in replies[-1].error.reason


def test_a_ledger_that_is_gone_is_refused_and_not_made_again(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    """Whoever could remove it could ask anew."""
    ledger = used(experiment)
    ledger.unlink()
    for task in KINDS:
        reply = ask(grid, request_of(task=task, arrays={}))
        assert reply.error.code == REFUSED
        assert "refused: this node has no ledger; its owner" in reply.error.reason
        assert str(experiment.nodes) not in reply.error.reason
    assert not ledger.exists()
    used(experiment)


def test_a_question_that_failed_was_asked(
    grid: Grid,
    experiment: Experiment,
    request_of: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, asked = used(experiment), request_of(task="evaluate")
    monkeypatch.setattr(handlers, "evaluate", lambda *_: 1 / 0)
    assert ask(grid, asked).error.code == FAILED
    assert len(read_ledger(ledger)) == 1


def test_too_few_held_out_images_are_not_counted_on(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    path = policy_path(experiment.nodes, 0)
    policy = load_policy(path)
    for changes, reason in (
        ({"min_heldout": 50}, "the owner requires at least 50 held-out images"),
        ({"evaluate": "never"}, "the owner allows no evaluation"),
    ):
        save_policy(policy.model_copy(update=changes), path)
        reply = ask(grid, request_of(task="evaluate"))
        assert reply.error.code == REFUSED and reason in reply.error.reason
        asked = request_of()
        answer(grid, asked, allowed=asked.arrays.keys())
    save_policy(policy, path)
    assert not ask(grid, request_of(task="evaluate")).has_error()


def test_a_withdrawal_counts_at_once_and_takes_what_was_trained(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    """The app removes its own versions; the owner never enters its folder."""
    path, state = policy_path(experiment.nodes, 0), state_path(experiment.nodes, 0)
    policy, asked = load_policy(path), request_of("trained")
    answer(grid, asked, allowed=asked.arrays.keys() - set(EMBEDDING_TENSORS))
    assert list((state / "private").iterdir()) != []
    save_policy(policy.model_copy(update={"withdrawn": "gone", "arms": {}}), path)
    reply = ask(grid, request_of(task="describe"))
    assert reply.error.reason == "refused: gone"
    assert list((state / "private").iterdir()) == []
    assert (state / LEDGER).exists()
    save_policy(policy, path)
    assert not ask(grid, request_of(task="describe")).has_error()


def test_what_was_asked_too_often_ends(
    grid: Grid, experiment: Experiment, request_of: Callable[..., Request]
) -> None:
    ledger, asked = used(experiment), request_of(task="evaluate")
    answer(grid, asked)
    ledger.write_bytes(ledger.read_bytes() * MAX_REPEATS)
    assert "already answered 100 times (evaluate, round 1)" in ask(grid, asked).error.reason
    used(experiment)


def test_a_node_without_a_labelled_pixel_answers_with_no_loss(
    grid: Grid,
    experiment: Experiment,
    request_of: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It said 0.0: the best loss of all."""

    def unlabelled(*args: Any, **options: Any) -> LocalUpdate:
        return dataclasses.replace(local_update(*args, **options), loss=None, num_examples=0)

    def unscored(*args: Any) -> tuple[torch.Tensor, float]:
        return torch.zeros(19, 19, dtype=torch.int64), float("nan")

    monkeypatch.setattr(handlers, "local_update", unlabelled)
    monkeypatch.setattr(handlers, "evaluate", unscored)
    used(experiment)
    asked = request_of("per-image")
    reply = answer(grid, asked, allowed=asked.arrays)
    assert (reply.loss, reply.num_examples) == (None, 0)
    assert answer(grid, request_of(task="evaluate"), "lindau").loss is None
