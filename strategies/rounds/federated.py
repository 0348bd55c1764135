"""The strategy of one arm and seed.

Flower's `Strategy.start` runs the rounds; the hooks below draw the clients, fold replies into an
aggregate as they come, and write results and a checkpoint each round.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fl_ppseg.codecs.tensors import CodecError
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.coded_weights import CodedWeights, moments_of
from fl_ppseg.federation.message_content import Reply, SumPart
from fl_ppseg.federation.results import Line
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.privacy import epsilon
from fl_ppseg.progress.events import Phase, RoundStarted
from fl_ppseg.progress.observer import Observer
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError
from fl_ppseg.system.memory import hand_back
from fl_ppseg.system.spans import span
from strategies.aggregation.aggregators import aggregator_of
from strategies.aggregation.norms import NormRule
from strategies.aggregation.server_optimizer import ServerOptimizer
from strategies.aggregation.streaming_mean import check_update
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.carried_weights import CarriedWeights
from strategies.rounds.draw import drawn
from strategies.rounds.exchange import Exchange
from strategies.rounds.flower_metrics import flower_metrics, percentages
from strategies.rounds.registry import Member
from strategies.rounds.round_log import RoundLog
from strategies.rounds.tasks import Task, longest_first
from strategies.rounds.update_warnings import heavy_client, long_updates

logger = logging.getLogger(__name__)


class FederatedStrategy(Strategy):
    """Federated rounds over clients with order-independent aggregation."""

    are_weights_common: ClassVar = True
    """All clients get the same weights: packed once a round, and carried by Flower's loop."""

    def __init__(
        self, run: ArmRun, folder: RunFolder, observer: Observer, start: Checkpoint
    ) -> None:
        """Start from a checkpoint; Flower's loop is given `packed`."""
        self.run = run
        self._folder = folder
        self._observer = observer
        self.first_round = start.round
        """The round of the checkpoint that training goes on from."""
        self._optimizer = ServerOptimizer(run.federation)
        self._optimizer.state = moments_of(start.optimizer)
        self._coded = CodedWeights(run.request.training, start)
        self.carried = CarriedWeights(self._coded, self.are_weights_common)
        self.weights = self.carried.put(dict(start.arrays))
        self.log = RoundLog(run.request, 0, observer)
        self._norms = NormRule(run.federation, self._own_lines())
        self._num_examples = dict(run.num_examples)
        self._warned: set[str] = set()
        self._lengths: dict[str, float] = {}
        self.exchange: Exchange

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to the clients that are drawn for this round."""
        self.log = RoundLog(self.run.request, self.first_round + server_round, self._observer)
        self.exchange = Exchange(self.run, grid, self.log)
        self._lengths = {}
        request = self.run.request
        self._observer.on_event(RoundStarted(request.arm, request.seed, self.log.round))
        self.exchange.poll_nodes()
        self.begin_round()
        return self._open_phase("train", self.trainings(self._drawn()), arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the replies into the aggregate and apply the server's step.

        Returns:
            The weights, and for Flower the mean loss of the local updates.

        Raises:
            RunError: If fewer good replies came than the quorum asks for.
        """
        self.fold(replies)
        hand_back()
        self._norms.end_round(self.log.update_norms.values())
        record = self.carried.record if self.are_weights_common else None
        return record, flower_metrics({"train_loss": self.log.train_loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to all clients, in the rounds that are evaluated."""
        self.exchange.poll_nodes()
        tasks = self.evaluations() if self.run.federation.is_evaluated(self.log.round) else []
        return self._open_phase("evaluate", tasks, arrays)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Write the round's results and its checkpoint.

        Returns:
            For Flower the scores over the val clients, in percent.

        Raises:
            RunError: If the arm ends and none of its last rounds has scores.
        """
        self.exchange.collect_scores(replies)
        if self.run.federation.is_evaluated(self.log.round):
            self.log.reject_unscored(self.run.num_val)
        with span("aggregation"):
            scores = self.log.scores()
            lines = self.log.result_lines()
            self._check_scored(lines)
            self._folder.append(lines)
            self._folder.save(self.checkpoint(), self.run.federation.keep_checkpoints)
        self._observer.on_event(self.log.finished())
        return flower_metrics(percentages(scores))

    def summary(self) -> None:
        """Log what is run."""
        logger.info("arm %s, seed %d", self.run.request.arm, self.run.request.seed)

    # Overridden by other kinds of training.

    def begin_round(self) -> None:
        """Called when the nodes of a round are known, before any of them is drawn."""

    def trainers(self) -> Sequence[Member]:
        """The nodes that train in this arm, by client."""
        members = self.run.discovery.registry.with_role("train")
        return members[:1] if self.run.is_centralised else members

    def trainings(self, drawn: Sequence[Member]) -> list[Task]:
        """Training tasks of the clients that are drawn for a round."""
        return [self.task(member) for member in drawn]

    def fold(self, replies: Iterable[Message]) -> None:
        """Aggregate the local updates of a round, one reply in memory at a time."""
        kept = withheld(self.run.request.embedding)
        travelling = {name: value for name, value in self.weights.items() if name not in kept}
        self.take_step(travelling, self._mean(replies, travelling))

    def _mean(self, replies: Iterable[Message], travelling: Arrays) -> Arrays:
        """The aggregate of the replies, whose memory it leaves when it returns."""
        federation = self.run.federation
        max_share = self._max_share()
        aggregator = aggregator_of(federation, travelling, self.log.tasks.num_asked, max_share)
        by_size = federation.weighting == "examples"
        weights: dict[str, int] = {}

        def take(task: Task, reply: Reply) -> None:
            if not reply.num_examples:
                self._warn_left_out(task)
                return
            self.check_reply(task, reply, travelling)
            weight = reply.num_examples if by_size else 1
            aggregator.add(reply.arrays, weight)
            weights[task.member.client] = weight

        self.exchange.collect_updates(replies, travelling, take)
        if not weights:
            raise RunError(
                f"arm {self.run.request.arm}, round {self.log.round}: no client has a labelled "
                "pixel to train on; check their label maps and data.classes"
            )
        self._warn_of_heavy_client(weights, max_share)
        for line in long_updates(self._lengths):
            self._warn_once(line)
        self._spend_privacy()
        with span("aggregation"):
            return aggregator.result()

    def evaluations(self) -> list[Task]:
        """Evaluation tasks: every client scores the weights on its own images."""
        return [self.task(member) for member in self.run.discovery.registry.members]

    def checkpoint(self) -> Checkpoint:
        """All that is needed to resume after this round."""
        state = self._optimizer.state | self._coded.state
        return Checkpoint(self.log.round, self.weights, state, self.run.description)

    # Shared by all kinds of training.

    def task(self, member: Member, sum: SumPart | None = None) -> Task:
        """To train or to evaluate the weights that all get."""
        return Task(member, self.weights, sum=sum, sent_bytes=self.carried.num_bytes)

    def take_step(self, weights: Arrays, mean: Arrays) -> None:
        """Apply the server's step to the weights that travel, given the mean of the replies."""
        hand_back()  # what the round's sums and replies took
        try:
            with span("aggregation"):
                stepped = self.weights | self._optimizer.apply(weights, mean)
                self.weights = self.carried.put(self._coded.encode(stepped))
        except CodecError as error:
            where = f"arm {self.run.request.arm}, round {self.log.round}"
            raise RunError(f"{where}: training diverged: {error}") from None

    def check_reply(self, task: Task, reply: Reply, start: Arrays) -> None:
        """Refuse an update whose arrays do not match `start`, or that is too far from it.

        Raises:
            ValueError: With the reason.
        """
        check_update(reply.arrays, reply.num_examples, start)
        length = self._norms.measure(reply.arrays, start)
        self.run.reported.check_training(self.run.request.arm, task.member.client, reply)
        self._lengths[task.member.client] = length
        federation = self.run.federation
        if federation.privacy is None or federation.max_update_norm is not None:
            self.log.update_norms[task.member.client] = length
        self._num_examples[task.member.client] = reply.num_examples

    def _open_phase(
        self, phase: Phase, tasks: Iterable[Task], carried: ArrayRecord
    ) -> list[Message]:
        ordered = longest_first(tasks, self._num_examples)
        record = carried if self.are_weights_common else None
        return self.exchange.open_phase(phase, ordered, record)

    def _warn_left_out(self, task: Task) -> None:
        client = task.member.client
        self._warn_once(f"{client}: no labelled pixel to train on; its update is left out")

    def _max_share(self) -> float:
        """Largest weight of a client in the mean; 1 where its number of examples can be checked."""
        federation = self.run.federation
        is_unchecked = federation.weighting == "examples" and not self.run.reported.knows_sizes
        return federation.max_share if is_unchecked and self.log.tasks.num_asked > 1 else 1.0

    def _warn_of_heavy_client(self, weights: Mapping[str, int], max_share: float) -> None:
        is_weighted = self.run.federation.aggregation in ("mean", "norm-clipping")
        if is_weighted and self.log.tasks.num_asked > 1:
            line = heavy_client(weights, max_share)
            if line is not None:
                self._warn_once(line)

    def _warn_once(self, line: str) -> None:
        """Log and show a warning in the first round in which it is true."""
        if line not in self._warned:
            self._warned.add(line)
            logger.warning("arm %s, round %d: %s", self.run.request.arm, self.log.round, line)
            self.log.notify(line)

    def _drawn(self) -> list[Member]:
        """The training clients of a round: a draw from the sorted names by seed and round."""
        return drawn(self.trainers(), self.run.federation, self.run.request.seed, self.log.round)

    def _spend_privacy(self) -> None:
        """Count the release of noisy weights before it is made; a repeated round counts again."""
        privacy, request = self.run.federation.privacy, self.run.request
        if privacy is None:
            return
        num = self._folder.record_release(request.arm, request.seed, self.log.round)
        spent = epsilon(num, privacy.noise_multiplier, privacy.delta)
        self.log.release = {"num_releases": num, "epsilon": spent, "delta": privacy.delta}
        self.log.notify(f"privacy per client: epsilon {spent:.3g} at delta {privacy.delta:g}")

    def _own_lines(self) -> list[Line]:
        mine = (self.run.request.arm, self.run.request.seed)
        return [line for line in self._folder.lines() if (line["arm"], line["seed"]) == mine]

    def _check_scored(self, lines: list[Line]) -> None:
        """Called before the last round is written, so that a resumed run tries this round again."""
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
                f"arm {self.run.request.arm}: expected scores of all val clients in one of the "
                f"last {federation.last_rounds} rounds, got none ({self.log.reasons()})"
            )
