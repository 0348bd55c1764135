"""What every way of dealing shares: lists of images by client, equal parts, names."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

from fl_ppseg.data.partition.record import SceneRef

Shards = Mapping[str, Sequence[SceneRef]]
"""City or client -> its images."""
T = TypeVar("T")


def equal_parts(items: Sequence[T], number: int) -> list[Sequence[T]]:
    """Contiguous parts whose lengths differ by one at most."""
    bounds = [len(items) * part // number for part in range(number + 1)]
    return [items[start:stop] for start, stop in itertools.pairwise(bounds)]


def numbered(name: str, number: int) -> list[str]:
    """``aachen`` alone, or ``aachen-1``, ``aachen-2``, ... with leading zeros where needed."""
    width = len(str(number))
    return [name] if number == 1 else [f"{name}-{i:0{width}}" for i in range(1, number + 1)]


def describe_sizes(sizes: Sequence[int]) -> str:
    """``7``, or ``5 to 9`` where they differ."""
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
