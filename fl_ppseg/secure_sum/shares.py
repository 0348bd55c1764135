"""Shamir's secret sharing (1979): any `threshold` shares restore a secret, fewer tell nothing.

A secret of 32 bytes is the value at 0 of a polynomial of degree threshold - 1 over the integers
modulo the prime 2^521 - 1; the share of place x, from 1, is its value there, 66 bytes.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from fl_ppseg.secure_sum.errors import SumError

PRIME: Final = 2**521 - 1
SHARE_BYTES: Final = 66
SECRET_BYTES: Final = 32
COEFFICIENT_BYTES: Final = 82
"""Bytes that a coefficient is drawn from: modulo the prime they are uniform up to 2^-135."""


def split(secret: bytes, random: bytes, threshold: int, places: Sequence[int]) -> list[bytes]:
    """The shares of a secret, in the order of their places.

    Args:
        secret: 32 bytes.
        random: `COEFFICIENT_BYTES` uniform bytes for each of the threshold - 1 coefficients.
        threshold: Shares that restore it.
        places: Distinct numbers from 1.
    """
    if len(secret) != SECRET_BYTES or len(random) != COEFFICIENT_BYTES * (threshold - 1):
        raise SumError("expected a secret of 32 bytes, and random bytes for each coefficient")
    if len({*places}) != len(places) or not 1 <= threshold <= len(places) or min(places) < 1:
        raise SumError("expected distinct places from 1, as many as the threshold or more")
    drawn = (
        random[start : start + COEFFICIENT_BYTES]
        for start in range(0, len(random), COEFFICIENT_BYTES)
    )
    polynomial = [int.from_bytes(secret, "big"), *(int.from_bytes(c, "big") % PRIME for c in drawn)]
    return [_value_at(polynomial, place).to_bytes(SHARE_BYTES, "big") for place in places]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Restore a secret.

    Args:
        shares: By place; the `threshold` first of them are used.
        threshold: As it was split.

    Raises:
        SumError: There are too few shares, or they are not of one secret.
    """
    if len(shares) < threshold:
        raise SumError(f"expected {threshold} shares of a secret, got {len(shares)}")
    places = sorted(shares)[:threshold]
    total = 0
    for place, factor in zip(places, _at_zero(tuple(places)), strict=True):
        if len(shares[place]) != SHARE_BYTES:
            raise SumError(f"expected shares of {SHARE_BYTES} bytes")
        total += int.from_bytes(shares[place], "big") * factor
    secret = total % PRIME
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise SumError("shares that are not of one secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value_at(polynomial: Sequence[int], place: int) -> int:
    """Horner's rule."""
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * place + coefficient) % PRIME
    return value


@lru_cache(maxsize=8)
def _at_zero(places: tuple[int, ...]) -> list[int]:
    """Lagrange's factors for the value at 0; the same clients share several secrets."""
    factors = []
    for place in places:
        above, below = 1, 1
        for other in places:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        factors.append(above * pow(below, -1, PRIME) % PRIME)
    return factors
