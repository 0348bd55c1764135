"""Evaluation oracle: held-out label maps recovered from the confusion counts of crafted weights.

Adversary: an active coordinator that has a node evaluate crafted weights, as often as the node
answers, and has public label maps as a prior; no key, no image of the client.
Method: requests of `label_oracle`. The first requests separate the images; each later one splits
those cells of one image's map that hold the most pixels of other classes than their most frequent
one (at first one cell, the whole image), until every cell is of one class, no cell can be split, or
the node stops answering.
Must succeed: to the pixel, if patches may be small and classes many. Must fail: without an answer
it returns the prior alone, the most frequent class of each place.
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
"""Weights -> the nearest weights that the node accepts."""
Ask = Callable[[Arrays], Counts | None]
"""Weights -> the node's (C, C) confusion counts, rows = truth; None: the node refused."""
Cell = tuple[int, int, int, int]
"""First row, end row, first column, end column, in tokens."""

_COUNTS: Final = 3
"""Most requests spent on separating the images."""
_FURTHEST: Final = 20.0
"""Numbers of images lie within this: those of public images have deviation 1."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """Result of the attack."""

    maps: npt.NDArray[np.uint8] = field(repr=False)
    """(n, h, w), reconstructed label maps in arbitrary order; `usual` where none was recovered."""
    certain: npt.NDArray[np.uint8] = field(repr=False)
    """(n, h, w), the same where the counts determine the class, else 255."""
    num_requests: int
    """Requests that the node answered."""


@dataclass(eq=False)
class _Group:
    """Images whose numbers lie in one interval: one image, or several not yet separated."""

    low: float
    high: float
    num_images: int
    whole: Counts
    """(C,), their labelled pixels per class."""
    readings: dict[Cell, Reading] = field(default_factory=dict)
    parted: set[Cell] = field(default_factory=set)
    """Cells that were split by a request."""

    def impure(self) -> list[tuple[int, Cell]]:
        """Cells to split with their pixels outside the most frequent class, most pixels first."""
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
    """Recover the label maps of a node's held-out images.

    Args:
        ask: The node.
        oracle: Makes the weights, for the model that the node accepts.
        likely: (C, h, w), the prior, of `prior`; h, w is the size of the client's label maps.
        num_images: Held-out images of the client, as its replies report.
        num_requests: Most requests to make.
        limit: Moves weights to the nearest that the node accepts.
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
    """The node under attack, with a count of the requests."""

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
    """Separate images by their numbers into groups, of one image each if the requests suffice."""
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
    """Groups by rising number, ends moved halfway to the next to allow for error."""
    for lower, higher in pairwise(groups):
        lower.high = higher.low = (lower.high + higher.low) / 2
    if groups:
        groups[0].low, groups[-1].high = -np.inf, np.inf
    return groups


def _edges(groups: list[_Group], number: int) -> Floats:
    """(E,) rising numbers, E at most `number`, that separate the groups and divide each."""
    parts = max(number // len(groups), 2)
    within = [
        np.linspace(max(group.low, -_FURTHEST), min(group.high, _FURTHEST), parts)
        for group in groups
    ]
    return np.unique(np.concatenate(within))[:number]


def _num_images(pixels: list[int], num_places: int, num_images: int) -> list[int]:
    """Estimate the images in each group from its labelled pixels; they sum to `num_images`."""
    numbers = [-(-each // num_places) for each in pixels]
    while sum(numbers) < num_images:  # an image with hardly a label hides behind others
        numbers[int(np.argmax(np.array(pixels) / np.array(numbers)))] += 1
    return numbers


def _impurity(group: _Group) -> int:
    if not group.readings:
        return int(group.whole.sum() - group.whole.max())
    return sum(number for number, _ in group.impure())


def _refine(node: _Node, oracle: Oracle, group: _Group, likely: Floats) -> bool:
    """Split the cells of most other pixels by one request; False if the node refused."""
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
    """Split cells into as many parts as there are bins."""
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
