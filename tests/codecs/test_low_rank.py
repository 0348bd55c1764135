"""Changes as two thin factors: close to the best of their rank, never larger, no other."""

import math
from typing import Any

import numpy as np
import pytest

from fl_ppseg.codecs.low_rank import LowRank
from fl_ppseg.codecs.tensors import CodecError, Layout, num_bytes

CODEC = LowRank(4)


def of_spectrum(sizes: list[float], shape: tuple[int, int] = (48, 90), seed: int = 0) -> np.ndarray:
    """A matrix with these singular values, and directions that are drawn."""
    draw = np.random.default_rng(seed)
    left, right = (np.linalg.qr(draw.normal(size=(n, len(sizes))))[0] for n in shape)
    return np.asarray((left * sizes) @ right.T)


def lost(change: np.ndarray, codec: LowRank = CODEC) -> float:
    """Share of a change, as squares, that a code loses."""
    left = change - codec.decode(codec.encode(change), change.shape)
    return float((left**2).sum() / (change**2).sum())


def test_a_change_of_the_rank_is_lost_to_the_rounding_alone() -> None:
    """Of a factor of 4 bits: a step of a seventh of the largest in its column."""
    assert lost(of_spectrum([3.0, 2.0, 1.0, 0.5])) < 0.05
    assert lost(of_spectrum([3.0])) < 0.05  # and of a lower one


def test_it_comes_close_to_the_best_of_its_rank() -> None:
    """Eckart and Young: the best of rank r keeps the r largest singular values."""
    sizes = [2.0**-k for k in np.arange(0, 8, 0.25)]
    kept = sum(s**2 for s in sizes[:4]) / sum(s**2 for s in sizes)
    found = 1 - lost(of_spectrum(sizes))
    assert 0.9 * kept < found <= kept


def test_a_code_worked_by_hand() -> None:
    """(3, -7, 0) by (7, 1, -2), of rank 1, in steps of 0.5 and 2: levels + 8, two in a byte."""
    parts = {
        "left": np.array([0xB1, 0x88], np.uint8),
        "left-scale": np.array([0.5], np.float32),
        "right": np.array([0xF9, 0x68], np.uint8),
        "right-scale": np.array([2.0], np.float32),
    }
    wanted = np.outer([3, -7, 0], [7, 1, -2])
    assert LowRank(1).decode(parts, (3, 3)).tolist() == wanted.tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(40, 60), (16, 8, 3, 3), (1, 30, 40), (12,), (3, 200)])
def test_nothing_gets_larger_than_the_largest_change(shape: tuple[int, ...], seed: int) -> None:
    change = np.clip(np.random.default_rng(seed).standard_t(2, shape), -1, 1)
    parts = CODEC.encode(change)
    assert np.abs(CODEC.decode(parts, shape)).max() <= np.abs(change).max() * (1 + 2**-23)
    assert {k: Layout(v.shape, v.dtype) for k, v in parts.items()} == CODEC.layout(shape)


def test_what_would_not_get_smaller_is_coded_as_int8() -> None:
    for shape in ((), (90,), (8, 8), (8, 768), (5, 3, 3, 3)):
        assert CODEC.layout(shape).keys() == {"int8", "scale"}
    assert LowRank(16).layout((19, 768)).keys() == {"int8", "scale"}  # of a class head
    assert CODEC.layout((9, 9)).keys() == {"left", "left-scale", "right", "right-scale"}


def test_convolutions_and_position_embeddings_are_matrices() -> None:
    for shape, sides in (((64, 16, 3, 3), (64, 144)), ((1, 128, 96), (128, 96))):
        size = num_bytes(CODEC.layout(shape).values())
        assert size == sum(math.ceil(side * 4 / 2) + 4 * 4 for side in sides)
        change = of_spectrum([2.0, 1.0], sides)
        found = CODEC.decode(CODEC.encode(change.reshape(shape)), shape)
        flat = CODEC.decode(CODEC.encode(change), sides)
        assert found.shape == shape and found.tobytes() == flat.tobytes()


def test_the_same_change_gives_the_same_code() -> None:
    change = of_spectrum([2.0, 1.0, 1.0, 1.0, 1.0])
    first, second = CODEC.encode(change), CODEC.encode(change.copy())
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_no_change_is_one() -> None:
    found = CODEC.decode(CODEC.encode(np.zeros((30, 20))), (30, 20))
    assert not found.any()


HOSTILE: dict[str, dict[str, Any]] = {
    "no level": {"left": np.zeros(96, np.uint8)},
    "no level in one half": {"right": np.full(180, 0x80, np.uint8)},
    "no number": {"left-scale": np.full(4, np.nan, np.float32)},
    "infinite": {"right-scale": np.full(4, np.inf, np.float32)},
    "negative": {"right-scale": np.full(4, -1, np.float32)},
    "a scale beyond any training": {"left-scale": np.full(4, 2e6, np.float32)},
    "a product beyond any training": {
        "left": np.full(96, 0xFF, np.uint8),
        "right": np.full(180, 0xFF, np.uint8),
        "left-scale": np.full(4, 9e5, np.float32),
        "right-scale": np.full(4, 9e5, np.float32),
    },
}


@pytest.mark.parametrize("case", HOSTILE)
def test_factors_that_no_code_has_are_refused(case: str) -> None:
    change = of_spectrum([2.0, 1.0])
    parts, changed = CODEC.encode(change), HOSTILE[case]
    layout = CODEC.layout(change.shape)
    assert all((v.shape, v.dtype) == layout[name] for name, v in changed.items())
    CODEC.decode(parts, change.shape)
    with pytest.raises(CodecError, match="expected"):
        CODEC.decode(parts | changed, change.shape)
