"""Whose turn it is in a round: a draw that anybody who knows the seed can repeat."""

import random
from collections.abc import Sequence
from typing import TypeVar

from fl_ppseg.config.federation import FederationConfig

T = TypeVar("T")


def drawn(trainers: Sequence[T], federation: FederationConfig, seed: int, round: int) -> list[T]:
    """The clients that a round asks to train.

    >>> drawn(["aachen", "bochum", "krefeld"], FederationConfig(fraction_train=0.7), 0, 1)
    ['krefeld', 'bochum']

    Args:
        trainers: All that train, by the name of their clients.
        federation: The share of them that is asked.
        seed: Of the run.
        round: From 1.
    """
    number = federation.num_asked(len(trainers))
    return random.Random(f"{seed}/{round}").sample(trainers, number)
