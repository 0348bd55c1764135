"""Robust aggregations: each class says how many lying clients it withstands.

All but `ClippedMean` hold every reply of a round: O(n) memory in the number of replies. They give
every client the same weight, as their papers do: a number of examples is only what a client
reports. None depends on the order of the replies.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from fl_ppseg.learning.updates import clipped, difference, moved, norm
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError
from strategies.aggregation.streaming_mean import StreamingMean, check_update


class ClippedMean(StreamingMean):
    """Mean of w + u min(1, c / |u|), u the update and c the clipping norm; O(1) memory.

    A client moves the mean no further than its weight times c. An update that is short enough is
    taken bit for bit (Sun et al. 2019, "Can you really backdoor federated learning?", section 4).
    """

    def __init__(
        self, reference: Mapping[str, np.ndarray], clip_norm: float, max_share: float = 1.0
    ) -> None:
        super().__init__(reference, max_share)
        self._clip_norm = clip_norm

    def add(self, arrays: Arrays, num_examples: int) -> None:
        """Fold one reply in, no longer than the clipping norm.

        Raises:
            ValueError: If the reply cannot be averaged; the mean is then unchanged.
        """
        check_update(arrays, num_examples, self.reference)
        update = difference(arrays, self.reference)
        if norm(update) > self._clip_norm:
            arrays = arrays | moved(self.reference, clipped(update, self._clip_norm))
        super().add(arrays, num_examples)


class _Held:
    """Keeps all replies of a round."""

    def __init__(self, reference: Mapping[str, np.ndarray]) -> None:
        self._reference = dict(reference)
        self._replies: list[Arrays] = []

    def add(self, arrays: Arrays, num_examples: int) -> None:
        """Keep one reply.

        Raises:
            ValueError: If it is not of the global model's form.
        """
        check_update(arrays, num_examples, self._reference)
        self._replies.append(arrays)

    def _stacks(self) -> dict[str, np.ndarray]:
        """Each weight's values over the n replies, (n, ...) float64."""
        if not self._replies:
            raise ValueError("expected at least one reply, got none")
        return {
            name: np.stack([reply[name] for reply in self._replies]).astype(np.float64)
            for name in self._reference
        }

    def _as_reference(self, arrays: Arrays) -> Arrays:
        return {n: np.asarray(v, self._reference[n].dtype) for n, v in arrays.items()}


class CoordinateMedian(_Held):
    """The median of each weight (Yin et al. 2018, definition 1): withstands fewer than half."""

    def result(self) -> Arrays:
        """The medians in the dtypes of the reference.

        Raises:
            ValueError: If nothing was added.
        """
        return self._as_reference({n: np.median(v, axis=0) for n, v in self._stacks().items()})


class TrimmedMean(_Held):
    """The mean of each weight without its extremes (Yin et al. 2018, definition 2).

    Of n values the floor(beta n) largest and as many smallest are cut off, and one of each at
    least: it withstands a share of beta of the clients, and one client. Of fewer than three values
    nothing can be cut off: that is the mean, and withstands nothing.
    """

    def __init__(self, reference: Mapping[str, np.ndarray], trim_fraction: float) -> None:
        super().__init__(reference)
        self._trim_fraction = trim_fraction

    def result(self) -> Arrays:
        """The means in the dtypes of the reference.

        Raises:
            ValueError: If nothing was added.
        """
        num_cut = num_trimmed(self._trim_fraction, len(self._replies))
        kept = slice(num_cut, len(self._replies) - num_cut)
        return self._as_reference(
            {n: np.sort(v, axis=0)[kept].mean(axis=0) for n, v in self._stacks().items()}
        )


def num_trimmed(trim_fraction: float, num_replies: int) -> int:
    """Values that trimmed-mean cuts off at each end.

    >>> num_trimmed(0.1, 18), num_trimmed(0.1, 5), num_trimmed(0.29, 100), num_trimmed(0.4, 2)
    (1, 1, 29, 0)
    """
    most = (num_replies - 1) // 2
    return min(most, max(1, math.floor(trim_fraction * num_replies + 1e-9)))


class Krum(_Held):
    """The replies nearest to their neighbours (Blanchard et al. 2017, section 4).

    A reply's score is the sum of the squared distances to its n - f - 2 nearest; krum takes the
    reply of the lowest score, multi-krum the mean of the n - f lowest. It withstands f of
    n >= 2 f + 3 clients.
    """

    def __init__(
        self, reference: Mapping[str, np.ndarray], num_byzantine: int, is_multi: bool
    ) -> None:
        super().__init__(reference)
        self._num_byzantine = num_byzantine
        self._is_multi = is_multi

    def result(self) -> Arrays:
        """The reply, or the mean of replies, in the dtypes of the reference.

        Raises:
            RunError: If there are fewer than 2 f + 3 replies.
        """
        num, lying = len(self._replies), self._num_byzantine
        if num < (needed := 2 * lying + 3):
            raise RunError(
                f"krum with num_byzantine {lying} needs {needed} good replies, got {num}; "
                "lower num_byzantine or use another aggregation"
            )
        self._replies.sort(key=_digest)  # so that ties do not depend on the order of arrival
        order = np.argsort(self._scores(), kind="stable")
        mean = StreamingMean(self._reference)
        for index in order[: num - lying if self._is_multi else 1]:
            mean.add(self._replies[index], 1)
        return mean.result()

    def _scores(self) -> np.ndarray:
        num = len(self._replies)
        squares = np.zeros((num, num))
        for i in range(num):
            for j in range(i):
                distance = norm(difference(self._replies[i], self._replies[j])) ** 2
                squares[i, j] = squares[j, i] = distance
        nearest = np.sort(squares, axis=1)[:, 1 : num - self._num_byzantine - 1]  # 0: itself
        scores: np.ndarray = nearest.sum(axis=1)
        return scores


def _digest(arrays: Arrays) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()
