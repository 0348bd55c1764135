"""Central differential privacy: the mean of clipped updates, with noise of the coordinator's own.

DP-FedAvg (McMahan et al. 2018) with the same weight for every client and a fixed denominator:

    w + (sum_k clip(u_k, C) + N(0, (z C)^2)) / m,   m the clients that were asked.

Whether or not a client's images were used moves the sum by C at most, and m not at all, since a
rejected or missing reply counts as an update of zero. What is hidden so is in the weights; losses,
counts and who answered are not. Flower's own wrapper is not used: it holds all replies, gives up
the round at one error reply, refuses arms that keep their embedding at home (it wants as many
arrays back as it sent), and draws its noise from NumPy's global generator.
"""

from collections.abc import Mapping

import numpy as np

from fl_ppseg.config.federation import PrivacyConfig
from fl_ppseg.learning.privacy import noisy
from fl_ppseg.learning.updates import clipped, difference, moved
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError
from strategies.aggregation.streaming_mean import check_update


class PrivateMean:
    """Sum of clipped updates over a fixed number of clients, with noise; O(1) memory."""

    def __init__(
        self, reference: Mapping[str, np.ndarray], config: PrivacyConfig, num_asked: int
    ) -> None:
        """Start an empty mean.

        Raises:
            InputError: For a model with batch statistics, which noise could make negative.
        """
        if any(is_buffer(name) for name in reference):
            raise InputError(
                "federation.privacy: batch statistics cannot take noise; set model.norm to group"
            )
        self._reference = dict(reference)
        self._config = config
        self._num_asked = num_asked
        self._sum = {name: np.zeros(value.shape) for name, value in reference.items()}

    def add(self, arrays: Arrays, num_examples: int) -> None:
        """Fold one reply in, clipped.

        Raises:
            ValueError: If the reply is not of the global model's form.
        """
        check_update(arrays, num_examples, self._reference)
        update = clipped(difference(arrays, self._reference), self._config.clipping_norm)
        for name, value in update.items():
            self._sum[name] += value

    def result(self) -> Arrays:
        """One release: the noisy mean in the dtypes of the reference. Each call costs privacy."""
        deviation = self._config.noise_multiplier * self._config.clipping_norm
        total = noisy(self._sum, deviation)
        return moved(self._reference, {n: v / self._num_asked for n, v in total.items()})
