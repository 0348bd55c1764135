"""The ring: exact sums, the error that the docstring states, and what no updates sum up to."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.ring import Ring

RINGS = st.builds(
    Ring,
    bound=st.floats(1e-6, 1e3),
    cohort=st.integers(1, 300),
    most=st.integers(1, 10_000),
)


@given(RINGS)
def test_the_step_is_the_least_power_of_two_that_keeps_a_sum_in_half_the_ring(ring: Ring) -> None:
    def largest(step: Fraction) -> Fraction:
        return ring.cohort * (Fraction(ring.bound) * ring.most / step + Fraction(1, 2))

    step = Fraction(ring.step)
    assert largest(step) <= 2**30 < largest(step / 2)


@given(RINGS, st.integers(0, 2**32 - 1))
def test_the_mean_errs_no_more_than_stated(ring: Ring, seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = min(ring.cohort, 5)
    weights = generator.integers(1, ring.most, size, endpoint=True)
    updates = generator.uniform(-ring.bound, ring.bound, (size, 6))
    total = np.zeros(6, np.uint32)
    for update, weight in zip(updates, weights, strict=True):
        total += ring.quantise(update, int(weight))
    num = int(weights.sum())
    mean = ring.decode(total, size, num) / num
    exact = (updates * weights[:, None]).sum(axis=0) / num
    worst = ring.worst_error(size, num)
    assert np.abs(mean - exact).max() <= worst * (1 + 1e-6) + 1e-12 * ring.bound
    if int(weights.min()) == ring.most and size == ring.cohort:
        assert worst <= ring.cohort * ring.bound / 2**30 * (1 + 1e-6)


def test_an_update_beyond_the_bound_is_clipped_one_weight_at_a_time() -> None:
    ring = Ring(0.5, 4, 10)
    inside = ring.quantise(np.array([0.25, 0.5, -0.5]), 10)
    assert (ring.quantise(np.array([0.25, 7.0, -9.0]), 10) == inside).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_does_not_wrap(sign: int) -> None:
    ring = Ring(1.0, 144, 365)
    total = np.zeros(2, np.uint32)
    for _ in range(144):
        total += ring.quantise(np.full(2, sign * 1.0), 365)
    assert ring.decode(total, 144, 144 * 365) == pytest.approx(sign * 144.0 * 365.0, rel=1e-6)


def test_noise_is_no_sum() -> None:
    ring = Ring(0.5, 18, 54)
    noise = np.random.default_rng(0).integers(0, 2**32, 64, dtype=np.uint32)
    with pytest.raises(SumError, match="decoder is not a sum of updates within the bound"):
        ring.decode(noise, 18, 18 * 54, "decoder")


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_ring_needs_a_bound(bound: float) -> None:
    with pytest.raises(SumError, match="finite bound"):
        Ring(bound, 3, 1)


def test_what_is_not_finite_or_too_heavy_is_refused() -> None:
    ring = Ring(0.5, 3, 10)
    with pytest.raises(SumError, match="finite update"):
        ring.quantise(np.array([np.nan]), 1)
    with pytest.raises(SumError, match="weight from 0 to 10, got 11"):
        ring.quantise(np.zeros(1), 11)
