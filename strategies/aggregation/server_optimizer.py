"""What the server does with the mean of a round: FedAvg, FedAvgM, FedAdam.

With w the global weights, m the mean of the replies and d = m - w the mean update:

- fedavg:  w <- w + eta d; eta = 1 gives m itself, bit for bit (McMahan et al. 2017).
- fedavgm: v <- beta v + d;  w <- w + eta v (Hsu, Qi, Brown 2019).
- fedadam: v <- beta1 v + (1 - beta1) d;  s <- beta2 s + (1 - beta2) d^2;
  w <- w + eta v / (sqrt s + tau) (Reddi et al. 2021, algorithm 2; no bias correction).

These steps are for parameters. A statistic of batch normalisation is the mean itself in all three:
a step beyond the mean could make a variance negative.
"""

import numpy as np

from fl_ppseg.config.federation import FEDADAM_BETA2, FederationConfig
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.system.arrays import Arrays

State = dict[str, Arrays]

TAU = 1e-3
"""fedadam's degree of adaptivity (Reddi et al. 2021, section 5)."""


class ServerOptimizer:
    """Applies the mean of each round to the global weights; holds its moments between rounds."""

    def __init__(self, config: FederationConfig) -> None:
        self._step, self._moments = _STEPS[config.strategy]
        self._learning_rate = config.server_rate
        self._momentum = config.server_momentum
        self._takes_mean = config.strategy == "fedavg" and self._learning_rate == 1.0
        self.state: State = {}

    def apply(self, weights: Arrays, mean: Arrays) -> Arrays:
        """The new global weights, in the dtypes of the old."""
        if self._takes_mean:
            return mean
        parameters = {name: w for name, w in weights.items() if not is_buffer(name)}
        if not self.state:
            self.state = {
                moment: {name: np.zeros(value.shape) for name, value in parameters.items()}
                for moment in self._moments
            }
        return mean | {name: self._apply_one(name, w, mean[name]) for name, w in parameters.items()}

    def _apply_one(self, name: str, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
        old = weight.astype(np.float64)
        moments = {moment: self.state[moment][name] for moment in self._moments}
        step = self._step(mean - old, self._momentum, moments)
        for moment, value in moments.items():
            self.state[moment][name] = np.asarray(value)
        return np.asarray(old + self._learning_rate * step, dtype=weight.dtype)


def _fedavg(update: np.ndarray, beta: float, moments: dict[str, np.ndarray]) -> np.ndarray:
    return update


def _fedavgm(update: np.ndarray, beta: float, moments: dict[str, np.ndarray]) -> np.ndarray:
    moments["momentum"] = beta * moments["momentum"] + update
    return moments["momentum"]


def _fedadam(update: np.ndarray, beta: float, moments: dict[str, np.ndarray]) -> np.ndarray:
    moments["momentum"] = beta * moments["momentum"] + (1 - beta) * update
    moments["second"] = FEDADAM_BETA2 * moments["second"] + (1 - FEDADAM_BETA2) * update**2
    step: np.ndarray = moments["momentum"] / (np.sqrt(moments["second"]) + TAU)
    return step


_STEPS = {
    "fedavg": (_fedavg, ()),
    "fedavgm": (_fedavgm, ("momentum",)),
    "fedadam": (_fedadam, ("momentum", "second")),
}
