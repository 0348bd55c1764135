"""Federations whose updates travel in a code, through the real ClientApp and ServerApp."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import small_federation as small
from flwr.app import Array, ArrayRecord, Context, Message

from clients.client_app import app
from clients.residuals import RESIDUALS
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.updates import difference, norm

CODECS = {"bf16": 0.5, "int8": 0.3, "top-k": 0.2}
"""And the most bytes of an update of the small model, as a share of fp32's."""


def config(scenes: Path, codec: str, **changes: Any) -> Config:
    training = {"batch_size": 2, "codec": codec, "codec_share": 0.1}
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
    assert 0 < apart < {"bf16": 0.02, "int8": 0.1, "top-k": 0.95}[codec]


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
    sent = [reply.content for reply in recorder.sent if reply.has_content()]
    for value in filter(np.any, lost.values()):
        assert all(value.tobytes() not in str(content).encode() for content in sent)


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
    assert rounds and all("finite scales" in str(line["rejected"]) for line in rounds)
    assert len({line["client"] for line in folder.lines() if line["role"] == "train"}) == 2


def test_weights_of_a_coded_run_stay_within_what_nodes_accept(scenes: Path, tmp_path: Path) -> None:
    """Error feedback does not send what several rounds learnt at once: no node refuses."""
    settings = config(
        scenes, "top-k", federation={"num_rounds": 4, "last_rounds": 1, "server_learning_rate": 1.5}
    )
    recorder = small.Recorder()
    small.federate(small.prepared(settings, tmp_path), client_app=recorder)
    refused = [reply.error for reply in recorder.sent if reply.has_error()]
    assert refused == []
