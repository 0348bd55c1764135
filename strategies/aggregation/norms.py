"""How far an update moves the weights, and how far is too far.

The norm is Euclidean, over all trained weights together; counters of whole numbers are left out.
One rule applies from the first round on: an update is at most `max_relative_norm` times the
weights that it starts from. Measured, honest updates have at most 0.04 times their norm (the quick
config), 0.08 (the default), 0.1 (SGD from random weights) and 0.3 (five local epochs from random
weights); noise that a node adds itself comes to about 8 (multiplier 1, clipping
norm 1). Batch statistics are not weights: they are bounded one by one.

Two more rules may be on: a fixed limit, and a multiple of the median over the accepted updates of
the newest earlier round of this arm and seed. None looks at other updates of the same round, so a
reply is judged as it comes, whatever the order of arrival, and one in memory at a time. The median
holds while fewer than half of those clients lie; in round 1 that rule has nothing to compare with.
The norms stand in results.jsonl, where a resumed run finds them again.
"""

import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Final

import numpy as np

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.federation.results import Line
from fl_ppseg.learning.updates import squared_distances, squared_norms
from fl_ppseg.setr.names import is_buffer

MAX_STATISTIC: Final = 1e6
"""Largest mean or variance of a batch: activations are of the order of 1."""
MAX_COUNTER: Final = 2**48
"""Largest number of batches that a counter may hold."""


class NormError(ValueError):
    """The norm of an update is too large."""


class NormRule:
    """Checks the norm of one update at a time."""

    def __init__(self, config: FederationConfig, lines: Iterable[Line] = ()) -> None:
        """Start with the lines of results of the arm and seed so far."""
        self._limit = config.max_update_norm
        self._ratio = config.max_norm_ratio
        self._relative = config.max_relative_norm
        norms = [
            (line["round"], line["update_norm"])
            for line in lines
            if line["role"] == "train" and "update_norm" in line
        ]
        newest = max((round_ for round_, _ in norms), default=0)
        self._earlier = [norm for round_, norm in norms if round_ == newest]

    def measure(self, arrays: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]) -> float:
        """Check the update from `start` to `arrays`; returns its norm.

        Raises:
            NormError: Its norm or a batch statistic is beyond a limit.
        """
        squares = squared_distances(arrays, start)
        length = math.sqrt(math.fsum(squares.values()))
        if self._relative is not None:
            _check_statistics(arrays)
            moved = math.sqrt(math.fsum(v for k, v in squares.items() if not is_buffer(k)))
            whole = squared_norms(start)
            size = math.sqrt(math.fsum(v for k, v in whole.items() if not is_buffer(k)))
            self._check_relative(moved, max(size, 1.0))
        self.check(length)
        return length

    def _check_relative(self, moved: float, size: float) -> None:
        if self._relative is not None and not moved <= self._relative * size:
            raise NormError(
                f"expected an update of norm at most {self._relative * size:.3g} "
                f"(federation.max_relative_norm {self._relative:g} of weights of norm {size:.3g}), "
                f"got {moved:.3g}"
            )

    def check(self, norm: float) -> None:
        """Check a norm against the optional rules.

        Raises:
            NormError: If it is beyond a limit.
        """
        if self._limit is not None and norm > self._limit:
            raise NormError(f"expected an update of norm at most {self._limit:.3g}, got {norm:.3g}")
        if self._ratio is not None and self._earlier:
            usual = median(self._earlier)
            if norm > self._ratio * usual:
                raise NormError(
                    f"expected an update of norm at most {self._ratio:.3g} times the median "
                    f"{usual:.3g} of an earlier round, got {norm:.3g}"
                )

    def end_round(self, norms: Iterable[float]) -> None:
        """Use the norms that were accepted in a round for the next."""
        self._earlier = list(norms) or self._earlier


def _check_statistics(arrays: Mapping[str, np.ndarray]) -> None:
    for name, value in arrays.items():
        if not is_buffer(name) or not value.size:
            continue
        most = MAX_STATISTIC if np.issubdtype(value.dtype, np.floating) else MAX_COUNTER
        least = -most if name.endswith("running_mean") else 0
        if value.min() < least or value.max() > most:
            raise NormError(
                f"{name}: expected batch statistics of {least:g} to {most:g}, got others"
            )
