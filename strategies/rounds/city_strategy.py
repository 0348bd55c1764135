"""The strategies of one arm and seed: Flower's loop, our rounds.

Flower's `Strategy.start` runs the rounds; the hooks below choose the cities, fold replies into an
aggregate as they come, and write results and a checkpoint each round.
"""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.messages import pack_arrays, unpack_arrays
from fl_ppseg.federation.results import Line
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.privacy import epsilon
from fl_ppseg.progress.observer import RunObserver
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError
from strategies.aggregation.aggregators import aggregator_of
from strategies.aggregation.norms import NormRule
from strategies.aggregation.server_optimizer import ServerOptimizer
from strategies.aggregation.streaming_mean import capped, check_update
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.flower_metrics import flower_metrics, percentages
from strategies.rounds.gathering import Gathering
from strategies.rounds.roster import Member
from strategies.rounds.round_log import Ask, RoundLog, longest_first

logger = logging.getLogger(__name__)

FAR: Final = 10
"""So many times the median city's update is worth a line: honest ones had up to 3."""


class CityStrategy(Strategy):
    """Federated rounds over cities with order-independent aggregation."""

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
        self._norms = NormRule(run.federation, self._own_lines())
        self._num_examples = dict(run.num_examples)
        self._told: set[str] = set()
        self._lengths: dict[str, float] = {}
        self.gathering: Gathering

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to the cities that the seed draws for this round."""
        self.log = RoundLog(self.run.request, self._first_round + server_round, self._observer)
        self.gathering = Gathering(self.run, grid, self.log)
        self._lengths = {}
        self._observer.round_started(self.log.round)
        self.gathering.look()
        self.receive(unpack_arrays(arrays))
        asks = [Ask(member, self.weights_for(member)) for member in self._drawn()]
        return self.gathering.ask("train", longest_first(asks, self._num_examples))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies into the aggregate and apply the server's step.

        Returns:
            The weights, and for Flower the mean loss of the local updates.

        Raises:
            RunError: If fewer good replies came than the config asks for.
        """
        self.fold(replies)
        self._norms.end_round(self.log.update_norms.values())
        return pack_arrays(self.weights), flower_metrics({"train_loss": self.log.train_loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to all cities, in the rounds that are evaluated."""
        self.gathering.look()
        asks = self.evaluations() if self.run.federation.is_evaluated(self.log.round) else []
        return self.gathering.ask("evaluate", longest_first(asks, self._num_examples))

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Write the round's results and its checkpoint.

        Returns:
            For Flower the scores over the val cities, in percent.

        Raises:
            RunError: If the arm ends and none of its last rounds has scores.
        """
        self.gathering.score(replies)
        if self.run.federation.is_evaluated(self.log.round):
            self.log.check_scored(self.run.num_val)
        scores = self.log.scores()
        lines = self.log.finished()
        self._check_scored(lines)
        self._folder.append(lines)
        self._folder.save(self.checkpoint(), self.run.federation.keep_checkpoints)
        self._observer.round_finished(self.log.round, self.log.train_loss, scores)
        return flower_metrics(percentages(scores))

    def summary(self) -> None:
        """Log what is run."""
        logger.info("arm %s, seed %d", self.run.request.arm, self.run.request.seed)

    # What another kind of training does otherwise.

    def receive(self, arrays: Arrays) -> None:
        """Take over the global weights that Flower's loop carries."""
        self.weights = arrays

    def trainers(self) -> Sequence[Member]:
        """The nodes that train in this arm, by city."""
        members = self.run.roll.roster.with_role("train")
        return members[:1] if self.run.is_centralised else members

    def weights_for(self, member: Member) -> Arrays:
        """The weights that a city starts its local update from."""
        return self.weights

    def fold(self, replies: Iterable[Message]) -> None:
        """Take the local updates of a round, one reply in memory at a time."""
        federation = self.run.federation
        kept = withheld(self.run.request.embedding)
        travelling = {name: value for name, value in self.weights.items() if name not in kept}
        max_share = self._max_share()
        aggregator = aggregator_of(federation, travelling, self.log.num_asked, max_share)
        by_size = federation.weighting == "examples"
        weights: dict[str, int] = {}

        def take(ask: Ask, reply: Reply) -> None:
            if not reply.num_examples:
                self._leave_out(ask)
                return
            self.judge(ask, reply, travelling)
            weight = reply.num_examples if by_size else 1
            aggregator.add(reply.arrays, weight)
            weights[ask.member.city] = weight

        self.gathering.gather(replies, travelling, take)
        if not weights:
            raise RunError(
                f"arm {self.run.request.arm}, round {self.log.round}: no city has a labelled pixel "
                "to train on; look at their label maps and at data.classes"
            )
        self._say_who_weighs_most(weights, max_share)
        self._say_who_moves_most()
        self._note_release()
        self.weights = self.weights | self._optimizer.apply(travelling, aggregator.result())

    def evaluations(self) -> list[Ask]:
        """Who scores which weights: every city its own images, whoever trained on them."""
        return [Ask(member, self.weights) for member in self.run.roll.roster.members]

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on after this round."""
        return Checkpoint(self.log.round, self.weights, self._optimizer.state, self.run.description)

    # What all kinds of training share.

    def judge(self, ask: Ask, reply: Reply, start: Arrays) -> None:
        """Refuse an update that is not of the form of `start`, or moves too far from it.

        Raises:
            ValueError: With the reason.
        """
        check_update(reply.arrays, reply.num_examples, start)
        length = self._norms.measure(reply.arrays, start)
        self.run.claims.check_training(self.run.request.arm, ask.member.city, reply)
        self._lengths[ask.member.city] = length
        federation = self.run.federation
        if federation.privacy is None or federation.max_update_norm is not None:
            self.log.update_norms[ask.member.city] = length
        self._num_examples[ask.member.city] = reply.num_examples

    def _leave_out(self, ask: Ask) -> None:
        city = ask.member.city
        self._tell(f"{city}: no labelled pixel to train on; its weights do not count")

    def _max_share(self) -> float:
        """The most that a city is of a mean by examples; 1 where it cannot say what it likes."""
        federation = self.run.federation
        is_said = federation.weighting == "examples" and not self.run.claims.knows_sizes
        return federation.max_share if is_said and self.log.num_asked > 1 else 1.0

    def _say_who_weighs_most(self, weights: Mapping[str, int], max_share: float) -> None:
        """A line where one of several cities is more than half of a weighted mean."""
        city = max(sorted(weights), key=weights.__getitem__)
        rest = sum(weights.values()) - weights[city]
        is_weighted = self.run.federation.aggregation in ("mean", "norm-clipping")
        if not is_weighted or self.log.num_asked == 1 or weights[city] <= rest:
            return
        share = weights[city] / (weights[city] + rest)
        kept = capped(weights[city], rest, max_share)
        cut = f", cut to {kept / (kept + rest):.0%} (federation.max_share)" if rest else ""
        self._tell(
            f"{city} is {share:.0%} of the mean, {weights[city]} of {weights[city] + rest} images"
            + (cut if kept < weights[city] else "")
        )

    def _say_who_moves_most(self) -> None:
        """A line where a city moved the weights much further than the others."""
        lengths = self._lengths
        if len(lengths) < 3:
            return
        usual = median(lengths.values())
        for city in sorted(lengths):
            if lengths[city] > FAR * usual:
                self._tell(
                    f"{city} moved the weights more than {FAR} times as far as the median city; "
                    "see update_norm in results.jsonl, and federation.max_norm_ratio"
                )

    def _tell(self, line: str) -> None:
        """Say a line in the first round in which it is true."""
        if line not in self._told:
            self._told.add(line)
            logger.warning("arm %s, round %d: %s", self.run.request.arm, self.log.round, line)
            self.log.say(line)

    def _drawn(self) -> list[Member]:
        """The training cities of a round: a draw from the sorted names by seed and round."""
        members = self.trainers()
        number = self.run.federation.num_asked(len(members))
        generator = random.Random(f"{self.run.request.seed}/{self.log.round}")
        return generator.sample(members, number)

    def _note_release(self) -> None:
        """Count what privacy costs before the weights leave; a repeated round costs again."""
        privacy, request = self.run.federation.privacy, self.run.request
        if privacy is None:
            return
        num = self._folder.note_release(request.arm, request.seed, self.log.round)
        spent = epsilon(num, privacy.noise_multiplier, privacy.delta)
        self.log.about |= {"num_releases": num, "epsilon": spent, "delta": privacy.delta}
        self.log.say(f"privacy of a city: epsilon {spent:.3g} at delta {privacy.delta:g}")

    def _own_lines(self) -> list[Line]:
        mine = (self.run.request.arm, self.run.request.seed)
        return [line for line in self._folder.lines() if (line["arm"], line["seed"]) == mine]

    def _check_scored(self, lines: list[Line]) -> None:
        """Before its last round is written down, so that a resumed run tries this round again."""
        federation = self.run.federation
        if self.log.round < federation.num_rounds:
            return
        if not any(
            line["role"] == "val"
            and line["round"] >= federation.first_scored
            and line["confusion"] is not None
            for line in [*lines, *self._own_lines()]
        ):
            raise RunError(
                f"arm {self.run.request.arm}: none of the last {federation.last_rounds} rounds has "
                f"scores of all val cities ({self.log.why()})"
            )
