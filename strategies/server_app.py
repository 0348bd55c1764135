"""The Flower ServerApp: trains all arms and seeds of a run folder, one after the other.

A run folder holds everything that the server needs: config, partition and, for each arm and seed, a
checkpoint (of round 0 at first). An interrupted run resumes from the newest ones.
"""

import logging
import math
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.loading import arms_of, config_for, load_config
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_identity import read_identity
from fl_ppseg.flower.grid import LazyGrid, StoppedError
from fl_ppseg.progress.events import ArmFinished, ArmStarted, Notice, RunFinished, RunStarted
from fl_ppseg.progress.observer import Observer
from fl_ppseg.progress.recorded import RecordedObserver
from fl_ppseg.system.errors import RunError, describe
from strategies.aggregation.aggregators import robustness_warning
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.discovery import Discovery
from strategies.rounds.federated import FederatedStrategy
from strategies.rounds.local_only import LocalOnlyStrategy
from strategies.rounds.reported_counts import ReportedCounts
from strategies.rounds.resumption import report_earlier_rounds
from strategies.rounds.run_config import expected_roles, parse_run_config
from strategies.rounds.start_scores import score_start
from strategies.rounds.summed import SummedStrategy
from strategies.rounds.unprepared import prepare_unprepared

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Federation:
    """Trains what a run folder describes."""

    folder: RunFolder
    observer: Observer
    num_nodes: int
    """Number of nodes to wait for, evaluate-only ones included."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set by the caller to end the run between two replies."""

    def run(self, grid: Grid) -> None:
        """Train all arms and seeds that are not finished.

        Raises:
            RunError: If nodes are missing, a round fails, or another process works on this run.
        """
        with self.folder.lock():
            self._run(LazyGrid(grid, self.stop))

    def _run(self, grid: LazyGrid) -> None:
        config = load_config(self.folder.config)
        jobs = [(arm, seed) for seed in config.seeds for arm in config.arms]
        rounds = {job: self._start(*job).round for job in jobs}
        self._drop_unfinished(rounds)
        first = self._request(config, *jobs[0], self._start(*jobs[0]))
        discovery = Discovery(grid, first, self.observer, expected_roles(self.folder.path))
        reported = self._reported_counts(config)
        quorum = math.ceil(config.federation.min_replies * self.num_nodes)
        discovery.wait(self.num_nodes, quorum, config.federation.wait_seconds)
        self.observer.on_event(
            RunStarted(
                tuple(config.arms),
                tuple(config.seeds),
                config.federation.num_rounds,
                len(discovery.registry.with_role("train")),
                len(discovery.registry.with_role("val")),
            )
        )
        self._warn_if_not_robust(config, len(discovery.registry.with_role("train")))
        report_earlier_rounds(rounds, self.folder.lines(), self.observer)
        for (arm, seed), round in rounds.items():
            if round < config.federation.num_rounds:
                self._train(grid, discovery, reported, config, arm, seed)
        self.observer.on_event(RunFinished())

    def _start(self, arm: str, seed: int) -> Checkpoint:
        checkpoint = self.folder.latest(arm, seed)
        if checkpoint is None:
            raise RunError(f"{self.folder.path}: no checkpoint of arm {arm}, seed {seed}")
        return checkpoint

    def _drop_unfinished(self, rounds: Mapping[tuple[str, int], int]) -> None:
        """Delete checkpoints and lines of results after the rounds to resume from."""
        for (arm, seed), round in rounds.items():
            self.folder.discard_after(arm, seed, round)
        self.folder.keep_lines(lambda line: line["round"] <= rounds[line["arm"], line["seed"]])

    def _reported_counts(self, config: Config) -> ReportedCounts:
        """The counts that the clients reported in earlier rounds, and those of the partition."""
        arms = arms_of(config)
        pooled = (name for name, arm in arms.items() if arm.training == "centralised")
        return ReportedCounts(self.folder.num_images(), self.folder.lines(), pooled)

    def _warn_if_not_robust(self, config: Config, num_trainers: int) -> None:
        federation = config.federation
        line = robustness_warning(federation, federation.num_asked(num_trainers))
        if line is not None:
            logger.warning("%s", line)
            self.observer.on_event(Notice(line))

    def _train(
        self,
        grid: Grid,
        discovery: Discovery,
        reported: ReportedCounts,
        config: Config,
        arm: str,
        seed: int,
    ) -> None:
        strategy = self._strategy(discovery, reported, config, arm, seed)
        self.observer.on_event(ArmStarted(arm, seed))
        if not strategy.first_round:
            carried = strategy.carried
            sent, size = carried.record, carried.num_bytes
            score_start(
                strategy.run, self.folder, self.observer, strategy.weights, sent, size, grid
            )
        federation = strategy.run.federation
        strategy.start(
            grid,
            strategy.carried.record,
            num_rounds=federation.num_rounds - strategy.first_round,
            timeout=federation.round_timeout,
        )
        self.observer.on_event(ArmFinished(arm, seed))

    def _strategy(
        self,
        discovery: Discovery,
        reported: ReportedCounts,
        config: Config,
        arm: str,
        seed: int,
    ) -> FederatedStrategy:
        """The strategy of an arm and seed, from its newest checkpoint."""
        start = self._start(arm, seed)
        config = config_for(config, arms_of(config)[arm])
        training = arms_of(config)[arm].training
        run = ArmRun(
            self._request(config, arm, seed, start),
            config.federation,
            discovery,
            start.description,
            is_centralised=training == "centralised",
            num_val=max(0, self.num_nodes - config.clients),
            num_examples=self._num_examples(),
            reported=reported,
        )
        return _kind(training, config.federation)(run, self.folder, self.observer, start)

    def _request(self, config: Config, arm: str, seed: int, start: Checkpoint) -> Request:
        identity = read_identity(self.folder.path)
        return Request(
            task="describe",
            run_id=secrets.token_hex(8),
            round=start.round,
            num_rounds=config.federation.num_rounds,
            arm=arm,
            seed=seed,
            embedding=arms_of(config)[arm].embedding,
            num_classes=len(start.description.classes),
            model=start.description.model,
            training=config.training,
            run="" if identity is None else str(identity),
        )

    def _num_examples(self) -> dict[str, int]:
        """Training images by client, as far as the partition or earlier rounds tell."""
        trained = (line for line in self.folder.lines() if line["role"] == "train")
        return self.folder.num_images() | {line["client"]: line["num_examples"] for line in trained}


def _kind(training: str, federation: FederationConfig) -> type[FederatedStrategy]:
    """The strategy of an arm."""
    if training == "local-only":
        return LocalOnlyStrategy
    return SummedStrategy if federation.secure_aggregation else FederatedStrategy


def build_server_app(
    federation: Federation, at_end: Callable[[], None] = lambda: None
) -> ServerApp:
    """A ServerApp that runs a federation until it ends or its stop event is set.

    Args:
        federation: What it runs.
        at_end: Called when it has ended or failed, before Flower waits for nodes that work.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            federation.run(grid)
        except StoppedError:
            logger.info("stopped between two replies")
        finally:
            at_end()

    return server_app


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Entry of `flwr run .`: trains the run folder of the run config, or prepares one."""
    run = parse_run_config(context.run_config)
    try:
        folder, num_nodes = (
            (RunFolder(Path(run.run_dir)), run.num_nodes)
            if run.run_dir
            else prepare_unprepared(grid, run)
        )
        Federation(folder, RecordedObserver(folder.progress), num_nodes).run(grid)
    except OSError as error:
        raise RunError(describe(error)) from error
