"""Clients that hold images of several cities: dealt at random, or by Dirichlet mixtures."""

import numpy as np

from fl_ppseg.data.partition.shards import Shards, describe_sizes, equal_parts, numbered
from fl_ppseg.system.wording import counted


def deal_iid(cities: Shards, num_clients: int, rng: np.random.Generator) -> tuple[Shards, str]:
    """Images of all cities at random, equally many each; and a sentence that says so."""
    images = [image for city in cities.values() for image in city]
    shuffled = [images[index] for index in rng.permutation(len(images))]
    parts = equal_parts(shuffled, num_clients)
    shards = dict(zip(numbered("client", num_clients), parts, strict=True))
    sizes = describe_sizes([len(part) for part in parts])
    return (
        shards,
        f"{counted(num_clients, 'client')}, images of all cities dealt at random, {sizes} each",
    )


def deal_dirichlet(
    cities: Shards, num_clients: int, alpha: float, rng: np.random.Generator
) -> tuple[Shards, str]:
    """Equally many images each, of cities in proportions of the client's own; and a sentence."""
    decks = [[city[index] for index in rng.permutation(len(city))] for city in cities.values()]
    decks = [deck for deck in decks if deck]
    left = np.array([len(deck) for deck in decks])
    prior = left / left.sum()
    quotas = [len(part) for part in equal_parts(range(left.sum()), num_clients)]
    shards = {}
    for name, quota in zip(numbered("client", num_clients), quotas, strict=True):
        takes = _draw_takes(rng.dirichlet(np.maximum(alpha * prior, 1e-9)), left, quota, rng)
        left = left - takes
        shards[name] = [
            deck.pop() for deck, take in zip(decks, takes, strict=True) for _ in range(take)
        ]
    return shards, (
        f"{counted(num_clients, 'client')}, each with its own Dirichlet({alpha:g}) mixture of "
        f"cities, {describe_sizes(quotas)} images each"
    )


def _draw_takes(
    mixture: np.ndarray, left: np.ndarray, quota: int, rng: np.random.Generator
) -> np.ndarray:
    """(C,) mixture -> (C,) images of each city, ``quota`` in all, at most ``left`` of each.

    A city that runs out leaves the mixture; when all of the mixture is gone, what is left decides.
    """
    takes = np.zeros_like(left)
    while (missing := quota - takes.sum()) > 0:
        room = left - takes
        weights = np.where(room > 0, mixture, 0.0)
        weights = weights if weights.sum() > 0 else room.astype(float)
        takes += np.minimum(rng.multinomial(missing, weights / weights.sum()), room)
    return takes
