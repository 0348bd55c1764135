"""Noise and its price: epsilon against another accountant and published bounds; laws of noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from fl_ppseg.learning.privacy import epsilon, noisy, standard_normal
from fl_ppseg.learning.updates import clipped, difference, moved, norm

DP_ACCOUNTING = {
    (1, 1.0, 1e-5): 4.3772,
    (1, 4.0, 1e-5): 0.9263,
    (10, 1.0, 1e-5): 17.8566,
    (10, 8.0, 1e-6): 1.743,
    (100, 2.0, 1e-5): 33.1037,
    (30, 0.5, 1e-3): 92.9723,
}
"""Releases, noise multiplier, delta -> epsilon of PLDAccountant, dp-accounting 0.6.0."""
LAWS = settings(max_examples=60)
RELEASES, NOISE = st.integers(1, 1000), st.floats(0.3, 50)
DELTA = st.floats(1e-9, 0.1)


@pytest.mark.parametrize("case", DP_ACCOUNTING)
def test_epsilon_is_that_of_google_s_accountant(case: tuple[int, float, float]) -> None:
    assert epsilon(*case) == pytest.approx(DP_ACCOUNTING[case], abs=6e-5)


def test_epsilon_is_the_published_calibration() -> None:
    """Balle, Wang 2018: the classical bound sqrt(2 ln(1.25 / delta)) / epsilon is never less."""
    for wanted in (0.1, 0.5, 0.9):
        classical = math.sqrt(2 * math.log(1.25 / 1e-5)) / wanted
        assert epsilon(1, classical, 1e-5) < wanted


@LAWS
@given(RELEASES, NOISE, DELTA)
def test_epsilon_is_never_above_that_of_renyi_accounting(
    num: int, noise: float, delta: float
) -> None:
    """Mironov 2017, proposition 3 and corollary 3, at the best order."""
    rho = num / (2 * noise**2)
    renyi = rho + 2 * math.sqrt(rho * math.log(1 / delta))
    assert 0 <= epsilon(num, noise, delta) <= renyi * (1 + 1e-6)


@LAWS
@given(RELEASES, NOISE, DELTA)
def test_more_releases_cost_more_and_more_noise_costs_less(
    num: int, noise: float, delta: float
) -> None:
    assert epsilon(num + 1, noise, delta) >= epsilon(num, noise, delta)
    assert epsilon(num, 1.1 * noise, delta) <= epsilon(num, noise, delta)
    assert epsilon(4 * num, 2 * noise, delta) == pytest.approx(epsilon(num, noise, delta))


def test_nothing_released_costs_nothing() -> None:
    assert epsilon(0, 1.0, 1e-5) == 0


def test_noise_is_normal_and_never_twice_the_same() -> None:
    drawn = standard_normal((200, 100))
    assert drawn.shape == (200, 100)
    assert np.isfinite(drawn).all()
    assert kstest(drawn.ravel(), "norm").pvalue > 1e-6
    assert (standard_normal((1000,)) != standard_normal((1000,))).all()
    assert standard_normal(()).shape == ()


def test_noise_has_the_deviation_asked_for_on_every_weight() -> None:
    update = {"w": np.full((100, 100), 5.0), "b": np.zeros(10_000)}
    found = noisy(update, deviation=3.0)
    for name, value in update.items():
        apart = found[name] - value
        assert apart.mean() == pytest.approx(0, abs=0.2)
        assert apart.std() == pytest.approx(3, rel=0.05)


def test_updates_are_measured_clipped_and_put_back_by_hand() -> None:
    start = {"w": np.array([1.0, 1.0], np.float32), "steps": np.array(4)}
    after = {"w": np.array([4.0, 5.0], np.float32), "steps": np.array(9)}
    update = difference(after, start)
    assert update.keys() == {"w"}
    assert norm(update) == 5.0
    short = clipped(update, 1.0)
    assert short["w"] == pytest.approx([0.6, 0.8])
    assert clipped(update, 5.0)["w"].tolist() == [3.0, 4.0]
    back = moved(start, short)
    assert back["w"] == pytest.approx([1.6, 1.8])
    assert (back["w"].dtype, back["steps"]) == (np.float32, 4)
