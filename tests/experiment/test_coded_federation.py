"""Federations whose updates travel in a code, through the real ClientApp and ServerApp."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import small_federation as small
from flwr.app import Array, ArrayRecord, Context, Message

from clients import handlers
from clients.client_app import app
from clients.policy.node_policy import LocalPrivacy, load_policy, policy_path, save_policy
from clients.residuals import RESIDUALS
from fl_ppseg.config.loading import arms_of, config_for
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.training import local_update
from fl_ppseg.learning.updates import difference, norm
from fl_ppseg.system.errors import RunError

CODECS = {"bf16": 0.5, "int8": 0.3, "top-k": 0.2, "low-rank": 0.12}
"""And the most bytes of an update of the small model, as a share of fp32's."""


def config(scenes: Path, codec: str, **changes: Any) -> Config:
    training = {"batch_size": 2, "codec": codec, "codec_density": 0.1, "codec_rank": 4}
    return small.config(scenes, arms=["plain"], training=training, **changes)


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.federate(small.prepared(config(scenes, "fp32"), tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("codec", CODECS)
def test_a_coded_federation_goes_where_a_whole_one_goes_in_fewer_bytes(
    codec: str, whole: RunFolder, scenes: Path, tmp_path: Path
) -> None:
    made = small.prepared(config(scenes, codec), tmp_path)
    start = small.final(made.folder, "plain")
    folder = small.federate(made)
    lines = [[x for x in each.lines() if x["role"] == "train"] for each in (folder, whole)]
    (coded, full) = (sum(line["bytes_up"] for line in each) for each in lines)
    assert 0 < coded <= CODECS[codec] * full
    wanted = difference(small.final(whole, "plain"), start)
    found = difference(small.final(folder, "plain"), start)
    apart = norm({k: found[k] - wanted[k] for k in wanted}) / norm(wanted)
    assert 0 < apart < {"bf16": 0.02, "int8": 0.1, "top-k": 0.95, "low-rank": 0.8}[codec]


class StoppedError(Exception):
    """The coordinator is gone."""


def test_a_run_that_is_stopped_and_repeats_a_round_ends_with_the_same_bits(
    scenes: Path, tmp_path: Path
) -> None:
    settings = config(scenes, "top-k", federation={"num_rounds": 3, "last_rounds": 1})
    undisturbed = small.prepared(settings, tmp_path / "a")
    other = small.prepared(settings, tmp_path / "b")
    answered = 0

    def stopping(message: Message, context: Context) -> Message:
        nonlocal answered
        reply = app(message, context)
        answered += message.metadata.message_type == "train"
        if answered == 5:  # two of the three updates of round 2 are made, and their residuals kept
            answered += 1
            raise StoppedError
        return reply

    with pytest.raises(StoppedError):
        small.federate(other, client_app=stopping)
    assert small.bits(small.final(small.federate(other), "plain")) == small.bits(
        small.final(small.federate(undisturbed), "plain")
    )


def test_residuals_stay_on_the_node(scenes: Path, tmp_path: Path) -> None:
    made = small.prepared(config(scenes, "int8"), tmp_path)
    recorder = small.Recorder()
    small.federate(made, client_app=recorder)
    files = sorted(made.nodes.rglob(f"{RESIDUALS}/*/*.safetensors"))
    assert len(files) == 3 * 2 and all(f.stat().st_mode & 0o777 == 0o600 for f in files)
    lost = safetensors.numpy.load_file(files[-1])
    assert any(value.any() for value in lost.values())
    sent = b"".join(
        array.data
        for reply in recorder.sent
        for record in reply.content.array_records.values()
        for array in record.values()
    )
    (first, *_) = (value for value in lost.values() if value.size > 100)
    assert first.tobytes() not in sent and first.tobytes()[:64] not in sent
    assert b"backbone.blocks.0.attn.qkv.weight:int8" in sent  # what is sent is found in this way


def test_a_reply_that_no_codec_made_is_rejected_alone(scenes: Path, tmp_path: Path) -> None:
    made = small.prepared(config(scenes, "int8"), tmp_path)

    def lying(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type != "train" or context.node_config["partition-id"] != 0:
            return reply
        (array,) = reply.content["arrays"].values()
        parts = safetensors.numpy.load(array.numpy().tobytes())
        name = next(part for part in parts if part.endswith(":scale"))
        parts[name] = np.full_like(parts[name], np.nan)
        packed = Array(np.frombuffer(safetensors.numpy.save(parts), np.uint8))
        reply.content["arrays"] = ArrayRecord({"safetensors": packed})
        return reply

    folder = small.federate(made, client_app=lying)
    rounds = [line for line in folder.lines() if line["role"] == "round"][1:]
    assert rounds and all("expected scales" in str(line["rejected"]) for line in rounds)
    assert len({line["client"] for line in folder.lines() if line["role"] == "train"}) == 2


@pytest.mark.parametrize("codec", ["int8", "low-rank"])
def test_a_large_residual_does_not_carry_weights_beyond_what_nodes_accept(
    codec: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What many rounds have not sent comes no faster than training moves weights."""
    refused = []
    for name, bounds in (("bounded", handlers.bounds_of), ("unbounded", lambda *_: None)):
        monkeypatch.setattr(handlers, "bounds_of", bounds)
        made = small.prepared(config(scenes, codec), tmp_path / name)
        start = small.final(made.folder, "plain")
        large = {k: np.full(v.shape, 0.5, np.float32) for k, v in start.items()}
        monkeypatch.setattr(handlers, "load_residual", lambda *_, large=large: large)
        recorder = small.Recorder()
        with suppress(RunError):  # where no node answers, the run ends
            small.federate(made, client_app=recorder)
        refused.append([reply.error.reason for reply in recorder.sent if reply.has_error()])
    assert refused[0] == []
    assert any("training reaches at most" in str(reason) for reason in refused[1])


@pytest.mark.parametrize("codec", ["fp32", *CODECS])
def test_a_node_that_adds_noise_takes_no_codec(codec: str, scenes: Path, tmp_path: Path) -> None:
    made = small.prepared(config(scenes, codec), tmp_path)
    privacy = LocalPrivacy(noise_multiplier=1.0, clipping_norm=1.0, max_epsilon=100.0, delta=1e-5)
    for number in range(made.num_nodes):
        path = policy_path(made.nodes, number)
        save_policy(load_policy(path).model_copy(update={"privacy": privacy}), path)
    recorder = small.Recorder()
    with suppress(RunError):
        small.federate(made, client_app=recorder)
    reasons = {str(reply.error.reason) for reply in recorder.sent if reply.has_error()}
    assert any("use training.codec fp32" in each for each in reasons) == (codec != "fp32")


def test_diverged_training_is_not_coded(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small.prepared(config(scenes, "top-k"), tmp_path)

    def diverging(*arguments: Any, **options: Any) -> Any:
        update = local_update(*arguments, **options)
        next(iter(update.weights.values())).view(-1)[:3] = float("nan")
        return update

    monkeypatch.setattr(handlers, "local_update", diverging)
    recorder = small.Recorder()
    with pytest.raises(RunError):
        small.federate(made, client_app=recorder)
    assert any(reply.has_error() for reply in recorder.sent)
    assert not list(made.nodes.rglob(f"{RESIDUALS}/*/*.safetensors"))


def test_arms_that_average_nothing_send_weights_as_they_are(scenes: Path) -> None:
    settings = config(scenes, "int8").model_copy(
        update={"arms": ("plain", "local-only", "centralised")}
    )
    found = {n: config_for(settings, arm).training.codec for n, arm in arms_of(settings).items()}
    assert found == {"plain": "int8", "local-only": "fp32", "centralised": "fp32"}


@pytest.mark.parametrize("aggregation", ["median", "trimmed-mean", "krum", "multi-krum"])
def test_sparse_updates_are_averaged_alone(aggregation: str) -> None:
    chosen = {"aggregation": aggregation}
    for dense in ("int8", "low-rank"):
        Config.model_validate({"federation": chosen, "training": {"codec": dense}})
    with pytest.raises(ValueError, match="would learn nothing"):
        Config.model_validate({"federation": chosen, "training": {"codec": "top-k"}})
