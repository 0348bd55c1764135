"""Agreement on whose updates are added: each survivor signs the set, and shares need t signatures.

Round 3 of Bonawitz et al. 2017 (figure 4). Without it a coordinator tells every node other
survivors: each honest node gives shares of the mask keys of a few that it was told were lost, and
with many nodes' shares the updates of most clients are taken out of the sum. An honest node signs
one set in a session. Two sets with t signatures each would need 2 t <= (n - c) + 2 c, which no c
below n / 3 reaches (see `roster`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import LABEL
from fl_ppseg.secure_sum.node import Seat
from fl_ppseg.secure_sum.roster import Roster, Session


@dataclass(frozen=True)
class Sets:
    """Who was asked for updates in a session, and whose came."""

    members: tuple[str, ...]
    """Sorted."""
    survivors: tuple[str, ...]
    """Sorted; each of them a member."""

    def check(self, roster: Roster, least: int, client: str) -> None:
        """Check that the sets are possible, and large enough.

        Args:
            roster: Of the session.
            least: Fewest clients that the owner consented to.
            client: The node that checks: one of the survivors.

        Raises:
            SumError: They are not.
        """
        roster.check_members(self.members, least, "members")
        roster.check_members(self.survivors, least, "survivors")
        if not {*self.survivors} <= {*self.members}:
            raise SumError("survivors: expected members of this session alone")
        if client not in self.survivors:
            raise SumError("survivors: this node is not among them")

    def signed(self, roster: Roster, session: Session) -> bytes:
        """The bytes that a survivor signs."""
        content = json.dumps([self.members, self.survivors]).encode()
        return LABEL + b"survivors\0" + roster.digest(session) + content


def confirm(seat: Seat, sets: Sets) -> str:
    """This node's signature of the sets, in hex."""
    return seat.secret.sign(sets.signed(seat.roster, seat.session))


def check_confirmations(
    seat: Seat, sets: Sets, keys: Mapping[str, str], signatures: Mapping[str, str]
) -> None:
    """Check that enough survivors have signed these sets and can sign no others.

    Args:
        seat: Of the node that is asked for shares.
        sets: Which it signed itself.
        keys: Cohort keys that the owner consented to, by client.
        signatures: Of `confirm`, by client; others' and wrong ones do not count.

    Raises:
        SumError: Fewer than the threshold have.
    """
    content = sets.signed(seat.roster, seat.session)
    good = sum(
        _is_signed(content, signatures[client], keys.get(client, ""))
        for client in sets.survivors
        if client in signatures
    )
    if good < seat.roster.threshold:
        raise SumError(
            f"survivors: expected the signatures of at least {seat.roster.threshold} of them for "
            f"this set, got {good}"
        )


def _is_signed(content: bytes, signature: str, key: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(signature), content
        )
    except (InvalidSignature, ValueError):
        return False
    return True
