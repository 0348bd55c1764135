"""The strategies of one arm and seed: Flower's loop, our rounds.

Flower's `Strategy.start` runs the rounds; the hooks below choose the cities, fold replies into a
streaming mean as they come, and write results and a checkpoint each round.
"""

import logging
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_ppseg.config import FederationConfig
from fl_ppseg.errors import RunError
from fl_ppseg.messages import Arrays, Request, pack_arrays, unpack_arrays
from fl_ppseg.progress import RunObserver
from fl_ppseg.run_folder import OF_CITY, Checkpoint, Line, RunFolder
from fl_ppseg.setr.names import withheld
from strategies.aggregation import StreamingMean, check_update
from strategies.exchange import Ask, RoundLog, collect, requests
from strategies.roster import Member, Roster
from strategies.server_optimizer import ServerOptimizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmRun:
    """One arm and seed of an experiment, as the server sees it."""

    request: Request
    """What every request of this arm has in common; round, task and arrays are filled in."""
    federation: FederationConfig
    roster: Roster
    trainers: tuple[Member, ...]
    """The nodes that train in this arm; all are scored. A centralised arm has one, which trains on
    the images of all."""
    description: Mapping[str, Any]
    """What its checkpoints say of the model."""


class CityStrategy(Strategy):
    """Federated rounds over cities with streaming, order-independent aggregation."""

    def __init__(
        self, run: ArmRun, folder: RunFolder, observer: RunObserver, resumed: Checkpoint | None
    ) -> None:
        self.run = run
        self._folder = folder
        self._observer = observer
        self._first_round = resumed.round if resumed else 0
        self._optimizer = ServerOptimizer(run.federation)
        if resumed:
            self._optimizer.state = {name: dict(a) for name, a in resumed.optimizer.items()}
        self.weights: Arrays = {}
        self.log = RoundLog(run.request, 0, observer)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to the cities that the seed draws for this round."""
        self.log = RoundLog(self.run.request, self._first_round + server_round, self._observer)
        self._observer.round_started(self.log.round)
        self.receive(unpack_arrays(arrays))
        asks = [Ask(member, self.weights_for(member)) for member in self._drawn()]
        return requests("train", self.log, asks, self.run.federation.round_timeout)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies into the mean and apply the server's step.

        Raises:
            RunError: If fewer good replies came than the config asks for.
        """
        self.fold(replies)
        return pack_arrays(self.weights), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to all cities, in the rounds that are evaluated."""
        asks = self.evaluations() if self._is_evaluated() else []
        return requests("evaluate", self.log, asks, self.run.federation.round_timeout)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Write the round's results and its checkpoint.

        Raises:
            RunError: If the arm ends and none of its last rounds has scores.
        """
        for ask, reply in collect(replies, self.log, ()):
            self.log.accept(ask, reply)
        scores = self.log.scores()
        lines = self.log.finished()
        self._check_scored(lines)
        self._folder.append(lines)
        self._folder.save(self.checkpoint(), self.run.federation.keep_checkpoints)
        self._observer.round_finished(self.log.round, self.log.train_loss, scores)
        return None

    def summary(self) -> None:
        """Log what is run."""
        logger.info("arm %s, seed %d", self.run.request.arm, self.run.request.seed)

    # What another kind of training does otherwise.

    def receive(self, arrays: Arrays) -> None:
        """Take over the global weights that Flower's loop carries."""
        self.weights = arrays

    def weights_for(self, member: Member) -> Arrays:
        """The weights that a city starts its local update from."""
        return self.weights

    def fold(self, replies: Iterable[Message]) -> None:
        """Take the local updates of a round, one reply in memory at a time."""
        kept = withheld(self.run.request.embedding)
        travelling = {name: value for name, value in self.weights.items() if name not in kept}
        mean = StreamingMean(travelling)
        for ask, reply in collect(replies, self.log, travelling):
            try:
                mean.add(reply.arrays, reply.num_examples)
            except ValueError as error:
                self.log.reject(ask.member.city, str(error))
                continue
            self.log.accept(ask, reply)
        self._check_quorum()
        self.weights = self.weights | self._optimizer.apply(travelling, mean.result())

    def evaluations(self) -> list[Ask]:
        """Who scores which weights: every city its own images, whoever trained on them."""
        return [Ask(member, self.weights) for member in self.run.roster.members]

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on after this round."""
        return Checkpoint(self.log.round, self.weights, self._optimizer.state, self.run.description)

    def _drawn(self) -> list[Member]:
        """The training cities of a round: a draw from the sorted names by seed and round."""
        members = self.run.trainers
        number = max(1, round(self.run.federation.fraction_train * len(members)))
        generator = random.Random(f"{self.run.request.seed}/{self.log.round}")
        return sorted(generator.sample(members, number), key=lambda member: member.city)

    def _is_evaluated(self) -> bool:
        federation = self.run.federation
        left = federation.num_rounds - self.log.round
        return left < federation.last_rounds or self.log.round % federation.evaluate_every == 0

    def _check_quorum(self) -> None:
        wanted = max(1, math.ceil(self.run.federation.min_replies * self.log.num_asked))
        if self.log.num_trained < wanted:
            raise RunError(
                f"arm {self.run.request.arm}, round {self.log.round}: {self.log.num_trained} of "
                f"{self.log.num_asked} cities gave a good update, wanted {wanted} "
                f"({self.log.why()})"
            )

    def _check_scored(self, lines: list[Line]) -> None:
        """Before its last round is written down, so that a resumed run tries this round again."""
        federation, request = self.run.federation, self.run.request
        if self.log.round < federation.num_rounds:
            return
        first = federation.num_rounds - federation.last_rounds + 1
        if not any(
            (line["arm"], line["seed"], line["role"]) == (request.arm, request.seed, "val")
            and line["round"] >= first
            and line["confusion"] is not None
            for line in [*lines, *self._folder.lines()]
        ):
            raise RunError(
                f"arm {request.arm}: none of the last {federation.last_rounds} rounds has scores "
                f"of all val cities ({self.log.why()})"
            )


class LocalOnlyStrategy(CityStrategy):
    """Every city trains alone; each model is scored at home and in all val cities.

    Holds the weights of all cities: O(n) memory.
    """

    def receive(self, arrays: Arrays) -> None:
        """Give every city the initial weights in round 1; later each has its own."""
        self.weights = arrays
        if not self.checkpoint().is_per_city:
            self.weights = {
                f"{member.city}{OF_CITY}{name}": value
                for member in self.run.trainers
                for name, value in arrays.items()
            }

    def weights_for(self, member: Member) -> Arrays:
        """The city's own weights."""
        start = f"{member.city}{OF_CITY}"
        return {k.removeprefix(start): v for k, v in self.weights.items() if k.startswith(start)}

    def fold(self, replies: Iterable[Message]) -> None:
        """Keep each city's weights; a city whose reply is bad keeps those it had."""
        kept = withheld(self.run.request.embedding)
        allowed = self.weights_for(self.run.trainers[0]).keys() - kept
        for ask, reply in collect(replies, self.log, allowed):
            own = {name: ask.arrays[name] for name in allowed}
            try:
                check_update(reply.arrays, reply.num_examples, own)
            except ValueError as error:
                self.log.reject(ask.member.city, str(error))
                continue
            start = f"{ask.member.city}{OF_CITY}"
            self.weights |= {f"{start}{name}": value for name, value in reply.arrays.items()}
            self.log.accept(ask, reply)
        self._check_quorum()

    def evaluations(self) -> list[Ask]:
        """Each city's model at home and in every val city."""
        trainers, val = self.run.trainers, self.run.roster.with_role("val")
        weights = {member.city: self.weights_for(member) for member in trainers}
        at_home = [Ask(member, weights[member.city], member.city) for member in trainers]
        away = [Ask(member, weights[city], city) for member in val for city in weights]
        return at_home + away
