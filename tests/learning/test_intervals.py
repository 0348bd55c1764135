"""Intervals against scipy's own, and against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fl_ppseg.learning.intervals import deviation, paired_ratios, t_interval


def test_by_hand() -> None:
    """1, 2, 3, 4, 5: s = sqrt(2.5); the 97.5 % quantile of t with 4 degrees of freedom is 2.776."""
    half = 2.776 * (2.5 / 5) ** 0.5
    assert t_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    assert t_interval([0.0, 2.0]) == pytest.approx((1 - 12.706, 1 + 12.706), abs=1e-3)


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 2), min_size=2, max_size=20, unique=True), st.floats(0.5, 0.99))
def test_equals_scipys_interval(values: list[float], confidence: float) -> None:
    expected = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    assert t_interval(values, confidence) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_covers_the_true_mean_as_often_as_promised() -> None:
    """2000 draws of 5: the share has a standard error of .5 %."""
    draws = np.random.default_rng(0).normal(1.0, 0.1, (2000, 5))
    intervals = [t_interval(list(draw)) for draw in draws]
    covered = [low <= 1.0 <= high for low, high in filter(None, intervals)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_one_value_has_no_spread() -> None:
    assert t_interval([0.9]) is None
    assert t_interval([]) is None
    assert deviation([0.9]) is None
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)


def test_pairs_need_both_sides_and_a_base() -> None:
    own = {0: 1.0, 1: 2.0, 2: None, 3: 4.0, 4: 5.0}
    base = {0: 2.0, 1: 0.0, 2: 3.0, 3: None}
    assert paired_ratios(own, base) == {0: 0.5}
