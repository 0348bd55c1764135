"""Steps of a round on a node: pure functions of its secret and of what it was sent.

What they are given was checked before: the roster by `check_roster`, and by the node's record that
it has answered no other roster in this session, no other update, and no other survivors in this
round (`clients.policy.pledges`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from pydantic import Field

from fl_ppseg.config.names import ClientName
from fl_ppseg.config.section import Section
from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import LABEL, agree, apply_all, pair_mask, self_mask
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.secure_sum.ring import Words
from fl_ppseg.secure_sum.roster import Advert, Roster, Session, signed_bytes
from fl_ppseg.secure_sum.shares import COEFFICIENT_BYTES, SHARE_BYTES, split

_TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)
"""One key seals one text: the key is of this roster and this direction, the text is derived."""
Sealed = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * (2 * SHARE_BYTES + _TAG_BYTES)}}}$")]
"""Two shares of one client for another, in hex."""
Share = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * SHARE_BYTES}}}$")]


@dataclass(frozen=True)
class Seat:
    """A node's place in a session."""

    secret: NodeSecret
    client: str
    session: Session
    roster: Roster

    @property
    def _digest(self) -> bytes:
        return self.roster.digest(self.session)

    def _shares(self) -> tuple[list[bytes], list[bytes]]:
        """The shares of mask key and self seed, in the order of the roster."""
        threshold, size = self.roster.threshold, len(self.roster.adverts)
        num_bytes = COEFFICIENT_BYTES * (threshold - 1)
        mask, own = self.secret.mask_key(self.session), self.secret.self_seed(self._digest)

        def of(secret: bytes, label: str) -> list[bytes]:
            random = self.secret.coefficients(self._digest, label, num_bytes)
            return split(secret, random, threshold, range(1, size + 1))

        return of(mask.private_bytes_raw(), "mask key"), of(own, "self seed")

    def _box(self, sender: str, receiver: str) -> ChaCha20Poly1305:
        peer = receiver if sender == self.client else sender
        key = bytes.fromhex(self.roster.of_client(peer).share_key)
        label = "box/" + json.dumps([sender, receiver])
        own: X25519PrivateKey = self.secret.share_key(self.session)
        return ChaCha20Poly1305(agree(own, key, self._digest, label))


class Dealt(Section):
    """A node's answer to `share`."""

    commitment: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash of the self seed: wrong shares are noticed."""
    shares: Annotated[dict[ClientName, Sealed], Field(repr=False)]
    """By the client that can open them."""


class Released(Section):
    """A node's answer to `unmask`: of each peer one share, of one of its two secrets."""

    self_seeds: Annotated[dict[ClientName, Share], Field(repr=False)]
    """Of clients whose update was added."""
    mask_keys: Annotated[dict[ClientName, Share], Field(repr=False)]
    """Of clients whose update was not."""


@dataclass(frozen=True)
class Masking:
    """What the masks of an update depend on, beside the seat."""

    members: tuple[str, ...]
    """Clients whose updates are asked for, this one among them."""
    script: bytes = field(repr=False)
    """Of `masks.transcript`."""


def advertise(secret: NodeSecret, client: str, session: Session, num_examples: int) -> Advert:
    """This node's keys in a session, signed."""
    mask = secret.mask_key(session).public_key().public_bytes_raw().hex()
    share = secret.share_key(session).public_key().public_bytes_raw().hex()
    signature = secret.sign(signed_bytes(session, client, num_examples, mask, share))
    return Advert(
        client=client,
        num_examples=num_examples,
        mask_key=mask,
        share_key=share,
        signature=signature,
    )


def deal(seat: Seat) -> Dealt:
    """The shares of this node's two secrets, sealed for each peer.

    Raises:
        SumError: A peer's key is of no use.
    """
    pairs = zip(seat.roster.names, *seat._shares(), strict=True)
    sealed = {
        peer: seat._box(seat.client, peer).encrypt(_NONCE, mask + own, None).hex()
        for peer, mask, own in pairs
        if peer != seat.client
    }
    return Dealt(commitment=commitment_of(seat.secret.self_seed(seat._digest)), shares=sealed)


def mask(seat: Seat, masking: Masking, update: Mapping[str, Words]) -> dict[str, Words]:
    """Mask an update in place, one tensor after the other in the order of their names.

    Args:
        seat: The node's.
        masking: Members and transcript.
        update: Elements of the ring by name.

    Raises:
        SumError: A peer's key is of no use.
    """
    key = seat.secret.mask_key(seat.session)
    masks = [self_mask(seat.secret.self_seed(seat._digest), masking.script)]
    for peer in masking.members:
        if peer != seat.client:
            theirs = bytes.fromhex(seat.roster.of_client(peer).mask_key)
            masks.append(pair_mask(key, (seat.client, peer), theirs, masking.script))
    masked = {name: np.asarray(update[name], order="C") for name in sorted(update)}
    for words in masked.values():
        apply_all(masks, words)
    return masked


def unmask(seat: Seat, survivors: tuple[str, ...], sealed: Mapping[str, str]) -> Released:
    """One share of each peer: of its self seed if its update was added, else of its mask key.

    Shares that do not open are left out: their client has harmed itself alone.

    Args:
        seat: The node's.
        survivors: Clients whose updates were added, this one among them.
        sealed: What the peers sealed for this node, by peer.

    Raises:
        SumError: A client is not of the roster.
    """
    if not {*sealed} <= {*seat.roster.names} - {seat.client}:
        raise SumError("expected shares of the other clients of the roster")
    place = seat.roster.place(seat.client) - 1
    self_seeds, mask_keys = {seat.client: seat._shares()[1][place].hex()}, dict[str, str]()
    for peer, box in sealed.items():
        try:
            opened = seat._box(peer, seat.client).decrypt(_NONCE, bytes.fromhex(box), None)
        except InvalidTag:
            continue
        if peer in survivors:
            self_seeds[peer] = opened[SHARE_BYTES:].hex()
        else:
            mask_keys[peer] = opened[:SHARE_BYTES].hex()
    return Released(self_seeds=self_seeds, mask_keys=mask_keys)


def commitment_of(seed: bytes) -> str:
    """What a node says of its self seed in advance, in hex."""
    return hashlib.sha256(LABEL + b"commitment\0" + seed).hexdigest()
