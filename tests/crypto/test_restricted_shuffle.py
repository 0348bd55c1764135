"""`restricted-shuffle`: as many values stay as it says, which ones is the key's doing."""

from fractions import Fraction

import numpy as np
import pytest
from cipher_cases import KEY, assert_uniform, geometries, laws, make_image, subkeys
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.crypto.ciphers.restricted_shuffle import RestrictedShuffle
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, to_blocks
from fl_ppseg.system.errors import InputError


@laws
@given(geometries(), st.fractions(0, 1, max_denominator=20), subkeys)
def test_the_share_of_fixed_values_stays(
    geometry: Geometry, fixed: Fraction, subkey: SubKey
) -> None:
    permutation = RestrictedShuffle(fixed).draw(subkey, geometry, "per-block").permutation
    places = np.arange(geometry.block_length)
    assert (np.sort(permutation) == places).all()
    assert ((permutation == places).sum(axis=1) >= int(fixed * geometry.block_length)).all()


@pytest.mark.parametrize(("fixed", "num_fixed"), [(Fraction(2, 3), 512), (Fraction(3, 4), 576)])
def test_of_768_values_as_many_stay_as_in_the_literature(fixed: Fraction, num_fixed: int) -> None:
    """Of those that move one in a block, on average, comes back to its place by chance."""
    permutation = (
        RestrictedShuffle(fixed).draw(KEY, Geometry(3, 16, 20, 20), "per-block").permutation
    )
    num_still = (permutation == np.arange(768)).sum(axis=1)
    assert num_still.min() == num_fixed
    assert num_still.mean() == pytest.approx(num_fixed + 1, abs=0.2)


def test_all_or_nothing() -> None:
    geometry = Geometry(3, 8, 1, 2)
    blocks = to_blocks(make_image(geometry), 8)
    still, all_move = RestrictedShuffle(Fraction(1)), RestrictedShuffle(Fraction(0))
    assert (still.apply(blocks, still.draw(KEY, geometry, "per-block")) == blocks).all()
    moved = all_move.apply(blocks, all_move.draw(KEY, geometry, "per-block"))
    assert (moved != blocks).mean() > 0.9


def test_which_move_and_where_is_uniform() -> None:
    """4 of 12 values move: 495 sets, and 24 orders within the set."""
    geometry = Geometry(3, 2, 100, 150)
    permutation = RestrictedShuffle().draw(KEY, geometry, "per-block").permutation.astype(int)
    moved = permutation != np.arange(12)
    # Two sets can make one permutation when a value comes back to its place, so sets show in rows
    # where all four moved: 9 of 24 orders, in each set equally often.
    all_moved = moved.sum(axis=1) == 4
    assert all_moved.mean() == pytest.approx(9 / 24, abs=0.015)
    assert_uniform(moved[all_moved], 495)
    orders = permutation[moved & all_moved[:, None]].reshape(-1, 4).argsort().argsort()
    assert_uniform(orders, 9)


def test_shares_do_not_read_the_same_random_bits() -> None:
    geometry = Geometry(3, 8, 1, 1)
    one, other = (
        RestrictedShuffle(fixed).draw(KEY, geometry, "common").permutation
        for fixed in (Fraction(0), Fraction(1, 192))
    )
    assert (one != other).mean() > 0.9


@pytest.mark.parametrize("fixed", [Fraction(-1, 3), Fraction(4, 3)])
def test_shares_that_are_none_are_refused(fixed: Fraction) -> None:
    with pytest.raises(
        InputError, match=f"expected a share of fixed values from 0 to 1, got {fixed}"
    ):
        RestrictedShuffle(fixed)
