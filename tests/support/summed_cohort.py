"""A cohort of nodes and a coordinator in one process: the whole protocol, with tiny tensors."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from fl_ppseg.secure_sum.confirmation import Sets, check_confirmations, confirm
from fl_ppseg.secure_sum.masks import transcript
from fl_ppseg.secure_sum.node import Masking, Seat, advertise, deal, mask, unmask
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.secure_sum.roster import Advert, Roster, Session, check_roster
from fl_ppseg.secure_sum.running_sum import RunningSum, Unmasking

SESSION = Session(run_id="0123", arm="plain", seed=0, round=1, attempt=0)
SHAPES = {"bias": (3,), "scalar": (), "weight": (4, 5)}


def secret_of(number: int) -> NodeSecret:
    return NodeSecret(number.to_bytes(32, "big"))


@dataclass
class SummedCohort:
    """`size` nodes of 10, 11, … examples with random updates within the bound."""

    size: int
    least: int = 3
    bound: float = 0.5
    session: Session = SESSION
    secrets: dict[str, NodeSecret] = field(init=False)
    examples: dict[str, int] = field(init=False)
    updates: dict[str, dict[str, np.ndarray]] = field(init=False)

    def __post_init__(self) -> None:
        names = [f"city{n:03d}" for n in range(self.size)]
        self.secrets = {name: secret_of(n + 1) for n, name in enumerate(names)}
        self.examples = {name: 10 + n for n, name in enumerate(names)}
        generator = np.random.default_rng(7)
        self.updates = {
            name: {
                key: np.asarray(generator.uniform(-self.bound, self.bound, shape))
                for key, shape in SHAPES.items()
            }
            for name in names
        }

    @property
    def keys(self) -> dict[str, str]:
        return {name: secret.public_key for name, secret in self.secrets.items()}

    def adverts(self, without: Collection[str] = ()) -> list[Advert]:
        return [
            advertise(secret, name, self.session, self.examples[name])
            for name, secret in self.secrets.items()
            if name not in without
        ]

    def roster(self, without: Collection[str] = ()) -> Roster:
        return Roster(adverts=tuple(self.adverts(without)))

    def seat(self, name: str, roster: Roster) -> Seat:
        own = advertise(self.secrets[name], name, self.session, self.examples[name])
        check_roster(roster, self.session, self.keys, own, self.least)
        return Seat(self.secrets[name], name, self.session, roster)

    def ring(self, roster: Roster) -> Ring:
        return Ring(self.bound, len(roster.adverts), roster.most_examples)

    def script(self, roster: Roster, members: tuple[str, ...], weights: str) -> bytes:
        digest = roster.digest(self.session)
        return transcript(digest, members, weights, self.ring(roster).exponent, "examples")

    def masked(
        self, name: str, roster: Roster, members: tuple[str, ...], weights: str
    ) -> dict[str, np.ndarray]:
        ring, number = self.ring(roster), self.examples[name]
        update = {key: ring.quantise(v, number) for key, v in self.updates[name].items()}
        masking = Masking(members, self.script(roster, members, weights))
        return mask(self.seat(name, roster), masking, update)

    def run(
        self,
        lost: tuple[Collection[str], ...] = ((),) * 5,
        weights: Mapping[str, str] | None = None,
    ) -> tuple[RunningSum, Ring]:
        """A round in which clients are lost in each of its five steps; some got other weights."""
        roster = self.roster(without=lost[0])
        dealt = {n: deal(self.seat(n, roster)) for n in roster.names if n not in lost[1]}
        members = tuple(sorted(dealt))
        roster.check_members(members, self.least, "shares")
        total = RunningSum(SHAPES)
        for name in reversed(members):
            if name not in lost[2]:
                hashed = (weights or {}).get(name, "common")
                total.add(name, self.masked(name, roster, members, hashed), self.examples[name])
        roster.check_members(total.survivors, self.least, "updates")
        sets = Sets(members, total.survivors)
        signatures = {
            name: confirm(self.seat(name, roster), sets)
            for name in total.survivors
            if name not in lost[3]
        }
        released = {}
        for name in signatures.keys() - {*lost[4]}:
            seat = self.seat(name, roster)
            sets.check(roster, self.least, name)
            check_confirmations(seat, sets, self.keys, signatures)
            sealed = {peer: d.shares[name] for peer, d in dealt.items() if peer != name}
            released[name] = unmask(seat, total.survivors, sealed)
        total.unmask(Unmasking(roster, dealt, self.script(roster, members, "common")), released)
        return total, self.ring(roster)

    def expected(self, ring: Ring, clients: Collection[str]) -> dict[str, np.ndarray]:
        """The exact sum of what the clients quantised."""
        return {
            key: sum(
                np.rint(self.updates[name][key] * self.examples[name] / ring.step)
                for name in clients
            )
            * ring.step
            for key in SHAPES
        }
