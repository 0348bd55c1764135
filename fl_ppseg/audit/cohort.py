"""The clients of a round whose coordinator learns the sum of their updates alone.

Each is played as in `update`, with its own vault, keys and node. The coordinator keeps the mean of
their updates, weighted by images: exactly, or as it is decoded from the ring of secure aggregation.
Masks, which cancel, are left out.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clients.policy.node_policy import ArmPolicy
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.update import Client, Trainer, Truth
from fl_ppseg.config.sections import Config
from fl_ppseg.data.dataset import Dataset, Scene
from fl_ppseg.learning.reach import largest_of, update_bound
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError

Lots = Mapping[str, Sequence[Scene]]
"""Images by client."""


class Cohort(Trainer):
    """Clients that train each round with the same weights; the first one's images are attacked.

    Args:
        clients: Two or more.
        most: Images of the largest.
        is_rounded: Whether updates are rounded as nodes round them, where the training has a bound.
            The rounding is coarse where weights are large, and erases the small changes that made
            weights cause; a coordinator that makes its weights with that in mind may get what the
            exact mean shows.
    """

    def __init__(self, clients: Sequence[Client], most: int, is_rounded: bool = False) -> None:
        self._clients, self._most, self._is_rounded = clients, most, is_rounded

    @property
    def truth(self) -> Truth:
        """Of the client whose images are attacked."""
        return self._clients[0].truth

    @property
    def name(self) -> str:
        """Of the client whose images are attacked."""
        return self._clients[0].name

    @property
    def agreed_policy(self) -> ArmPolicy:
        """What that client's owner agreed to, and every other's."""
        return self._clients[0].agreed_policy

    def accepted_before(self, num_rounds: int) -> tuple[int, Arrays] | None:
        """As `Client.accepted_before`: the same weights went to all."""
        return self._clients[0].accepted_before(num_rounds)

    def trained(self, weights: Arrays, round: int = 1, **other: Any) -> Exchange | str:
        """Train a round and keep what the coordinator learns; arguments as `Client.trained`.

        Returns:
            The exchange; or the reason of the first node that refuses.
        """
        total: MeanUpdate | None = None
        for client in self._clients:
            found = client.trained(weights, round, **other)
            if isinstance(found, str):
                return found
            total = total or MeanUpdate(found, self._ring(found))
            total.add(client.name, found)
        assert total is not None, "expected clients"
        return total.exchange()

    def _ring(self, exchange: Exchange) -> Ring | None:
        """In which nodes add their updates; None: exactly."""
        bound = update_bound(exchange.training, self._most, largest_of(exchange.sent))
        if bound is None or not self._is_rounded:
            return None
        return Ring(bound, len(self._clients), self._most)


class MeanUpdate:
    """The mean update of a round, weighted by images whatever `federation.weighting` says, one
    client's weights in memory at a time.

    Args:
        first: The exchange with one of the clients.
        ring: In which updates are rounded and added; None: exactly.
    """

    def __init__(self, first: Exchange, ring: Ring | None = None) -> None:
        self._ring, self._images = ring, dict[str, int]()
        self._first = replace(first, returned={})
        kind = np.float64 if ring is None else np.uint32
        self._total: Arrays = {n: np.zeros(v.shape, kind) for n, v in first.returned.items()}

    def add(self, client: str, exchange: Exchange) -> None:
        """Add the update of a client, which had the same weights."""
        weight = self._images[client] = exchange.num_examples
        for name, total in self._total.items():
            update = exchange.returned[name].astype(np.float64) - exchange.sent[name]
            total += weight * update if self._ring is None else self._ring.quantise(update, weight)

    def exchange(self) -> Exchange:
        """What the coordinator learns; `returned` is the weights sent and the mean, in float64."""
        num, sent, total = sum(self._images.values()), self._first.sent, self._total
        if not num:
            raise RunError("no update to attack: no client has a labelled pixel to train on")
        if self._ring is not None:
            decode, num_terms = self._ring.decode, len(self._images)
            total = {n: decode(words, num_terms, num, n) for n, words in total.items()}
        mean: Arrays = {name: sent[name] + value / num for name, value in total.items()}
        return replace(self._first, returned=mean, num_examples=num, summed=self._images)


@contextmanager
def cohort(
    config: Config,
    arm: str,
    embedding: Arrays,
    lots: Lots,
    *,
    is_rounded: bool = False,
    **given: Any,
) -> Iterator[Client | Cohort]:
    """Clients in a temporary folder; a `Client` if there is one alone.

    Args:
        config: Experiment with the arm.
        arm: Its id.
        embedding: As in `Client`.
        lots: Images by client; the first client's are attacked.
        is_rounded: As in `Cohort`.
        given: Further arguments of each `Client`.

    Raises:
        InputError: As `Client`.
    """
    most = max(map(len, lots.values()))  # one trust region, as all owners agree to
    with tempfile.TemporaryDirectory(prefix="fl_ppseg-audit-") as place:
        clients = [
            Client(
                config, arm, embedding, scenes, Path(place), num_trained=most, name=name, **given
            )
            for name, scenes in lots.items()
        ]
        yield Cohort(clients, most, is_rounded) if len(clients) > 1 else clients[0]


def companions(dataset: Dataset, client: str, number: int, most: int) -> dict[str, list[Scene]]:
    """The clients whose updates are added to one client's, the largest first.

    Args:
        dataset: A tree with a split `train`.
        client: The client under attack.
        number: How many are wanted. If the data has fewer clients, their further images are
            played as clients of their own; fewer are returned if these do not suffice either.
        most: Images of each.
    """
    others = {name: list(own) for name, own in dataset.split("train").items() if name != client}
    parts = sorted(
        (start, -len(own), name)
        for name, own in others.items()
        for start in range(0, len(own), most)
    )
    return {
        f"{name}-{start // most + 1}" if start else name: others[name][start : start + most]
        for start, _, name in parts[:number]
    }
