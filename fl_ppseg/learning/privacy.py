"""Gaussian noise on updates, and the differential privacy that it gives.

n releases, each with noise of z times its sensitivity, are together one Gaussian mechanism of
mu = sqrt(n) / z, whatever each chose in view of those before (Dong, Roth, Su 2022, corollary 2),
and that is (epsilon, delta)-private for exactly (Balle, Wang 2018, theorem 8)

    delta = Phi(mu / 2 - epsilon / mu) - exp(epsilon) Phi(-mu / 2 - epsilon / mu).

There is no amplification by sampling: the clients of a round are drawn from a public seed. Noise
comes from the operating system, never from a seed. It consists of floating-point numbers, which is
open to the attack of Mironov (2012); there is no protection against that here.
"""

import math
import os

import numpy as np

from fl_ppseg.system.arrays import Arrays


def noisy(update: Arrays, deviation: float) -> Arrays:
    """Add independent Gaussian noise of a standard deviation to every weight."""
    return {
        name: value + deviation * standard_normal(value.shape) for name, value in update.items()
    }


def standard_normal(shape: tuple[int, ...]) -> np.ndarray:
    """Draw normal deviates of 53 random bits each from the operating system."""
    from scipy.special import ndtri  # type: ignore[import-untyped]  # loads slowly, few need it

    count = math.prod(shape)
    bits = np.frombuffer(os.urandom(8 * count), np.uint64) >> np.uint64(11)
    deviates: np.ndarray = ndtri((bits + 0.5) * 2.0**-53).reshape(shape)
    return deviates


def epsilon(num_releases: int, noise_multiplier: float, delta: float) -> float:
    """The smallest epsilon at `delta` of releases with noise in units of their sensitivity.

    >>> round(epsilon(1, 1.0, 1e-5), 3)
    4.377
    """
    if not num_releases:
        return 0.0
    mu = math.sqrt(num_releases) / noise_multiplier
    low, high = 0.0, 1.0
    while _delta(high, mu) > delta:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(middle, mu) > delta else (low, middle)
    return high


def _delta(epsilon: float, mu: float) -> float:
    from scipy.special import log_ndtr

    left = float(log_ndtr(mu / 2 - epsilon / mu))
    right = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(left) - math.exp(min(right, left))
