"""The roster of a round: who takes part, with which keys, signed by each client's cohort key.

A client's cohort key is an Ed25519 key (RFC 8032) that its owner made; the other owners consented
to its public half. A signature covers run, arm, seed, round and attempt: an advertisement is of no
use anywhere else, and a coordinator can neither make up clients nor swap their keys.

The threshold t of the shares is the least whole number from 2/3 of the roster's n on. An honest
node gives one share of one kind for each peer and round; the owners of c nodes that work with the
coordinator may give both. Both secrets of a client then need 2 t <= (n - c) + 2 c, and with 2 t >=
4 n / 3 no c below n / 3 is enough. The same count makes the survivors of a session one set
(`confirmation`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, model_validator

from fl_ppseg.config.names import ClientName
from fl_ppseg.config.section import Section
from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import LABEL

MAX_CLIENTS: Final = 10_000
MAX_EXAMPLES: Final = 2**24
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A public key of 32 bytes, in hex."""
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
"""Of Ed25519, in hex."""


@dataclass(frozen=True)
class Session:
    """One attempt at one round, as the coordinator names it."""

    run_id: str
    arm: str
    seed: int
    round: int
    attempt: int

    @property
    def digest(self) -> bytes:
        """32 bytes that no other session has."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.sha256(LABEL + b"session\0" + content).digest()


class Advert(Section):
    """The keys of one client in one session."""

    client: ClientName
    num_examples: Annotated[int, Field(ge=0, le=MAX_EXAMPLES, strict=True)]
    """Images that it trains on: largest weight of its update."""
    mask_key: Key
    """X25519: masks are agreed on with it."""
    share_key: Key
    """X25519: shares are sealed with it."""
    signature: Signature
    """Ed25519, by the client's cohort key."""

    def signed(self, session: Session) -> bytes:
        """The bytes that are signed."""
        return signed_bytes(session, self.client, self.num_examples, self.mask_key, self.share_key)


def signed_bytes(
    session: Session, client: str, num_examples: int, mask_key: str, share_key: str
) -> bytes:
    """The bytes that an advertisement signs."""
    content = json.dumps([client, num_examples, mask_key, share_key]).encode()
    return LABEL + b"advert\0" + session.digest + content


class Roster(Section):
    """The clients of a round, sorted by name."""

    adverts: Annotated[tuple[Advert, ...], Field(min_length=1, max_length=MAX_CLIENTS)]

    @model_validator(mode="after")
    def _sorted_and_distinct(self) -> Self:
        names = [advert.client for advert in self.adverts]
        if names != sorted({*names}):
            raise ValueError("expected distinct clients, sorted by name")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The clients, sorted."""
        return tuple(advert.client for advert in self.adverts)

    @property
    def threshold(self) -> int:
        """t, shares that restore a secret; see the head of this file."""
        return -(-2 * len(self.adverts) // 3)

    @property
    def most_examples(self) -> int:
        """Images of the largest client."""
        return max(advert.num_examples for advert in self.adverts)

    def place(self, client: str) -> int:
        """The place of a client's shares, from 1."""
        return self.names.index(client) + 1

    def of_client(self, client: str) -> Advert:
        """The advertisement of a client."""
        return self.adverts[self.names.index(client)]

    def digest(self, session: Session) -> bytes:
        """32 bytes that name the roster and its session."""
        content = self.model_dump_json().encode()
        return hashlib.sha256(LABEL + b"roster\0" + session.digest + content).digest()

    def check_members(self, members: tuple[str, ...], least: int, what: str) -> None:
        """Check that clients are of the roster, and enough to hide each of them.

        Raises:
            SumError: They are not.
        """
        if list(members) != sorted({*members}) or not {*members} <= {*self.names}:
            raise SumError(f"{what}: expected distinct clients of the roster, sorted by name")
        fewest = max(least, self.threshold)
        if len(members) < fewest:
            raise SumError(
                f"{what}: expected at least {fewest} of the {len(self.names)} clients of the "
                f"roster, got {len(members)}"
            )


def check_roster(
    roster: Roster, session: Session, keys: Mapping[str, str], own: Advert, least: int
) -> None:
    """Check a roster as a node must before it trusts its keys.

    Args:
        roster: As the coordinator sent it.
        session: The round.
        keys: Cohort keys that the owner consented to, by client.
        own: This node's advertisement.
        least: Fewest clients that the owner consented to.

    Raises:
        SumError: A client is unknown or not signed for, this node is not in it, or it is too small.
    """
    if len(roster.adverts) < max(least, 2):
        raise SumError(
            f"expected a cohort of at least {max(least, 2)} clients, got {len(roster.adverts)}"
        )
    for advert in roster.adverts:
        if advert.client not in keys:
            raise SumError(f"{advert.client} is not in the cohort that the owner consented to")
        check_signature(advert, session, keys[advert.client])
    if own.client not in roster.names or roster.of_client(own.client) != own:
        raise SumError("the roster does not hold this node's own keys")


def check_signature(advert: Advert, session: Session, key: str) -> None:
    """Check that an advertisement is signed by a cohort key, for this session.

    Raises:
        SumError: It is not.
    """
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(advert.signature), advert.signed(session))
    except (InvalidSignature, ValueError):
        raise SumError(f"the keys of {advert.client} are not signed by its cohort key") from None
