"""The gradients that a coordinator can infer from a client's weights, and their error.

The coordinator chose the optimiser, its rate and its schedule; the weights are float32, so each
change of a weight is known to within half a unit in its last place.

SGD: the change is the sum of the gradients times known factors (momentum and decay included). A
clipped norm scales all gradients of a step alike.

AdamW, one step: u = g / (|g| + eps) is nearly the sign of g. But 1 - |u| is about eps / |g|,
float32 keeps seven digits of u, and so |g| = eps |u| / (1 - |u|) is recovered wherever it is below
about 1e-2. After more steps only the consistency of the sign can be recovered.

Of a sum over clients all of this is inferred of their mean update, weighted by their images; the
error of rounding is then taken to be that of one client, which it is below.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.learning.reach import poly
from fl_ppseg.setr.names import EMBEDDING_TENSORS, NECK_PREFIX, POSITION_TENSOR, is_of_head

Floats = npt.NDArray[np.float64]

ADAM_EPSILON: Final = 1e-8
"""torch's default, which `TrainingConfig` does not change."""
_ARITHMETIC: Final = 1e-7
"""Relative error of the few float32 operations that make AdamW's u."""


class Gradient(NamedTuple):
    """One tensor's gradient as the coordinator infers it."""

    value: Floats
    """Mean over the steps; after several steps of AdamW the mean of its steps instead."""
    deviation: Floats
    """Standard deviation of its error from rounding alone."""


def gradient_of(exchange: Exchange, name: str) -> Gradient:
    """Infer the gradient of one tensor from its values before and after.

    Args:
        exchange: What the coordinator holds.
        name: A tensor that the client returned.
    """
    before, after = exchange.sent[name], exchange.returned[name]
    rates = _rates(exchange, name)
    decay = exchange.training.weight_decay if before.ndim > 1 else 0.0
    if exchange.training.optimizer == "sgd":
        return _of_sgd(before, after, rates, decay, exchange.training.momentum)
    return _of_adamw(before, after, rates, decay, exchange.tells_sizes)


def token_gradients(exchange: Exchange) -> Gradient:
    """(N, D), the gradient of each token at the encoder's input: that of its position embedding."""
    size = exchange.sent[EMBEDDING_TENSORS[0]].shape[-1]
    num_blocks = exchange.image_size[0] // size * (exchange.image_size[1] // size)
    return Gradient(*(part[0, -num_blocks:] for part in gradient_of(exchange, POSITION_TENSOR)))


def _rates(exchange: Exchange, name: str) -> Floats:
    """The learning rate of each step, as `fl_ppseg.learning.training` sets it."""
    training, num_steps = exchange.training, exchange.num_steps
    has_neck = any(sent.startswith(NECK_PREFIX) for sent in exchange.sent)
    head = training.head_multiplier if is_of_head(name, has_neck) else 1.0
    shares = (exchange.round - 1 + np.arange(num_steps) / num_steps) / exchange.num_rounds
    factors = [poly(float(share), training.poly_power) for share in shares]
    return training.learning_rate * head * np.array(factors)


def _of_sgd(
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
    rates: Floats,
    decay: float,
    momentum: float,
) -> Gradient:
    """Step j moves the weights by sum_k>=j rate_k momentum^(k-j) times (gradient + decay)."""
    num_steps = len(rates)
    factors = np.array(
        [(rates[j:] * momentum ** np.arange(num_steps - j)).sum() for j in range(num_steps)]
    )
    moved = after.astype(np.float64) - before
    progress = float((factors * np.arange(num_steps)).sum() / num_steps / factors.sum())
    decayed = decay * (before + progress * moved)  # of the weights as they were on the way
    value = -moved / factors.sum() - decayed
    return Gradient(value, _rounding(before) * np.sqrt(num_steps) / factors.sum())


def _of_adamw(
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
    rates: Floats,
    decay: float,
    tells_sizes: bool,
) -> Gradient:
    kept = before
    for rate in rates:  # in float32, as the client's AdamW does first in each step
        kept = kept * np.float32(1 - rate * decay)
    u = (kept.astype(np.float64) - after) / rates.sum()
    deviation = _rounding(before) * np.sqrt(len(rates)) / rates.sum()
    if not tells_sizes:
        return Gradient(u, deviation)
    error = np.hypot(deviation, _ARITHMETIC)
    rest = np.maximum(1 - np.abs(u), error)
    size = ADAM_EPSILON * np.abs(u) / rest
    return Gradient(np.sign(u) * size, error * (size + ADAM_EPSILON) ** 2 / ADAM_EPSILON)


def _rounding(values: npt.NDArray[np.float32]) -> Floats:
    """Standard deviation of a float32's rounding: uniform over one unit in the last place."""
    unit: Floats = np.spacing(np.abs(values)).astype(np.float64)
    return unit / 12**0.5
