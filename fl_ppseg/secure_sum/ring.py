"""Updates as whole numbers modulo 2^32, which masks hide perfectly, and the mean of their sum.

With K clients of a roster, each of at most n examples (its weight n_k in the mean, or 1), and B the
most that one of their weights may move in a round, a client's update d_k = w_k - w is clipped to
[-B, B] a weight, and n_k d_k is rounded to the nearest multiple of the step

    s = 2^ceil(log2(K B n / (2^(bits - 2) - K / 2))),   bits = 32.

A sum of K such numbers lies within a quarter of the ring on either side of zero, so that it never
wraps, and is exact; a weight costs the 4 bytes of fp32. A rounded term errs by s / 2 at most, the
mean of S survivors with N examples in all by S s / (2 N): with equal clients by K B / 2^(bits - 2)
= K B / 2^30 at most, that is 1.7e-8 B for 18 of them. s is a power of two, so that machines whose B
differs in its last bit agree on it, and that decoding rounds nothing.

Half of the ring is left out: masks that did not cancel make each weight of a sum uniform over the
ring, and 64 weights that all lie within the plausible half have probability 2^-64.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.secure_sum.errors import SumError

BITS: Final = 32
Words = npt.NDArray[np.uint32]
"""Elements of the ring."""


@dataclass(frozen=True)
class Ring:
    """How updates of a round become elements of the ring."""

    bound: float
    """B, the most that an update may move a weight."""
    cohort: int
    """K, clients of the roster."""
    most: int
    """n, the largest weight of a client in the mean."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise SumError("expected a finite bound above 0 on what an update moves a weight")
        if self.cohort < 1 or self.most < 1 or self.cohort >= 2 ** (BITS - 2):
            raise SumError("expected a cohort, and a client with examples in it")

    @property
    def exponent(self) -> int:
        """log2 of the step."""
        least = self.cohort * self.bound * self.most / (2 ** (BITS - 2) - self.cohort / 2)
        mantissa, exponent = math.frexp(least)
        return exponent - 1 if mantissa == 0.5 else exponent

    @property
    def step(self) -> float:
        """s, the distance of two numbers."""
        return math.ldexp(1.0, self.exponent)

    def worst_error(self, num_terms: int, total: int) -> float:
        """The largest error of a weight of the mean, clipping aside.

        Args:
            num_terms: Clients whose updates were added.
            total: Their weights together.
        """
        return num_terms * self.step / (2 * total)

    def quantise(self, update: npt.NDArray[np.float64], weight: int) -> Words:
        """(...) float64, w_k - w, -> (...) uint32, weight times it after clipping.

        Raises:
            SumError: It is not finite, or its weight is above the largest.
        """
        if not 0 <= weight <= self.most:
            raise SumError(f"expected a weight from 0 to {self.most}, got {weight}")
        if not np.isfinite(update).all():
            raise SumError("expected a finite update")
        scaled = np.clip(update, -self.bound, self.bound)
        scaled *= weight
        scaled /= self.step
        return np.asarray(np.rint(scaled).astype(np.int64).astype(np.uint32))

    def decode(
        self, total: Words, num_terms: int, weights: int, name: str = "the sum"
    ) -> npt.NDArray[np.float64]:
        """(...) uint32, the sum without masks, -> (...) float64, sum_k n_k d_k.

        Args:
            total: The sum.
            num_terms: Clients whose updates were added.
            weights: Their weights together.
            name: Of the tensor, for the error.

        Raises:
            SumError: No updates within the bound have this sum.
        """
        signed = total.view(np.int32).astype(np.int64)
        most = math.floor(self.bound * weights / self.step + num_terms / 2) + 1
        if signed.size and int(np.abs(signed).max()) > most:
            raise SumError(
                f"{name} is not a sum of updates within the bound: the masks did not cancel, so "
                "nodes got different weights, or a client sent no honest update or share"
            )
        return np.asarray(signed * self.step)
