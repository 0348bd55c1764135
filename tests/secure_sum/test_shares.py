"""Shamir's shares: any threshold of them restore a secret, fewer tell nothing."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.shares import COEFFICIENT_BYTES, PRIME, combine, split

SECRET = bytes(range(32))


def random_bytes(threshold: int) -> bytes:
    return bytes(n * 37 % 251 for n in range(COEFFICIENT_BYTES * (threshold - 1)))


def test_the_prime_is_one() -> None:
    """Lucas and Lehmer's test of 2^521 - 1."""
    value = 4
    for _ in range(521 - 2):
        value = (value * value - 2) % PRIME
    assert value == 0


@pytest.mark.parametrize(("threshold", "size"), [(1, 1), (2, 3), (3, 5), (5, 5)])
def test_any_threshold_of_shares_restores_the_secret(threshold: int, size: int) -> None:
    places = range(1, size + 1)
    shares = dict(
        zip(places, split(SECRET, random_bytes(threshold), threshold, places), strict=True)
    )
    for some in combinations(places, threshold):
        assert combine({place: shares[place] for place in some}, threshold) == SECRET


@given(st.binary(min_size=32, max_size=32))
def test_every_secret_comes_back(secret: bytes) -> None:
    shares = split(secret, random_bytes(3), 3, (1, 2, 9))
    assert combine(dict(zip((1, 2, 9), shares, strict=True)), 3) == secret


def test_fewer_shares_fit_every_secret() -> None:
    """Two of three shares: for each other secret there is a third share that restores it."""
    shares = split(SECRET, random_bytes(3), 3, (1, 2, 3))
    other = int.from_bytes(b"\xff" * 32, "big")
    # The value at 3 of the parabola through (0, other), (1, s1), (2, s2).
    first, second = (int.from_bytes(share, "big") for share in shares[:2])
    third = (other - 3 * first + 3 * second) % PRIME
    forged = {1: shares[0], 2: shares[1], 3: third.to_bytes(66, "big")}
    assert combine(forged, 3) == b"\xff" * 32


def test_too_few_or_wrong_shares_are_refused() -> None:
    shares = dict(enumerate(split(SECRET, random_bytes(3), 3, (1, 2, 3)), 1))
    with pytest.raises(SumError, match="expected 3 shares of a secret, got 2"):
        combine({1: shares[1], 2: shares[2]}, 3)
    with pytest.raises(SumError, match="not of one secret"):
        combine(shares | {3: bytes(65) + b"\1"}, 3)
    with pytest.raises(SumError, match="shares of 66 bytes"):
        combine(shares | {3: b""}, 3)
