"""Quadratic assignment: exact on shuffled copies, and swaps weighed as trying them weighs them."""

from itertools import combinations, permutations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import quadratic_assignment  # type: ignore[import-untyped]

from fl_ppseg.audit.attacks.graph_matching import Puzzle, barycentre, climb, swap_gains, swap_nodes


def graphs(number: int, num_nodes: int, seed: int) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((number, num_nodes, num_nodes)).astype(np.float32)


def puzzle(number: int, num_nodes: int, seed: int) -> Puzzle:
    """Graphs that have nothing to do with each other."""
    bonus = graphs(1, num_nodes, seed + 2)[0]
    return Puzzle(graphs(number, num_nodes, seed), graphs(number, num_nodes, seed + 1), bonus)


def test_a_shuffled_copy_is_put_in_order() -> None:
    known = graphs(2, 30, 0)
    order = np.random.default_rng(1).permutation(30)
    copy = Puzzle(known[:, order[:, None], order], known, np.zeros((30, 30), np.float32))
    found = climb(copy, barycentre(30, 0.1, np.random.default_rng(2)))
    np.testing.assert_array_equal(found, order)
    assert copy.gain(found) == pytest.approx(float((known**2).sum()), rel=1e-5)
    assert copy.agreement(found) == pytest.approx(1, abs=1e-5)


def test_gains_of_swaps_are_those_of_trying_them() -> None:
    some = puzzle(2, 7, 0)
    order = np.random.default_rng(3).permutation(7)
    gains = swap_gains(some, order)
    for r, s in combinations(range(7), 2):
        swapped = order.copy()
        swapped[[r, s]] = order[[s, r]]
        gained = some.gain(swapped) - some.gain(order)
        assert gains[r, s] == pytest.approx(gained, abs=1e-3)


def test_swaps_end_where_no_swap_gains() -> None:
    some = puzzle(1, 6, 0)
    found = swap_nodes(some, np.arange(6))
    assert swap_gains(some, found).max() < 1e-3
    assert some.gain(found) > some.gain(np.arange(6))


def test_of_several_starts_the_best_is_the_best_of_all_orders() -> None:
    """6 nodes have 720 orders, so the truth can be counted out."""
    some, generator = puzzle(2, 6, 4), np.random.default_rng(0)
    found = max(some.gain(climb(some, barycentre(6, 1.0, generator))) for _ in range(30))
    best = max(some.gain(np.array(order)) for order in permutations(range(6)))
    assert found == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_about_as_good_as_that_of_scipy(seed: int) -> None:
    """On one symmetric graph, as `quadratic_assignment` takes."""
    a, b = (m[0] + m[0].T for m in (graphs(1, 25, seed), graphs(1, 25, 50 + seed)))
    one = Puzzle(a[None], b[None], np.zeros((25, 25), np.float32))
    ours = one.gain(climb(one, barycentre(25, 0.0, np.random.default_rng(0))))
    assert ours > 0.95 * quadratic_assignment(a, b, options={"maximize": True}).fun


def test_starts_are_doubly_stochastic() -> None:
    share = barycentre(9, 2.0, np.random.default_rng(0))
    np.testing.assert_allclose(share.sum(axis=0), 1, atol=1e-2)
    np.testing.assert_allclose(share.sum(axis=1), 1, atol=1e-5)
    assert share.min() > 0
