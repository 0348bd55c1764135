"""Deals the images of a split to clients, by city, evenly or in mixtures."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from fl_ppseg.data.partition.by_city import deal_by_city
from fl_ppseg.data.partition.mixtures import deal_dirichlet, deal_iid
from fl_ppseg.data.partition.record import MIN_IMAGES, Partition, PartitionKind, SceneRef
from fl_ppseg.data.partition.shards import Shards
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.wording import counted


class HasReference(Protocol):
    """What a partition needs to know of a scene."""

    @property
    def city(self) -> str:
        """City of the scene."""

    @property
    def stem(self) -> str:
        """Name of the scene within its city."""


def make_partition(
    scenes: Mapping[str, Sequence[HasReference | SceneRef]],
    num_clients: int,
    kind: PartitionKind = "by-city",
    alpha: float = 1.0,
    seed: int = 0,
) -> Partition:
    """Deals the images of a split to clients.

    - ``by-city``: one client a city. Fewer clients: cities merge, balanced by number of images.
      More: cities split into contiguous shards, equally many each where that divides (144 = 18 x 8,
      as in FedDrive, Fantauzzo et al. 2022), otherwise those with the largest shards once more.
    - ``iid``: images dealt at random, equally many each.
    - ``dirichlet``: equally many each, every client with its own mixture of cities drawn from
      Dirichlet(alpha p), p the shares of the cities (Hsu, Qi and Brown 2019, with cities in the
      place of classes: an image of a street has no single class).

    Args:
        scenes: City -> its scenes, or their (city, stem).
        num_clients: How many clients.
        kind: See above.
        alpha: Concentration of ``dirichlet``: small = one city a client, large = like ``iid``.
        seed: Of ``iid`` and ``dirichlet``.

    Raises:
        InputError: The number of clients or alpha is out of range, or images are too few.
    """
    cities = {city: sorted(map(_reference, scenes[city])) for city in sorted(scenes)}
    _check(cities, num_clients, kind, alpha)
    rng = np.random.Generator(np.random.Philox(seed))
    deal: dict[PartitionKind, Callable[[], tuple[Shards, str]]] = {
        "by-city": lambda: deal_by_city(cities, num_clients),
        "iid": lambda: deal_iid(cities, num_clients, rng),
        "dirichlet": lambda: deal_dirichlet(cities, num_clients, alpha, rng),
    }
    shards, description = deal[kind]()
    clients = {client: tuple(sorted(images)) for client, images in shards.items()}
    if sum(map(len, clients.values())) < sum(map(len, cities.values())):
        raise InputError(f"city names clash once merged or numbered: {', '.join(cities)}; rename")
    return Partition(clients, kind, seed, alpha if kind == "dirichlet" else None, description)


def _reference(scene: HasReference | SceneRef) -> SceneRef:
    return scene if isinstance(scene, tuple) else (scene.city, scene.stem)


def _check(cities: Shards, num_clients: int, kind: PartitionKind, alpha: float) -> None:
    num_images = sum(map(len, cities.values()))
    if num_clients < 1:
        raise InputError(f"{counted(num_clients, 'client')} requested; expected at least 1")
    if num_images < MIN_IMAGES * num_clients:
        raise InputError(
            f"{counted(num_clients, 'client')} for {counted(num_images, 'image')}; each needs at "
            f"least {MIN_IMAGES} (one held out), so ask for at most {num_images // MIN_IMAGES}"
        )
    if kind == "dirichlet" and not 0 < alpha < math.inf:
        raise InputError(f"alpha {alpha}; expected a finite number above 0, such as 0.5")
