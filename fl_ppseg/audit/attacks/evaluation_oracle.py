"""Evaluation oracle: held-out label maps out of the confusion counts of weights made to tell them.

Adversary: a coordinator that has a node score weights of its own making, as often as the node lets
it, and has label maps of other streets; no key, no image of the client's.
Method: requests of `label_oracle`. The first tell the images apart; each later one parts the cells
of one image's map that hold the most of other classes than their own (all of the image at first)
until every cell is of one class, no cell can be parted, or the node answers no more.
Must win: to the pixel, where patches may be small and classes many. Must not: without an answer it
gets what the most frequent class of each place gives, which anybody has.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.label_map_reading import (
    Counts,
    Floats,
    Reading,
    read_map,
    usual,
)
from fl_ppseg.audit.attacks.label_oracle import Oracle, Question
from fl_ppseg.system.arrays import Arrays

Limit = Callable[[Arrays], Arrays]
"""Weights -> the nearest ones that the node still answers to."""
Ask = Callable[[Arrays], Counts | None]
"""Weights -> the node's (C, C) counts, rows = truth; None: it does not answer."""
Cell = tuple[int, int, int, int]
"""Rows from and to, columns from and to, of tokens."""

_COUNTS: Final = 3
"""Requests that tell images apart, at most."""
_FURTHEST: Final = 20.0
"""Numbers beyond are of no image: public ones have deviation 1."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """What came of it."""

    maps: npt.NDArray[np.uint8] = field(repr=False)
    """(n, h, w), a guess at each label map, in no order; those without an answer are `usual`."""
    certain: npt.NDArray[np.uint8] = field(repr=False)
    """The same where the counts leave no doubt, else 255."""
    num_requests: int
    """That were answered."""


@dataclass(eq=False)
class _Group:
    """Images whose numbers lie between two: one, or several that were not told apart."""

    low: float
    high: float
    num_images: int
    whole: Counts
    """(C,), all their labelled pixels by class."""
    readings: dict[Cell, Reading] = field(default_factory=dict)
    parted: set[Cell] = field(default_factory=set)
    """Cells whose parts were asked for."""

    def impure(self) -> list[tuple[int, Cell]]:
        """Cells to part, those first that hold the most of other classes than their most frequent
        one, with the pixels of these."""
        told = ((int(r.counts.sum() - r.counts.max()), cell) for cell, r in self.readings.items())
        found = [(num, c) for num, c in told if num and c not in self.parted and _area(c) > 1]
        return sorted(found, reverse=True)


def evaluation_oracle(
    ask: Ask,
    oracle: Oracle,
    likely: Floats,
    num_images: int,
    num_requests: int,
    limit: Limit = lambda made: made,
) -> Recovered:
    """Ask, and read.

    Args:
        ask: The node.
        oracle: Makes the weights, for the model that the node accepts.
        likely: (C, h, w), `prior` of other streets; h, w is the size of the client's label maps.
        num_images: Held-out images of the client, as its replies say.
        num_requests: How many requests to make at most.
        limit: Moves weights to where the node answers.
    """
    node = _Node(ask, num_requests, limit)
    groups = _told_apart(node, oracle, likely, num_images)
    while node.left and groups:
        group = max(groups, key=_impurity)
        if not _impurity(group) or not _refine(node, oracle, group, likely):
            break
    maps, certain = [], []
    for group in groups:
        inner_first = list(group.readings.values())[::-1]
        found, sure = read_map(inner_first, group.whole // group.num_images, likely)
        maps += [found] * group.num_images
        certain += [sure] * group.num_images
    missing = num_images - len(maps)
    maps += [usual(likely)] * missing
    certain += [np.full_like(usual(likely), 255)] * missing
    return Recovered(np.stack(maps), np.stack(certain), node.num_answers)


class _Node:
    """Counts the requests."""

    def __init__(self, ask: Ask, num_requests: int, limit: Limit) -> None:
        self._ask, self.left, self.num_answers, self.limit = ask, num_requests, 0, limit

    def answer(self, made: Arrays) -> Counts | None:
        if not self.left:
            return None
        counts = self._ask(made)
        self.left = 0 if counts is None else self.left - 1
        self.num_answers += counts is not None
        return counts


def _told_apart(node: _Node, oracle: Oracle, likely: Floats, num_images: int) -> list[_Group]:
    """Groups of images by their numbers, of one image each as far as a few requests allow."""
    num_places, num_classes = likely[0].size, len(likely)
    least, most = float(oracle.numbers.min()), float(oracle.numbers.max())
    margin = most - least
    groups = [_Group(least - margin, most + margin, num_images, np.zeros(num_classes, np.int64))]
    for _ in range(_COUNTS):
        shared = [group for group in groups if group.num_images > 1 or not group.whole.any()]
        if not shared:
            break
        edges = _edges(shared, oracle.num_classes - 1)
        counts = node.answer(node.limit(oracle.counted(edges)))
        if counts is None:
            break
        columns = counts[:num_classes, : len(edges) + 1]
        held = [int(k) for k in np.flatnonzero(columns.sum(axis=0))]
        ends = np.concatenate([[-np.inf], edges, [np.inf]])
        numbers = _num_images([int(columns[:, k].sum()) for k in held], num_places, num_images)
        groups = [
            _Group(float(ends[k]), float(ends[k + 1]), number, columns[:, k])
            for k, number in zip(held, numbers, strict=True)
        ]
    return _widened([group for group in groups if group.whole.any()])


def _widened(groups: list[_Group]) -> list[_Group]:
    """Groups, by rising number, with ends halfway to the next: numbers are read with an error."""
    for lower, higher in pairwise(groups):
        lower.high = higher.low = (lower.high + higher.low) / 2
    if groups:
        groups[0].low, groups[-1].high = -np.inf, np.inf
    return groups


def _edges(groups: list[_Group], number: int) -> Floats:
    """(E,) rising numbers, E at most `number`, that part the groups and what lies within them."""
    parts = max(number // len(groups), 2)
    within = [
        np.linspace(max(group.low, -_FURTHEST), min(group.high, _FURTHEST), parts)
        for group in groups
    ]
    return np.unique(np.concatenate(within))[:number]


def _num_images(pixels: list[int], num_places: int, num_images: int) -> list[int]:
    """How many images make these numbers of labelled pixels, all together `num_images`."""
    numbers = [-(-each // num_places) for each in pixels]
    while sum(numbers) < num_images:  # an image with hardly a label hides behind others
        numbers[int(np.argmax(np.array(pixels) / np.array(numbers)))] += 1
    return numbers


def _impurity(group: _Group) -> int:
    if not group.readings:
        return int(group.whole.sum() - group.whole.max())
    return sum(number for number, _ in group.impure())


def _refine(node: _Node, oracle: Oracle, group: _Group, likely: Floats) -> bool:
    """Ask for parts of the worst cells; whether there was an answer."""
    grid_h, grid_w = oracle.grid
    worst = [cell for _, cell in group.impure()] or [(0, grid_h, 0, grid_w)]
    worst = worst[: max(oracle.num_bins // 2, 1)]
    cells = _parted(worst, oracle.num_bins)
    group.parted.update(worst)
    bins = np.zeros(oracle.grid, np.int64)
    for number, (top, bottom, left, right) in enumerate(cells, 1):
        bins[top:bottom, left:right] = number
    made = node.limit(oracle.asked(Question(bins, group.low, group.high)))
    counts = node.answer(made)
    if counts is None:
        return False
    answers = oracle.answers(made, (likely.shape[1], likely.shape[2]))
    for number, cell in enumerate(cells, 1):
        told = counts[: len(likely), number] // group.num_images
        group.readings[cell] = Reading(answers == number, told)
    return True


def _parted(cells: list[Cell], number: int) -> list[Cell]:
    """Parts of cells, as many as there are bins."""
    parts = [half for cell in cells for half in _halves(cell)]
    while len(parts) < number:
        open_cells = [cell for cell in parts if _area(cell) > 1]
        if not open_cells:
            break
        largest = max(open_cells, key=_area)
        parts.remove(largest)
        parts += _halves(largest)
    return parts[:number]


def _halves(cell: Cell) -> list[Cell]:
    top, bottom, left, right = cell
    if bottom - top > right - left:
        middle = (top + bottom) // 2
        return [(top, middle, left, right), (middle, bottom, left, right)]
    middle = (left + right) // 2
    return [(top, bottom, left, middle), (top, bottom, middle, right)]


def _area(cell: Cell) -> int:
    return (cell[1] - cell[0]) * (cell[3] - cell[2])
