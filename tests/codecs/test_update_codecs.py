"""Updates in fewer bytes: what a code keeps, what it loses, what it refuses."""

from typing import Any

import numpy as np
import pytest

from fl_ppseg.codecs.tensors import CodecError, Layout, num_bytes
from fl_ppseg.codecs.update import UpdateCodec, codec_of
from fl_ppseg.config.sections import Config, TrainingConfig
from fl_ppseg.system.arrays import Arrays

LOSSY = ("bf16", "int8", "top-k", "low-rank")
MOST: dict[str, float] = {"bf16": 2**-7, "int8": 0.5 / 126.99}
"""Error of a coded change, as a share of the largest of its channel."""


def codec(name: str, share: float = 0.1) -> UpdateCodec:
    settings = {"codec": name, "codec_density": share, "codec_rank": 3}
    return codec_of(TrainingConfig.model_validate(settings))


def weights(seed: int, scale: float = 1.0) -> Arrays:
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "bias": (7,),
        "conv": (4, 3, 5, 5),
        "gain": (),
        "w": (9, 8),
    }
    made: Arrays = {
        name: np.asarray(draw.normal(0, scale, shape), np.float32) for name, shape in shapes.items()
    }
    return made | {
        "norm.num_batches_tracked": np.array(7),
        "norm.running_var": np.float32(draw.uniform(0, 1e-9, 3)),
    }


def trained(seed: int, start: Arrays) -> Arrays:
    moved = weights(seed, 0.01)
    return {k: v + moved[k] if v.dtype == np.float32 else moved[k] for k, v in start.items()}


def test_without_a_codec_weights_travel_as_they_are() -> None:
    start = weights(0)
    after = trained(1, start)
    parts, lost = codec("fp32").pack(after, start, {})
    assert lost == {} and parts.keys() == after.keys()
    assert all(parts[name] is after[name] for name in after)
    assert codec("fp32").unpack(parts, start) is parts


@pytest.mark.parametrize("name", LOSSY)
def test_parts_have_the_layout_that_the_other_side_expects(name: str) -> None:
    start = weights(0)
    parts, _ = codec(name).pack(trained(1, start), start, {})
    assert {k: Layout(v.shape, v.dtype) for k, v in parts.items()} == codec(name).layout(start)


@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_a_change_is_off_by_a_part_of_the_largest_in_its_channel(name: str) -> None:
    start = {k: v for k, v in weights(0).items() if not k.startswith("norm.")}
    after = trained(1, weights(0))
    found = codec(name).unpack(codec(name).pack({k: after[k] for k in start}, start, {})[0], start)
    for tensor, value in start.items():
        change = after[tensor].astype(np.float64) - value
        axes = tuple(range(1, change.ndim)) if change.ndim > 1 else None
        largest = np.abs(change).max(axis=axes, keepdims=True)
        rounded = np.spacing(np.abs(value) + np.float32(0.1))  # weights are fp32
        error = np.abs(found[tensor].astype(np.float64) - after[tensor])
        assert (error <= MOST[name] * largest + rounded).all()
        assert (found[tensor] != value).mean() > 0.5


def test_the_largest_changes_of_each_tensor_are_kept_and_no_other() -> None:
    start = {"w": np.zeros((10, 20), np.float32)}
    after = {"w": np.float32(np.random.default_rng(0).normal(size=(10, 20)))}
    found = codec("top-k", 0.1).unpack(codec("top-k", 0.1).pack(after, start, {})[0], start)["w"]
    largest = np.sort(np.abs(after["w"]).ravel())[::-1]
    assert ((found != 0) == (np.abs(after["w"]) >= largest[19])).all()
    assert np.abs(found - after["w"])[found != 0].max() <= largest[0] / 253


def test_bytes_of_a_vit_are_what_the_codec_says() -> None:
    start = {"w": np.zeros((768, 3072), np.float32), "b": np.zeros(768, np.float32)}
    whole = num_bytes(codec("fp32").layout(start).values())
    share = {n: num_bytes(codec(n, 0.02).layout(start).values()) / whole for n in LOSSY}
    assert share["bf16"] == 0.5
    assert 0.25 < share["int8"] < 0.26
    assert share["top-k"] == pytest.approx(0.025, rel=0.01)
    assert share["low-rank"] == pytest.approx(3 * (768 + 3072) / 2 / whole, rel=0.2)


@pytest.mark.parametrize("name", LOSSY)
def test_statistics_of_batches_travel_whole(name: str) -> None:
    start = weights(0)
    after = trained(1, start)
    found = codec(name).unpack(codec(name).pack(after, start, {})[0], start)
    for tensor in ("norm.num_batches_tracked", "norm.running_var"):
        assert found[tensor].tobytes() == after[tensor].tobytes()


@pytest.mark.parametrize("name", LOSSY)
def test_what_a_code_loses_later_updates_bring(name: str) -> None:
    """After any number of rounds, what was sent and the residual are what was learnt."""
    made, residual = codec(name, 0.05), {}
    learnt = sent = 0.0
    start = {"w": np.zeros((6, 50), np.float64)}
    for number in range(30):
        after = {"w": np.random.default_rng(number).normal(size=(6, 50))}
        parts, residual = made.pack(after, start, residual)
        learnt, sent = learnt + after["w"], sent + made.unpack(parts, start)["w"]
    assert residual["w"].dtype == np.float32
    assert np.abs(learnt - sent - residual["w"]).max() < 1e-4
    bare = sum(
        made.unpack(
            made.pack({"w": np.random.default_rng(n).normal(size=(6, 50))}, start, {})[0], start
        )["w"]
        for n in range(30)
    )
    assert np.linalg.norm(learnt - sent) < 0.7 * np.linalg.norm(learnt - bare)  # without residuals


@pytest.mark.parametrize("name", LOSSY)
def test_a_residual_comes_no_faster_than_training_moves_weights(name: str) -> None:
    start = {"w": np.zeros((2, 64), np.float32)}
    bounds = {"w": np.full((2, 64), 0.01)}
    residual = {"w": np.full((2, 64), 0.5, np.float32)}
    after = {"w": np.full((2, 64), 0.01, np.float32)}
    parts, left = codec(name, 1.0).pack(after, start, residual, bounds)
    found = codec(name, 1.0).unpack(parts, start)["w"]
    assert found.min() > 0.0098 and found.max() <= 0.01
    assert np.abs(left["w"] - (0.51 - found)).max() < 1e-7


HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "another dtype": ("int8", {"w:int8": np.zeros((9, 8), np.int16)}),
    "another shape": ("int8", {"w:int8": np.zeros((8, 9), np.int8)}),
    "-128": ("int8", {"w:int8": np.full((9, 8), -128, np.int8)}),
    "a scale that is no number": ("int8", {"w:scale": np.full(9, np.nan, np.float32)}),
    "an infinite scale": ("int8", {"w:scale": np.full(9, np.inf, np.float32)}),
    "a negative scale": ("int8", {"w:scale": np.full(9, -1, np.float32)}),
    "a scale beyond any training": ("int8", {"w:scale": np.full(9, 2e6, np.float32)}),
    "top-k: a scale beyond any training": ("top-k", {"w:scale": np.asarray(2e6, np.float32)}),
    "top-k: -128": ("top-k", {"w:int8": np.full(8, -128, np.int8)}),
    "a change beyond any training": ("bf16", {"w:bf16": np.full((9, 8), 0x7F7F, np.uint16)}),
    "an infinite change": ("bf16", {"w:bf16": np.full((9, 8), 0x7F80, np.uint16)}),
    "a place beyond the tensor": ("top-k", {"w:index": np.arange(65, 73, dtype=np.uint32)}),
    "a place twice": ("top-k", {"w:index": np.zeros(8, np.uint32)}),
    "no level of a factor": ("low-rank", {"w:left": np.zeros(14, np.uint8)}),
    "factors of another rank": ("low-rank", {"w:left-scale": np.ones(4, np.float32)}),
    "a factor of another length": ("low-rank", {"w:right": np.full(13, 0x88, np.uint8)}),
    "places not ascending": ("top-k", {"w:index": np.arange(8, dtype=np.uint32)[::-1].copy()}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_parts_that_no_codec_made_are_refused(case: str) -> None:
    name, changed = HOSTILE[case]
    start = weights(0)
    parts, _ = codec(name).pack(trained(1, start), start, {})
    assert changed.keys() <= parts.keys()
    codec(name).unpack(parts, start)
    with pytest.raises(CodecError, match=r"^w:"):
        codec(name).unpack(parts | changed, start)


def test_masked_sums_take_no_codec() -> None:
    sums = {"secure_aggregation": True}
    Config.model_validate({"federation": sums})
    with pytest.raises(ValueError, match="would leave no sum"):
        Config.model_validate({"federation": sums, "training": {"codec": "int8"}})
