r"""A trust region around the weights of round 0: weights that training cannot reach are refused.

A coordinator that sends crafted weights can make a node's update, or its counts, reveal label maps.
Many such weights lie far from any that training produces; but the region grows with the rounds, and
at the end of a long training it holds some that reveal images (docs/findings.md). The owner knows
the weights that training starts from, s, and the agreed settings bound how far a round can move
one. With C = `max_change`, a weight w of a request of round r is refused unless

    |w - s| <= K C (1 + d |s|) + t,    K = f(1) + ... + f(k), k = r - 1 to train, r to evaluate,

where f(i) is what the learning rate of round i begins with over that of round 1, so that late
rounds add little, or 1 where the server carries earlier rounds on or adds noise; t is a tolerance
for the floating point of other machines, so that round 1 accepts s itself.
The check is stateless: repeated rounds and restarted nodes make no difference.

**A round of AdamW or SGD** moves a weight by at most A + D |w| (`fl_ppseg.learning.reach`), where D
is weight decay's part and A that of the gradients. For SGD without clipping there is no bound: then
`max_change` is None, and only `clients.policy.permission.MAX_WEIGHT` applies.

As |w| <= |s| + |w - s|, a discrete Groenwall inequality gives |w - s| <= k (A + D |s|) exp(R D)
after k of R rounds. With L the weight decay and c SGD's largest gradient, D <= L A (AdamW) and D =
(L / c) A (SGD): C = A exp(R D), d = L or L / c.

**The server.** The mean of updates, a median, a trimmed mean, krum's choice and updates that are
cut short lie within the largest one. fedavgm moves by F = eta_s / (1 - mu_s) times as much over all
rounds, fedavg by F = eta_s: C and D are F times as large. fedadam has no bias correction, and moves
by eta_s sqrt(sum_j ((1 - b1) b1^j)^2 / ((1 - b2) b2^j)) whatever the updates are. Central noise
adds `NOISE_DEVIATIONS` of its deviations. A client that trains alone has no server.

**A code.** Weights that travel as changes since round 0 in steps (`training.weights_codec`) lie
within half a step of what training reaches, since what coding loses the next round's weights add. A
step is the largest change of a channel over `LEVELS`, so `code_error` of a tensor is enough. (The
decay of what is lost, D |lost| a round, is below what exp(R D) leaves over for all weights below
250 / d.)

Not bounded in this way: statistics of batch normalisation, which no optimiser moves; the patch
embedding of arms that adapt it to a shared key (simulations only); and that of private arms, which
the node replaces by its own. MAX_WEIGHT applies to them.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from clients.policy.node_policy import ArmPolicy, RefusedError
from clients.policy.start_weights import read_start
from fl_ppseg.codecs.tensors import LEVELS
from fl_ppseg.config.federation import FEDADAM_BETA2, FederationConfig
from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.learning.reach import moments, poly, reach
from fl_ppseg.setr.names import EMBEDDING_TENSORS, is_buffer
from fl_ppseg.system.arrays import Arrays

if TYPE_CHECKING:
    from fl_ppseg.federation.message_content import Request

NOISE_DEVIATIONS: Final = 8
"""Noise beyond this many deviations does not occur: in 10^10 draws with probability 10^-5."""
TOLERANCE: Final = 1e-4
RELATIVE_TOLERANCE: Final = 1e-3
"""Relative to a tensor's largest weight; the same weights made on another machine differ less."""


def round_change(
    training: TrainingConfig,
    federation: FederationConfig | None,
    num_images: int,
    num_clients: int = 1,
) -> float | None:
    """C, the most that one round of honest training moves a weight, decay of the start aside.

    Args:
        training: The local update.
        federation: The server's settings and number of rounds; None: one round of one client.
        num_images: Images of the largest client.
        num_clients: Expected number of clients, for the noise on their mean.

    Returns:
        None if there is no bound.
    """
    change, decay = reach(training, num_images)
    if federation is None:
        return _with_decay(change, decay, 1)
    if federation.strategy == "fedadam":
        moved = moments(federation.server_momentum, FEDADAM_BETA2, federation.num_rounds)
        return _with_decay(federation.server_rate * float(moved[-1]), 0.0, 1)
    factor = federation.server_rate
    if federation.strategy == "fedavgm":
        factor /= 1 - federation.server_momentum
    noise = NOISE_DEVIATIONS * _deviation(federation, num_clients)
    return _with_decay(factor * (change + noise), factor * decay, federation.num_rounds)


def standalone_change(
    training: TrainingConfig, federation: FederationConfig, num_images: int
) -> float | None:
    """C if a client trains without a server; arguments as in `round_change`."""
    own = FederationConfig(num_rounds=federation.num_rounds)
    return round_change(training, own, num_images)


def check_region(arm: ArmPolicy, request: "Request") -> None:
    """Check that honest training could have produced the weights of a request.

    Args:
        arm: What was agreed to; an arm without start weights accepts any.
        request: Its seed must be one of the arm's.

    Raises:
        RefusedError: It could not, or names or shapes differ.
        InputError: The start weights in the node folder are damaged.
    """
    if arm.start is None or arm.max_change is None:
        return
    start = read_start(arm.start[request.seed])
    asked = {name: v for name, v in request.arrays.items() if not is_buffer(name)}
    if {n: v.shape for n, v in asked.items()} != {n: v.shape for n, v in start.items()}:
        raise RefusedError(
            "refused: expected weights with the names and shapes of the agreed start"
        )
    change = change_between(arm, 0, rounds_before(request))
    for name, value in compared(request):
        moved = distance(value, start[name])
        if moved.max(initial=0.0) <= least_radius(change):  # as honest weights do by far
            continue
        excess = moved - received(start[name], change, arm.training)
        if excess.size and not excess.max() <= 0:
            worst = int(excess.argmax())
            raise RefusedError(
                f"refused: weights in {name} lie {moved.flat[worst]:.3g} from the start that the "
                f"owner agreed to, but training reaches at most "
                f"{(moved - excess).flat[worst]:.3g} by this round"
            )


def rounds_before(request: "Request") -> int:
    """Rounds of training after which the weights of a request are expected."""
    return request.round - 1 if request.task == "train" else request.round


def change_between(arm: ArmPolicy, before: int, after: int) -> float:
    """The most by which honest training moves a weight of 0 between two rounds.

    Args:
        arm: What was agreed to, with a bound.
        before: Rounds after which it starts.
        after: Rounds after which it ends, of at most `num_rounds`.
    """
    assert arm.max_change is not None
    if not arm.change_falls:
        return (after - before) * arm.max_change
    shares = (poly(done / arm.num_rounds, arm.training.poly_power) for done in range(before, after))
    return arm.max_change * sum(shares)


def falls(federation: FederationConfig) -> bool:
    """Whether the change of a round falls with its learning rate: the server applies the mean of
    the round alone, without moments of earlier ones and without noise."""
    return federation.strategy == "fedavg" and federation.privacy is None


def compared(request: "Request") -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a request that are compared, by name."""
    is_own = request.embedding in ("adapted", "private")
    for name, value in sorted(request.arrays.items()):
        if not (is_buffer(name) or (is_own and name in EMBEDDING_TENSORS)):
            yield name, value


def radius(start: np.ndarray, change: float, training: TrainingConfig) -> npt.NDArray[np.float64]:
    """Radius of the trust region: how far each weight of a tensor may lie from its start.

    Args:
        start: (...), the tensor of round 0.
        change: K C, of `change_between`.
        training: The local update, for its decay.
    """
    size = np.asarray(np.abs(start.astype(np.float64)))
    tolerance = TOLERANCE + RELATIVE_TOLERANCE * size.max(initial=0.0)
    size *= _decay_share(training)  # in place: a model is looked at with every message
    size += 1
    size *= change
    size += tolerance
    return size


def least_radius(change: float) -> float:
    """What no radius of this change is below, however small a weight and its tensor are.

    >>> round(least_radius(0.25), 4)
    0.2501
    """
    return change + TOLERANCE


def distance(
    value: npt.NDArray[np.floating], other: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """How far each weight of a tensor lies from another, computed in 64 bits."""
    apart = np.asarray(value.astype(np.float64) - other)
    np.abs(apart, out=apart)
    return apart


def received(start: np.ndarray, change: float, training: TrainingConfig) -> npt.NDArray[np.float64]:
    """How far weights may lie from their start as a node receives them; arguments of `radius`."""
    return radius(start, change, training) + code_error(start, change, training)


def code_error(start: np.ndarray, change: float, training: TrainingConfig) -> float:
    """How far a code moves a weight; arguments of `radius`.

    Half a step of a largest change that is itself half a step larger than what training reaches.
    """
    if training.weights_codec == "fp32":
        return 0.0
    return float(radius(start, change, training).max(initial=0.0)) / (2 * LEVELS - 1)


def project_onto_region(
    weights: Arrays,
    start: Arrays,
    change: float,
    training: TrainingConfig,
    centre: Arrays | None = None,
) -> Arrays:
    """Project weights onto the trust region: the best that an adversary can send.

    Args:
        weights: The adversary's.
        start: Of round 0; tensors that it lacks are returned unchanged.
        change: K C, of `change_between`.
        training: The local update.
        centre: Weights that the node accepted k rounds before, to project onto what is within k
            rounds of them; None: onto the region around the start.
    """
    found = dict(weights)
    for name, first in start.items():
        most, middle = radius(first, change, training), first if centre is None else centre[name]
        most -= np.finfo(np.float32).eps * (np.abs(middle) + most)
        found[name] = np.clip(weights[name], middle - most, middle + most).astype(first.dtype)
    return found


def _decay_share(training: TrainingConfig) -> float:
    """d, the additional movement by weight decay, relative to the size of a weight."""
    is_clipped = training.optimizer == "sgd" and training.gradient_clip > 0
    return training.weight_decay / (training.gradient_clip if is_clipped else 1.0)


def _deviation(federation: FederationConfig, num_clients: int) -> float:
    """Standard deviation of the noise on the mean of a minimal quorum of clients."""
    privacy = federation.privacy
    if privacy is None:
        return 0.0
    fewest = max(1, math.floor(federation.min_replies * num_clients))
    total = privacy.noise_multiplier * privacy.clipping_norm
    return total / federation.num_asked(fewest)


def _with_decay(change: float, decay: float, num_rounds: int) -> float | None:
    exponent = num_rounds * decay
    grown = change * math.exp(exponent) if exponent < 700 else math.inf
    return grown if math.isfinite(grown) else None
