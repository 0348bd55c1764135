"""Federations whose weights travel to the clients as changes since round 0."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from flwr.app import Context, Message, RecordDict

from clients import client_app
from clients.client_app import app
from clients.policy.node_policy import (
    ArmPolicy,
    load_policy,
    policy_path,
    save_policy,
)
from clients.policy.start_weights import read_start, write_start
from fl_ppseg.config.loading import arms_of, config_for
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.messages import pack_arrays, unpack_arrays, unpack_request
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.updates import difference, norm
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import hash_of
from fl_ppseg.system.errors import InputError, RunError


def config(scenes: Path, arm: str = "plain", **changes: Any) -> Config:
    training = {"batch_size": 2, "weights_codec": "int8"} | changes.pop("training", {})
    return small.config(scenes, arms=[arm], training=training, **changes)


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    settings = config(scenes, training={"weights_codec": "fp32"})
    return small.federate(small.prepared(settings, tmp_path_factory.mktemp("whole")))


def test_it_goes_where_a_whole_one_goes_in_fewer_bytes(
    whole: RunFolder, scenes: Path, tmp_path: Path
) -> None:
    made = small.prepared(config(scenes), tmp_path)
    start = small.final(made.folder, "plain")
    recorder = small.Recorder()
    folder = small.federate(made, client_app=recorder)
    down = [sum(x.get("bytes_down", 0) for x in each.lines()) for each in (folder, whole)]
    assert 0 < down[0] <= 0.3 * down[1]
    wanted = difference(small.final(whole, "plain"), start)
    found = difference(small.final(folder, "plain"), start)
    apart = norm({k: found[k] - wanted[k] for k in wanted}) / norm(wanted)
    assert 0 < apart < 0.1
    asked = [unpack_request(m.content) for m in recorder.received if m.content["arrays"]]
    assert asked
    for request in asked:
        sizes = {name: value.nbytes for name, value in request.arrays.items()}
        assert sum(sizes.values()) <= 0.3 * sum(value.nbytes for value in start.values())
        assert not any(np.issubdtype(v.dtype, np.floating) and ":" not in n
                       for n, v in request.arrays.items())  # fmt: skip


@pytest.mark.parametrize(
    "arm",
    ["plain", "plain-frozen-embedding", "per-client-private", "per-image-invariant",
     "domain-adaptation"],
)  # fmt: skip
def test_nodes_and_coordinator_have_the_same_weights(
    arm: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[tuple[str, int], set[str]] = {}

    def watched(request: Any, policy: Any) -> Any:
        found = real(request, policy)
        if found.arrays:
            seen.setdefault((found.task, found.round), set()).add(hash_of(found.arrays))
        return found

    real = client_app.with_weights
    monkeypatch.setattr(client_app, "with_weights", watched)
    made = small.prepared(config(scenes, arm), tmp_path)
    first = hash_of(small.final(made.folder, arm))
    folder = small.federate(made)
    last = made.config.federation.num_rounds
    assert all(len(hashes) == 1 for hashes in seen.values())
    assert seen["train", 1] == {first}
    assert seen["evaluate", last] == {hash_of(small.final(folder, arm))}
    assert seen["evaluate", last - 1] == seen["train", last]


@pytest.mark.parametrize("arm", ["plain-frozen-embedding", "per-client-private", "plain"])
def test_tensors_that_are_not_trained_travel_neither_way(
    arm: str, scenes: Path, tmp_path: Path
) -> None:
    """Told by the messages themselves; and their bytes are those that results name."""
    settings = config(scenes, arm, training={"codec": "low-rank", "codec_rank": 4})
    made = small.prepared(settings, tmp_path)
    model = small.final(made.folder, arm)
    recorder = small.Recorder()
    folder = small.federate(made, client_app=recorder)
    requests = [unpack_request(m.content) for m in recorder.received if m.content["arrays"]]
    firsts = [r.round - (r.task == "train") == 0 for r in requests]
    begun = [r for r, is_first in zip(requests, firsts, strict=True) if is_first]
    later = [r for r, is_first in zip(requests, firsts, strict=True) if not is_first]
    assert begun and later
    for each in begun:  # nothing is trained yet
        assert {name: value.nbytes for name, value in each.arrays.items()} == {
            ":origin": 32, ":weights": 32
        }  # fmt: skip
    replies = [unpack_arrays(m.content.array_records["arrays"]) for m in recorder.sent]
    trained = model.keys() - (set() if arm == "plain" else set(EMBEDDING_TENSORS))
    for arrays in [*(each.arrays for each in later), *filter(None, replies)]:
        assert {name.partition(":")[0] for name in arrays} - {""} == trained
    lines = folder.lines()
    told = [sum(line[way] for line in lines) for way in ("bytes_down", "bytes_up")]
    assert told[0] == sum(v.nbytes for each in requests for v in each.arrays.values())
    assert told[1] == sum(v.nbytes for arrays in replies for v in arrays.values())


@pytest.mark.parametrize("side", ["node", "coordinator"])
def test_a_trained_tensor_that_is_left_out_is_refused(
    side: str, scenes: Path, tmp_path: Path
) -> None:
    """By the node, whose copy of it is of round 0; by the coordinator, for all that is trained."""
    made = small.prepared(config(scenes, training={"codec": "int8"}), tmp_path)
    name = "backbone.blocks.0.attn.qkv.weight"

    def without(content: RecordDict) -> None:
        kept = unpack_arrays(content.array_records["arrays"])
        left = {part: value for part, value in kept.items() if not part.startswith(name)}
        content["arrays"] = pack_arrays(left)

    def lossy(message: Message, context: Context) -> Message:
        if side == "node" and message.content["arrays"]:
            without(message.content)
        reply = app(message, context)
        if side == "coordinator" and message.metadata.message_type == "train":
            without(reply.content)
        return reply

    recorder = small.Recorder(lossy)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="do not lead" if side == "node" else "arrays are missing"):
        small.federate(made, client_app=recorder)


class StoppedError(Exception):
    """The coordinator is gone."""


def test_a_run_that_is_stopped_ends_with_the_same_bits(scenes: Path, tmp_path: Path) -> None:
    settings = config(
        scenes,
        training={"codec": "top-k", "codec_density": 0.1},
        federation={"num_rounds": 3, "last_rounds": 1, "strategy": "fedavgm"},
    )
    undisturbed = small.prepared(settings, tmp_path / "a")
    other = small.prepared(settings, tmp_path / "b")
    answered = 0

    def stopping(message: Message, context: Context) -> Message:
        nonlocal answered
        reply = app(message, context)
        answered += message.metadata.message_type == "train"
        if answered == 5:
            answered += 1
            raise StoppedError
        return reply

    with pytest.raises(StoppedError):
        small.federate(other, client_app=stopping)
    assert small.bits(small.final(small.federate(other), "plain")) == small.bits(
        small.final(small.federate(undisturbed), "plain")
    )


@pytest.mark.parametrize(
    ("arm", "federation"),
    [
        ("per-client-private", {}),
        ("per-image-invariant", {}),
        ("domain-adaptation", {}),
        ("plain", {"secure_aggregation": True, "least_cohort": 2}),
    ],
)
def test_arms_and_sums_that_it_goes_together_with(
    arm: str, federation: dict[str, Any], scenes: Path, tmp_path: Path
) -> None:
    made = small.prepared(config(scenes, arm, federation=federation), tmp_path)
    recorder = small.Recorder()
    folder = small.federate(made, client_app=recorder)
    assert [str(x.error.reason) for x in recorder.sent if x.has_error()] == []
    lines = folder.lines()
    assert {x["round"] for x in lines if x["role"] == "train"} == {1, 2}
    assert not any(x["rejected"] for x in lines if x["role"] == "round")


def test_a_node_with_another_copy_of_round_0_refuses(scenes: Path, tmp_path: Path) -> None:
    """One weight in its last bit: with weights as they are it would make no difference."""
    made = small.prepared(config(scenes), tmp_path)
    path = policy_path(made.nodes, 0)
    policy = load_policy(path)
    own = dict(read_start(policy.arms["plain"].start[0]))  # type: ignore[index]
    name = "backbone.blocks.0.attn.qkv.weight"
    own[name] = np.nextafter(own[name], np.float32(np.inf))
    start = {0: write_start(tmp_path / "own", own)}
    arms = {"plain": policy.arms["plain"].model_copy(update={"start": start})}
    save_policy(policy.model_copy(update={"arms": arms}), path)
    recorder = small.Recorder()
    with suppress(RunError):
        small.federate(made, client_app=recorder)
    reasons = {str(reply.error.reason) for reply in recorder.sent if reply.has_error()}
    assert any("other weights of round 0" in each for each in reasons)


def test_training_without_a_bound_is_refused_before_anything_is_encrypted(
    scenes: Path, tmp_path: Path
) -> None:
    unbound = {"optimizer": "sgd", "gradient_clip": 0.0}
    with pytest.raises(InputError, match="set it to fp32"):
        small.prepared(config(scenes, training=unbound), tmp_path)


def test_a_node_without_the_weights_of_round_0_refuses(scenes: Path, tmp_path: Path) -> None:
    made = small.prepared(config(scenes), tmp_path)
    for number in range(made.num_nodes):
        path = policy_path(made.nodes, number)
        policy = load_policy(path)
        arms = {
            name: ArmPolicy.model_validate(dict(arm) | {"start": None, "max_change": None})
            for name, arm in policy.arms.items()
        }
        save_policy(policy.model_copy(update={"arms": arms}), path)
    recorder = small.Recorder()
    with suppress(RunError):
        small.federate(made, client_app=recorder)
    reasons = {str(reply.error.reason) for reply in recorder.sent if reply.has_error()}
    assert any("use training.weights_codec fp32" in each for each in reasons)


def test_arms_that_average_nothing_get_weights_as_they_are(scenes: Path) -> None:
    settings = config(scenes).model_copy(update={"arms": ("plain", "local-only", "centralised")})
    found = {
        name: config_for(settings, arm).training.weights_codec
        for name, arm in arms_of(settings).items()
    }
    assert found == {"plain": "int8", "local-only": "fp32", "centralised": "fp32"}
