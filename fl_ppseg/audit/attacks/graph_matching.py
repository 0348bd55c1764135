"""Quadratic assignment: the order of nodes in which their graph is most like another graph.

Frank-Wolfe over doubly stochastic matrices with Hungarian steps (FAQ: Vogelstein et al., PLoS ONE
10(4), 2015), for several weighted graphs on the same nodes at once, directed or not; then swaps of
two nodes as long as one gains (2-opt), with the gains of all swaps from a few matrix products.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

Matrix = npt.NDArray[np.float32]
Order = npt.NDArray[np.intp]


class Puzzle(NamedTuple):
    """K graphs on U unknown nodes, and nearly the same K graphs on U known nodes.

    An order maps unknown node l to known node order[l].
    """

    unknown: Matrix
    """(K, U, U) weights of the edges."""
    known: Matrix
    """(K, U, U)."""
    bonus: Matrix
    """(U, U) gain of mapping unknown node l to known node i, added to that of the edges."""

    def gain(self, order: Order) -> float:
        """sum_k <A_k, B_k[order, order]> + sum_l bonus[l, order[l]]."""
        edges = float(np.vdot(self.unknown, self.known[:, order[:, None], order]))
        return edges + float(self.bonus[np.arange(len(order)), order].sum())

    def agreement(self, order: Order) -> float:
        """Cosine of the weights of all edges, at least 0; 1 if the graphs are equal."""
        lengths = float(np.linalg.norm(self.unknown) * np.linalg.norm(self.known))
        edges = float(np.vdot(self.unknown, self.known[:, order[:, None], order]))
        return max(0.0, edges) / lengths if lengths else 0.0


def climb(puzzle: Puzzle, start: Matrix, num_steps: int = 60) -> Order:
    """(U, U) doubly stochastic -> (U,) order, by Frank-Wolfe steps and then by swaps.

    Args:
        puzzle: What to match.
        start: Initial matrix, e.g. of `barycentre`.
        num_steps: Most Frank-Wolfe steps.
    """
    share, slope = start, _slope(puzzle, start)
    for _ in range(num_steps):
        target = _vertex(slope + puzzle.bonus)
        ahead, bend = target - share, _slope(puzzle, target) - slope
        # gain(share + t ahead) = c + t <slope + bonus, ahead> + t² <bend, ahead> / 2
        linear = float(np.vdot(slope + puzzle.bonus, ahead))
        square = float(np.vdot(bend, ahead))
        step = min(1.0, -linear / square) if square < 0 else 1.0
        share, slope = share + step * ahead, slope + step * bend
        if linear < 1e-6 * abs(float(np.vdot(slope, share))):
            break
    return swap_nodes(puzzle, linear_sum_assignment(share, maximize=True)[1])


def swap_nodes(puzzle: Puzzle, order: Order, num_sweeps: int = 50) -> Order:
    """Swap the best disjoint pairs of nodes in each sweep, until no swap gains."""
    best, gain = order, puzzle.gain(order)
    for _ in range(num_sweeps):
        gains = swap_gains(puzzle, best)
        # simultaneous swaps can interfere: then only the best one
        tries = (_swapped(best, gains, at_most) for at_most in (None, 1))
        reached = next(
            (found for found in tries if puzzle.gain(found) > gain + 1e-6 * abs(gain)), None
        )
        if reached is None:
            break
        best, gain = reached, puzzle.gain(reached)
    return best


def swap_gains(puzzle: Puzzle, order: Order) -> Matrix:
    """(U,) -> (U, U), the gain of swapping the known nodes of r and s, for every pair."""
    gains = _mixed(puzzle.bonus[:, order])
    for a, b in zip(puzzle.unknown, puzzle.known[:, order[:, None], order], strict=True):
        # first as if each moved alone, then the edges between r and s, which both moved
        gains += _mixed(a @ b.T + a.T @ b) + _mixed(a) * _mixed(b)
    return gains


def barycentre(num_nodes: int, noise: float, generator: np.random.Generator) -> Matrix:
    """(U, U) doubly stochastic, uniform but for noise (Sinkhorn-Knopp); noise 0: uniform."""
    share = np.exp(noise * generator.standard_normal((num_nodes, num_nodes)))
    for _ in range(20):
        share /= share.sum(axis=0)
        share /= share.sum(axis=1, keepdims=True)
    return share.astype(np.float32)


def _slope(puzzle: Puzzle, share: Matrix) -> Matrix:
    """(U, U), the derivative of sum_k <A_k, P B_k P'> by P: sum_k A_k P B_k' + A_k' P B_k."""
    slope = np.zeros_like(share)
    for a, b in zip(puzzle.unknown, puzzle.known, strict=True):
        slope += a @ (share @ b.T) + a.T @ (share @ b)
    return slope


def _vertex(gains: Matrix) -> Matrix:
    """(U, U) -> (U, U), the permutation matrix of highest gain."""
    vertex = np.zeros_like(gains)
    vertex[linear_sum_assignment(gains, maximize=True)] = 1
    return vertex


def _mixed(matrix: Matrix) -> Matrix:
    """(U, U) -> (U, U), m[r, s] + m[s, r] - m[r, r] - m[s, s]."""
    diagonal = np.diag(matrix)
    mixed: Matrix = matrix + matrix.T - diagonal[:, None] - diagonal
    return mixed


def _swapped(order: Order, gains: Matrix, at_most: int | None) -> Order:
    """Swap the pairs that gain most, each node once."""
    rows, columns = np.nonzero(np.triu(gains, 1) > 0)
    best_first = np.argsort(-gains[rows, columns], kind="stable")[:at_most]
    order, free = order.copy(), np.ones(len(order), bool)
    for r, s in zip(rows[best_first], columns[best_first], strict=True):
        if free[r] and free[s]:
            order[[r, s]] = order[[s, r]]
            free[[r, s]] = False
    return order
