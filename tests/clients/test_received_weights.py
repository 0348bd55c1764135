"""Weights that came as changes since round 0: decoded, or refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_nodes
import numpy as np
import pytest
import small_federation as small
from descriptions import described
from test_policy import arm_policy

from clients.accepted_weights import accepted_folder, check_change, keep
from clients.policy.ledger import Question
from clients.policy.node_policy import RefusedError
from clients.policy.start_weights import write_start
from clients.policy.trust_region import check_region, radius
from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.coded_weights import CodedWeights, decoded
from fl_ppseg.federation.messages import MessageError
from fl_ppseg.system.arrays import Arrays, hash_of

INT8 = TrainingConfig(weights_codec="int8")

ORIGIN: Arrays = {
    "layer.weight": np.array([[0.5, -2.0], [-0.0, 1.0]], np.float32),  # equals 0.0, other bits
    "norm.bias": np.array([0.1, 0.2], np.float32),
}
STATISTICS: Arrays = {"norm.running_mean": np.array([3.0, 4.0], np.float32)}


def start() -> Checkpoint:
    return Checkpoint(0, ORIGIN | STATISTICS, {}, described())


def request(arrays: Arrays) -> Any:
    return fake_nodes.request(task="train", round=1, num_rounds=9, training=INT8, arrays=arrays)


def test_a_code_is_decoded_as_the_coordinator_does() -> None:
    coded = CodedWeights(INT8, start())
    weights = {name: value + 0.125 for name, value in (ORIGIN | STATISTICS).items()}
    kept = coded.encode(weights)
    sent = coded.sent(kept)
    assert sent["norm.running_mean"].tolist() == [3.125, 4.125]
    found = decoded(request(sent), ORIGIN, hash_of(ORIGIN)).arrays
    assert small.bits(found) == small.bits(kept)
    resumed = CodedWeights(INT8, Checkpoint(1, kept, coded.state, described()))
    assert small.bits(resumed.sent(kept)) == small.bits(sent)
    later = {name: value + 0.01 for name, value in kept.items()}
    assert small.bits(resumed.encode(later)) == small.bits(coded.encode(later))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda parts: parts.pop("layer.weight:scale"), "each of them whole"),
        (lambda parts: [parts.pop(f"layer.weight:{x}") for x in ("int8", "scale")], "do not lead"),
        (lambda parts: parts["norm.bias:int8"].__setitem__(0, 3), "do not lead"),
        (lambda parts: parts.update({"norm.running_mean": ORIGIN["norm.bias"]}), "do not lead"),
        (lambda parts: parts.pop(":weights"), "do not lead"),
        (lambda parts: parts.pop("norm.running_mean"), "do not lead"),
        (lambda parts: parts.pop(":origin"), "other weights of round 0"),
        (
            lambda parts: parts.update({":origin": np.zeros(32, np.uint8)}),
            "other weights of round 0",
        ),
        (
            lambda parts: parts.update({"layer.weight": ORIGIN["layer.weight"]}),
            "each of them whole",
        ),
        (lambda parts: parts.update({"other:int8": np.zeros(2, np.int8)}), "each of them whole"),
        (lambda parts: parts.update({"norm.bias:int8": np.zeros(3, np.int8)}), "of shape"),
        (lambda parts: parts.update({"norm.bias:scale": np.array(np.nan, np.float32)}), "scales"),
        (lambda parts: parts.update({"norm.bias:scale": np.array(1e9, np.float32)}), "scales"),
        (lambda parts: parts.update({"norm.bias:int8": np.full(2, -128, np.int8)}), "levels"),
    ],
)
def test_what_is_no_code_is_refused(change: Any, why: str) -> None:
    coded = CodedWeights(INT8, start())
    moved = {name: value + 0.125 for name, value in (ORIGIN | STATISTICS).items()}
    parts = dict(coded.sent(coded.encode(moved)))
    decoded(request(dict(parts)), ORIGIN, hash_of(ORIGIN))
    change(parts)
    with pytest.raises(MessageError, match=why):
        decoded(request(parts), ORIGIN, hash_of(ORIGIN))


def test_what_is_as_in_round_0_does_not_travel() -> None:
    coded = CodedWeights(INT8, start())
    hashes = {":origin", ":weights"}
    first = coded.sent({})
    assert first.keys() == STATISTICS.keys() | hashes
    unmoved = decoded(request(first), ORIGIN, hash_of(ORIGIN)).arrays
    assert small.bits(unmoved) == small.bits(ORIGIN | STATISTICS)
    moved = ORIGIN | STATISTICS | {"norm.bias": ORIGIN["norm.bias"] + 0.5}
    kept = coded.encode(moved)
    sent = coded.sent(kept)
    assert sent.keys() == STATISTICS.keys() | hashes | {"norm.bias:int8", "norm.bias:scale"}
    found = decoded(request(sent), ORIGIN, hash_of(ORIGIN)).arrays
    assert small.bits(found) == small.bits(kept)
    assert found["layer.weight"].tobytes() == ORIGIN["layer.weight"].tobytes()
    resumed = CodedWeights(INT8, Checkpoint(1, kept, coded.state, described()))
    assert small.bits(resumed.sent(kept)) == small.bits(sent)


def test_honest_weights_stay_within_what_nodes_accept(tmp_path: Path) -> None:
    """Training that always moves as far as it can, coded, round after round; and no further."""
    rng, change = np.random.default_rng(0), 0.05
    training = TrainingConfig(weights_codec="int8", weight_decay=0.0)
    arm = arm_policy(start={0: write_start(tmp_path, ORIGIN)}, max_change=change, training=training)
    folder = accepted_folder(tmp_path, arm, Question("run", "plain", 0, 3, "train", "0" * 64))
    assert folder is not None
    coded, weights = CodedWeights(training, start()), dict(ORIGIN | STATISTICS)
    asked = replace(request({}), training=training)
    for number in range(1, 9):
        signs = {name: rng.choice([-1, 1, 1], value.shape) for name, value in ORIGIN.items()}
        moved = {name: weights[name] + change * signs[name] for name in ORIGIN}
        weights = coded.encode(weights | moved)
        this = replace(asked, round=number + 1, arrays=weights)
        check_region(arm, this)
        assert check_change(folder, arm, this)
        keep(folder, arm, this)
    far = {
        name: ORIGIN[name] + 1.02 * radius(ORIGIN[name], 8 * change, training) for name in ORIGIN
    }
    with pytest.raises(RefusedError, match="training reaches at most"):
        check_region(arm, replace(asked, round=9, arrays=weights | far))
