"""How far a local update can move a weight: the bounds of its optimiser.

**A step of AdamW** (Loshchilov, Hutter 2019) without decay moves a weight by eta |m| / (sqrt v +
eps), m = sum_i a_i g_i and v = sum_i c_i g_i^2 the bias-corrected moments after step n of a round,

    a_i = (1 - b1) b1^(n-i) / (1 - b1^n),   c_i = (1 - b2) b2^(n-i) / (1 - b2^n).

By Cauchy and Schwarz m^2 = (sum (a_i / sqrt c_i) (sqrt c_i g_i))^2 <= (sum a_i^2 / c_i) v, and
gradients g_i = a_i / c_i reach it. So it moves at most eta sqrt(sum a_i^2 / c_i): eta in the first
step, never less (sum a_i = sum c_i = 1), 7.3 eta after very many. The optimiser starts afresh in
each round, and its rate only falls, within a round and from round to round: round 1 moves a weight
by at most A = eta sum_n sqrt(...), a later one by the share `poly` of it at its first step.

**A step of SGD** with momentum mu moves it by eta sum_i mu^(n-i) |g_i|, and clipped gradients of
norm c have no entry beyond c: A = eta c M, M = sum_n (1 - mu^n) / (1 - mu). Without clipping there
is no bound.

**Weight decay** L adds eta L |w| a step (after SGD's clipping and through its momentum), which is
D |w| a round, D = eta L N with N the number of steps (AdamW) or M (SGD).
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.system.arrays import Arrays

BETAS: Final = (0.9, 0.999)
"""Decays of AdamW's moments, torch's default."""


def poly(progress: float, power: float) -> float:
    """Factor of the learning rate at a share `progress` in [0, 1) of the training.

    >>> poly(0.0, 0.9), poly(0.5, 1.0)
    (1.0, 0.5)
    """
    return float((1.0 - progress) ** power)


def reach(training: TrainingConfig, num_images: int) -> tuple[float, float]:
    """A and D of a round on so many images; A is infinite if there is no bound."""
    num_steps = training.local_epochs * training.steps_a_pass(num_images)
    rate = training.learning_rate * max(1.0, training.head_multiplier)
    decay = rate * training.weight_decay
    if training.optimizer == "adamw":
        corrected = moments(*BETAS, num_steps) * _correction(*BETAS, num_steps)
        return rate * float(corrected.sum()), decay * num_steps
    momentum = training.momentum
    sums = (1 - momentum ** np.arange(1, num_steps + 1)) / (1 - momentum)
    clip = training.gradient_clip or math.inf
    return rate * clip * float(sums.sum()), decay * float(sums.sum())


def update_bound(training: TrainingConfig, num_images: int, largest: float) -> float | None:
    """The most that a round moves a weight away from where it was.

    With |w| <= |s| + |w - s| a step of decay d gives |w - s| <= (A + D |s|) exp(D).

    Args:
        training: The local update.
        num_images: Images of the largest client.
        largest: |s|, the largest weight that the round starts from.

    Returns:
        None if there is no bound.
    """
    change, decay = reach(training, num_images)
    grown = (change + decay * largest) * math.exp(decay) if decay < 700 else math.inf
    return grown if math.isfinite(grown) and grown > 0 else None


def bounds_of(
    training: TrainingConfig,
    num_images: int,
    start: Mapping[str, np.ndarray],
    share: float = 1.0,
) -> Arrays | None:
    """share (A + D |w|), the most that a round moves each weight in the sum over rounds of a trust
    region (`clients.policy.trust_region`).

    Args:
        training: The local update.
        num_images: Images that it trains on.
        start: Weights w that the round starts from, by name.
        share: Of the first learning rate that the round begins with.

    Returns:
        By name; None if there is no bound.
    """
    change, decay = reach(training, num_images)
    if not math.isfinite(change):
        return None
    return {name: share * (change + decay * np.abs(value)) for name, value in start.items()}


def largest_of(arrays: Mapping[str, np.ndarray]) -> float:
    """The largest absolute value of weights."""
    return max((float(np.abs(each).max()) for each in arrays.values() if each.size), default=0.0)


def moments(beta1: float, beta2: float, num_steps: int) -> npt.NDArray[np.float64]:
    """(n,) sqrt(sum_i a_i^2 / c_i) of each step, without bias correction."""
    with np.errstate(over="ignore"):
        ratios = np.cumsum((beta1**2 / beta2) ** np.arange(num_steps, dtype=np.float64))
    return np.asarray((1 - beta1) * np.sqrt(ratios / (1 - beta2)))


def _correction(beta1: float, beta2: float, num_steps: int) -> npt.NDArray[np.float64]:
    """(n,) factors of the bias correction."""
    steps = np.arange(1, num_steps + 1, dtype=np.float64)
    return np.asarray(np.sqrt(1 - beta2**steps) / (1 - beta1**steps))
