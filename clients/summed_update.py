"""A node's side of secure aggregation: requests checked against the policy, then answered.

What must have one answer for ever is pledged before it is answered (`clients.policy.pledges`).
Between the messages of a round nothing else is kept.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from clients.policy.cohort_key import read_cohort_key
from clients.policy.node_policy import CohortPolicy, NodePolicy, RefusedError, run_of
from clients.policy.pledges import Pledge, check_pledged, pledge, read_salt
from fl_ppseg.federation.message_content import Request
from fl_ppseg.learning.reach import largest_of, update_bound
from fl_ppseg.secure_sum.confirmation import check_confirmations, confirm
from fl_ppseg.secure_sum.contents import (
    ConfirmContent,
    Confirmed,
    ShareContent,
    TrainContent,
    UnmaskContent,
    parse,
)
from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import transcript
from fl_ppseg.secure_sum.node import Masking, Seat, advertise, deal, mask, unmask
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.secure_sum.roster import Roster, Session, check_roster
from fl_ppseg.system.arrays import Arrays, hash_of

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A node in a session: who it is, and what its owner agreed to."""

    request: Request
    policy: NodePolicy
    state: Path
    num_images: int
    """Images that it trains on."""

    @property
    def cohort(self) -> CohortPolicy:
        """With whom the updates may be added up; `permit` has checked that there is one."""
        assert self.policy.cohort is not None
        return self.policy.cohort

    @property
    def session(self) -> Session:
        """As the request names it."""
        asked = self.request
        assert asked.sum is not None
        return Session(asked.run_id, asked.arm, asked.seed, asked.round, asked.sum.attempt)

    @property
    def content(self) -> str:
        """What the step says."""
        assert self.request.sum is not None
        return self.request.sum.content

    def secret(self) -> NodeSecret:
        """The node's secret, read anew for each message."""
        return read_cohort_key(self.cohort.key).salted(read_salt(self.state))

    def seat(self, roster: Roster) -> Seat:
        """The node's seat in a roster, which is checked.

        Raises:
            SumError: The roster is not one that the owner agreed to.
        """
        secret, client = self.secret(), self.policy.client
        own = advertise(secret, client, self.session, self.num_images)
        check_roster(roster, self.session, self.cohort.keys, own, self.cohort.least)
        return Seat(secret, client, self.session, roster)

    def pledge_of_roster(self, roster: Roster) -> Pledge:
        """What the node binds itself to when it deals shares."""
        return self.pledge("share", roster.digest(self.session).hex())

    def pledge_of_clients(self, step: str, clients: tuple[str, ...]) -> Pledge:
        """What the node binds itself to as `members` of a session, or `survivors` of a round."""
        return self.pledge(step, hashlib.sha256(json.dumps(clients).encode()).hexdigest())

    def pledge(self, step: str, answer: str) -> Pledge:
        """What the node binds itself to in a step."""
        asked = self.request
        return Pledge.model_validate(
            {
                "run": run_of(self.policy, asked.arm),
                "arm": asked.arm,
                "seed": asked.seed,
                "round": asked.round,
                "step": step,
                "session": None if step == "survivors" else self.session.digest.hex(),
                "answer": answer,
            }
        )


@dataclass(frozen=True)
class SummedUpdate:
    """How an update is masked, checked before the node trains."""

    place: Place
    seat: Seat
    ring: Ring
    masking: Masking
    by_examples: bool

    def mask(self, arrays: Arrays, num_examples: int) -> Arrays:
        """Quantise and mask an update, once for all.

        Args:
            arrays: The weights after the local update.
            num_examples: Images that were trained on; 0: nothing was learnt, and zeros are sent.

        Raises:
            RefusedError: Another update of this session was masked before.
            SumError: It is not finite.
        """
        start = self.place.request.arrays
        weight = num_examples if self.by_examples else min(1, num_examples)
        words = {
            name: self.ring.quantise(value.astype(np.float64) - start[name], weight)
            for name, value in arrays.items()
        }
        answer = hashlib.sha256(self.masking.script + bytes.fromhex(hash_of(words)))
        place = self.place
        pledge(place.state, place.pledge_of_clients("members", self.masking.members))
        pledge(place.state, place.pledge("train", answer.hexdigest()))
        return mask(self.seat, self.masking, words)


def open_summed_update(place: Place) -> SummedUpdate:
    """Check a request to train whose update is to be masked.

    Raises:
        RefusedError: The owner did not agree to it, or it does not go on from the steps before.
    """
    return _refusing(lambda: _summed_update(place))


def answer_step(place: Place) -> str:
    """Answer a step before or after training.

    Raises:
        RefusedError: As `open_summed_update`.
    """
    return _refusing(lambda: _STEPS[place.request.task](place))


def _refusing(answer: Callable[[], T]) -> T:
    try:
        return answer()
    except SumError as error:
        raise RefusedError(f"refused: {error}") from None


def _advertise(place: Place) -> str:
    advert = advertise(place.secret(), place.policy.client, place.session, place.num_images)
    return advert.model_dump_json()


def _share(place: Place) -> str:
    roster = parse(ShareContent, place.content).roster
    seat = place.seat(roster)
    pledge(place.state, place.pledge_of_roster(roster))
    return deal(seat).model_dump_json()


def _summed_update(place: Place) -> SummedUpdate:
    content = parse(TrainContent, place.content)
    roster, asked = content.roster, place.request
    seat = place.seat(roster)
    check_pledged(place.state, place.pledge_of_roster(roster))
    roster.check_members(content.members, place.cohort.least, "members")
    if place.policy.client not in content.members:
        raise SumError("members: this node is not among them")
    by_examples = content.weighting == "examples"
    ring = Ring(
        _bound(place, roster), len(roster.adverts), roster.most_examples if by_examples else 1
    )
    if ring.exponent != content.exponent:
        raise SumError(
            f"expected a step of 2^{ring.exponent} by the agreed training, got 2^{content.exponent}"
        )
    script = transcript(
        roster.digest(place.session),
        content.members,
        hash_of(asked.arrays),
        ring.exponent,
        content.weighting,
    )
    return SummedUpdate(place, seat, ring, Masking(content.members, script), by_examples)


def _bound(place: Place, roster: Roster) -> float:
    """The most that the agreed training moves a weight of the request."""
    if place.cohort.bound is not None:
        return place.cohort.bound
    training = place.policy.arms[place.request.arm].training
    found = update_bound(training, roster.most_examples, largest_of(place.request.arrays))
    if found is None:
        raise SumError("the agreed training has no bound on what it moves a weight")
    return found


def _confirm(place: Place) -> str:
    content = parse(ConfirmContent, place.content)
    seat = _seat_after_training(place, content)
    pledge(place.state, place.pledge_of_clients("survivors", content.survivors))
    return Confirmed(signature=confirm(seat, content.sets)).model_dump_json()


def _unmask(place: Place) -> str:
    content = parse(UnmaskContent, place.content)
    seat = _seat_after_training(place, content)
    check_pledged(place.state, place.pledge_of_clients("survivors", content.survivors))
    check_confirmations(seat, content.sets, place.cohort.keys, content.signatures)
    return unmask(seat, content.survivors, content.shares).model_dump_json()


def _seat_after_training(place: Place, content: ConfirmContent) -> Seat:
    """The seat of a node that has masked an update for these members."""
    seat = place.seat(content.roster)
    check_pledged(place.state, place.pledge_of_roster(content.roster))
    check_pledged(place.state, place.pledge_of_clients("members", content.members))
    content.sets.check(content.roster, place.cohort.least, place.policy.client)
    return seat


_STEPS: Final[Mapping[str, Callable[[Place], str]]] = {
    "advertise": _advertise,
    "share": _share,
    "confirm": _confirm,
    "unmask": _unmask,
}
