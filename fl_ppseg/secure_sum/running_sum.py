"""The coordinator's side: one running sum of masked updates, whose masks are taken off at its end.

O(1) memory in the number of clients: an update is added as it comes, and let go.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import Keystream, apply_all, pair_mask, self_mask
from fl_ppseg.secure_sum.node import Dealt, Released, commitment_of
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.secure_sum.roster import Roster
from fl_ppseg.secure_sum.shares import combine

LIAR = "it, or one that gave a share of it, lies"


@dataclass(frozen=True)
class Unmasking:
    """What the masks of a round's updates depend on."""

    roster: Roster
    dealt: Mapping[str, Dealt]
    """Answers to `share`, by client: its members were asked for updates."""
    script: bytes
    """Of `masks.transcript`."""

    @property
    def members(self) -> tuple[str, ...]:
        """Clients whose updates were asked for, sorted."""
        return tuple(sorted(self.dealt))


class RunningSum:
    """The sum of the updates of a round."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Start with zeros of these shapes, by name."""
        self._total = {name: np.zeros(shape, np.uint32) for name, shape in sorted(shapes.items())}
        self.weights: dict[str, int] = {}
        """Weight of each client whose update was added."""

    def add(self, client: str, update: Mapping[str, np.ndarray], weight: int) -> None:
        """Add a masked update, which can be let go afterwards.

        Raises:
            SumError: It is not of the sum's form, or the client's was added before.
        """
        if client in self.weights:
            raise SumError("its update was added before")
        if update.keys() != self._total.keys():
            raise SumError("other array names than the global model's")
        for name, words in update.items():
            if (words.shape, words.dtype) != (self._total[name].shape, np.dtype(np.uint32)):
                raise SumError(f"{name}: expected uint32 of the global model's shape")
        for name, words in update.items():
            np.add(self._total[name], words, out=self._total[name])
        self.weights[client] = weight

    @property
    def survivors(self) -> tuple[str, ...]:
        """Clients whose updates were added, sorted."""
        return tuple(sorted(self.weights))

    def unmask(self, how: Unmasking, released: Mapping[str, Released]) -> None:
        """Take off the masks of all clients, and of the pairs that did not cancel.

        Args:
            how: Of the round.
            released: Answers to `unmask`, by client.

        Raises:
            SumError: There are too few shares of a secret, or wrong ones.
        """
        masks = [*self._self_masks(how, released), *self._left_over(how, released)]
        for words in self._total.values():
            apply_all(masks, words)

    def decode(self, ring: Ring) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
        """(name, sum_k n_k d_k) of each tensor, without masks, one in float64 at a time.

        Raises:
            SumError: No updates within the bound have this sum.
        """
        weights = sum(self.weights.values())
        for name, words in self._total.items():
            yield name, ring.decode(words, len(self.weights), weights, name)

    def _self_masks(self, how: Unmasking, released: Mapping[str, Released]) -> Iterable[Keystream]:
        for client in self.survivors:
            shares = {
                peer: r.self_seeds[client] for peer, r in released.items() if client in r.self_seeds
            }
            seed = _restored(how.roster, client, shares)
            if commitment_of(seed) != how.dealt[client].commitment:
                raise SumError(f"shares of the mask of {client} are wrong: {LIAR}")
            yield self_mask(seed, how.script, is_subtracted=True)

    def _left_over(self, how: Unmasking, released: Mapping[str, Released]) -> Iterable[Keystream]:
        """The masks that survivors share with members whose update did not come."""
        for client in how.members:
            if client in self.weights:
                continue
            shares = {
                peer: r.mask_keys[client] for peer, r in released.items() if client in r.mask_keys
            }
            key = X25519PrivateKey.from_private_bytes(_restored(how.roster, client, shares))
            if key.public_key().public_bytes_raw().hex() != how.roster.of_client(client).mask_key:
                raise SumError(f"shares of the key of {client} are wrong: {LIAR}")
            for peer in self.survivors:  # what `client` itself would have added
                theirs = bytes.fromhex(how.roster.of_client(peer).mask_key)
                yield pair_mask(key, (client, peer), theirs, how.script)


def _restored(roster: Roster, client: str, shares: Mapping[str, str]) -> bytes:
    by_place = {roster.place(peer): bytes.fromhex(share) for peer, share in shares.items()}
    try:
        return combine(by_place, roster.threshold)
    except SumError as error:
        raise SumError(f"secrets of {client}: {error}") from None
