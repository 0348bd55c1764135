"""Secure aggregation: rounds of which the coordinator learns the sum of the updates alone.

Around the training of a round come four short exchanges (`fl_ppseg.secure_sum`): keys, shares,
signatures of whose updates are added, and one share of each client to take the masks off the sum.
Clients may be lost in any of them, as long as the threshold of the roster is left.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from flwr.app import Message

from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.cohort_keys import load_cohort_keys
from fl_ppseg.federation.message_content import Reply, SumPart
from fl_ppseg.federation.roles import SumStep
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.reach import largest_of, update_bound
from fl_ppseg.progress.observer import Observer
from fl_ppseg.secure_sum.contents import (
    ConfirmContent,
    Confirmed,
    SectionT,
    ShareContent,
    TrainContent,
    UnmaskContent,
    Weighting,
    parse,
)
from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import transcript
from fl_ppseg.secure_sum.node import Dealt, Released
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.secure_sum.roster import Advert, Roster, Session, check_signature
from fl_ppseg.secure_sum.running_sum import RunningSum, Unmasking
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.arrays import Arrays, hash_of
from fl_ppseg.system.errors import RunError
from fl_ppseg.system.spans import span
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.federated import FederatedStrategy
from strategies.rounds.registry import Member
from strategies.rounds.tasks import Task


@dataclass(frozen=True)
class SumRound:
    """What the exchanges before training have agreed on."""

    attempt: int
    roster: Roster
    how: Unmasking
    ring: Ring
    sealed: dict[str, dict[str, str]] = field(repr=False)
    """Receiver -> sender -> its shares."""


class SummedStrategy(FederatedStrategy):
    """Federated rounds over masked updates."""

    _sum: SumRound

    def __init__(
        self, run: ArmRun, folder: RunFolder, observer: Observer, start: Checkpoint
    ) -> None:
        """Start from a checkpoint; with the run's public cohort keys, if it has them."""
        super().__init__(run, folder, observer, start)
        self._cohort = load_cohort_keys(folder.path)

    def trainings(self, drawn: Sequence[Member]) -> list[Task]:
        """Agree on keys and shares with the clients drawn; training tasks of those that did.

        Raises:
            RunError: Too few of them did, as often as a round is tried again.
        """
        before = self._as_before()
        drawn = drawn if before is None else before
        attempts = self.run.federation.max_retries + 1
        for attempt in range(attempts):
            try:
                self._sum = self._agree(drawn, attempt)
                break
            except RunError as error:
                if attempt + 1 == attempts:
                    raise
                self.log.notify(f"{error}; beginning the round again")
        part = SumPart(attempt, self._train_content())
        members = self.run.discovery.registry
        return [self.task(members.of_client(client), part) for client in self._sum.how.members]

    def fold(self, replies: Iterable[Message]) -> None:
        """Add the masked updates up, one in memory at a time, and take the masks off the sum."""
        kept = withheld(self.run.request.embedding)
        travelling = {name: value for name, value in self.weights.items() if name not in kept}
        total = RunningSum({name: value.shape for name, value in travelling.items()})

        def take(task: Task, reply: Reply) -> None:
            client = task.member.client
            self._check_examples(client, reply)
            total.add(client, reply.arrays, self._weight(reply.num_examples))
            if not reply.num_examples:
                self._warn_left_out(task)

        self.exchange.collect_updates(replies, travelling, take, self._fewest)
        if not sum(total.weights.values()):
            raise RunError(
                f"{self._where}: no client has a labelled pixel to train on; check their label "
                "maps and data.classes"
            )
        request = self.run.request
        self._folder.record_sum(request.arm, request.seed, self.log.round, total.survivors)
        released = self._release(total.survivors)
        whole = sum(total.weights.values())
        mean: Arrays = {}
        try:
            with span("aggregation"):
                total.unmask(self._sum.how, released)
                for name, summed in total.decode(self._sum.ring):
                    value = travelling[name]
                    mean[name] = np.asarray(value + summed / whole, dtype=value.dtype)
        except SumError as error:
            raise RunError(f"{self._where}: secure aggregation: {error}") from None
        self._warn_of_heavy_client({c: n for c, n in total.weights.items() if n}, 1.0)
        self.take_step(travelling, mean)

    @property
    def _where(self) -> str:
        return f"arm {self.run.request.arm}, round {self.log.round}"

    @property
    def _weighting(self) -> Weighting:
        return self.run.federation.weighting

    @property
    def _fewest(self) -> int:
        """Clients that each step after the first needs."""
        return max(self.run.federation.least_cohort, self._sum.roster.threshold)

    def _weight(self, num_examples: int) -> int:
        return num_examples if self._weighting == "examples" else min(1, num_examples)

    def _session(self, attempt: int) -> Session:
        request = self.run.request
        return Session(request.run_id, request.arm, request.seed, self.log.round, attempt)

    def _as_before(self) -> list[Member] | None:
        """Of a round that was being summed when an earlier start ended, the same clients, once
        their nodes are there; None of any other round.

        They are not drawn: another draw, of the nodes that are there today, may leave some out, and
        nodes agree to no other set.
        """
        request = self.run.request
        before = self._folder.clients_summed(request.arm, request.seed, self.log.round)
        if before is None:
            return None
        self.log.notify(f"was being summed over {len(before)} clients; asking the same again")
        for client in self.exchange.wait_for(before):
            self.log.reject(client, "its node did not come back to the round that it was added to")
        members = self.run.discovery.registry.with_role("train")
        return [member for member in members if member.client in before]

    def _agree(self, drawn: Sequence[Member], attempt: int) -> SumRound:
        least = self.run.federation.least_cohort
        asked = [Task(member, {}, sum=SumPart(attempt)) for member in drawn]
        adverts = self.exchange.ask(
            "advertise", asked, least, partial(self._advert, self._session(attempt))
        )
        roster = Roster(adverts=tuple(adverts[client] for client in sorted(adverts)))
        members = self.run.discovery.registry
        content = ShareContent(roster=roster).model_dump_json()
        fewest = max(least, roster.threshold)
        tasks = [
            Task(members.of_client(client), {}, sum=SumPart(attempt, content))
            for client in roster.names
        ]
        dealt = self.exchange.ask("share", tasks, fewest, partial(_dealt, roster))
        ring = self._ring(roster)
        script = transcript(
            roster.digest(self._session(attempt)),
            tuple(sorted(dealt)),
            hash_of(self.weights),
            ring.exponent,
            self._weighting,
        )
        sealed = {
            receiver: {
                sender: each.shares[receiver]
                for sender, each in dealt.items()
                if sender != receiver
            }
            for receiver in dealt
        }
        return SumRound(attempt, roster, Unmasking(roster, dealt, script), ring, sealed)

    def _advert(self, session: Session, client: str, reply: Reply) -> Advert:
        """A client's keys, which are checked."""
        advert = parse(Advert, reply.sum or "")
        if (advert.client, advert.num_examples) != (client, reply.num_examples):
            raise SumError("advertised keys of another client, or other examples")
        if self._cohort is not None:
            if client not in self._cohort:
                raise SumError(f"{client} is not among the cohort keys that the coordinator has")
            check_signature(advert, session, self._cohort[client])
        self.run.reported.check_training(self.run.request.arm, client, reply)
        return advert

    def _ring(self, roster: Roster) -> Ring:
        bound = self.run.federation.update_bound
        if bound is None:
            largest = largest_of(self.weights)
            bound = update_bound(self.run.request.training, roster.most_examples, largest)
        most = roster.most_examples if self._weighting == "examples" else 1
        try:
            return Ring(bound or 0.0, len(roster.adverts), most)
        except SumError as error:
            raise RunError(f"{self._where}: secure aggregation: {error}") from None

    def _train_content(self) -> str:
        return TrainContent(
            roster=self._sum.roster,
            members=self._sum.how.members,
            exponent=self._sum.ring.exponent,
            weighting=self._weighting,
        ).model_dump_json()

    def _check_examples(self, client: str, reply: Reply) -> None:
        said = self._sum.roster.of_client(client).num_examples
        self._num_examples[client] = said
        if reply.num_examples not in (0, said):
            raise SumError(
                f"expected {said} training images as advertised, got {reply.num_examples}"
            )

    def _release(self, survivors: tuple[str, ...]) -> dict[str, Released]:
        """One share of each survivor for each client; who answers badly counts as lost."""
        own = self._sum
        sets = ConfirmContent(roster=own.roster, members=own.how.members, survivors=survivors)
        text = sets.model_dump_json()
        confirmed = self._ask("confirm", dict.fromkeys(survivors, text), Confirmed)
        signatures = {client: each.signature for client, each in confirmed.items()}
        contents = {
            client: UnmaskContent(
                **dict(sets), signatures=signatures, shares=own.sealed[client]
            ).model_dump_json()
            for client in confirmed
        }
        return self._ask("unmask", contents, Released)

    def _ask(
        self, step: SumStep, contents: Mapping[str, str], kind: type[SectionT]
    ) -> dict[str, SectionT]:
        """The good answers to a step after training, by client."""
        members, attempt = self.run.discovery.registry, self._sum.attempt
        tasks = [
            Task(members.of_client(client), {}, sum=SumPart(attempt, content))
            for client, content in contents.items()
        ]
        return self.exchange.ask(step, tasks, self._fewest, partial(_parsed, kind))


def _parsed(kind: type[SectionT], client: str, reply: Reply) -> SectionT:
    return parse(kind, reply.sum or "")


def _dealt(roster: Roster, client: str, reply: Reply) -> Dealt:
    dealt = parse(Dealt, reply.sum or "")
    if set(dealt.shares) != {*roster.names} - {client}:
        raise SumError("expected shares for each other client of the roster")
    return dealt
