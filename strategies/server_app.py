"""The Flower ServerApp: trains all arms and seeds of a run folder, one after the other.

A run folder holds everything that the server needs: config, partition and, for each arm and seed, a
checkpoint (of round 0 at first). An interrupted run goes on from the newest ones.
"""

import logging
import math
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_ppseg.config.loading import arms_of, config_for, load_config
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import pack_arrays
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_identity import read_identity
from fl_ppseg.flower.grid import LazyGrid, StoppedError
from fl_ppseg.progress.observer import RunObserver
from fl_ppseg.progress.recorded import RecordedObserver
from fl_ppseg.system.errors import RunError, describe
from strategies.aggregation.aggregators import what_withstands_nothing
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.city_strategy import CityStrategy
from strategies.rounds.claims import Claims
from strategies.rounds.local_only import LocalOnlyStrategy
from strategies.rounds.resuming import tell_of_earlier
from strategies.rounds.roll_call import RollCall
from strategies.rounds.start import score_start
from strategies.rounds.submitted import expected_roles, submission

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Federation:
    """Trains what a run folder describes."""

    folder: RunFolder
    observer: RunObserver
    num_nodes: int
    """Nodes to wait for, evaluate-only ones included."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set from outside to end the run between two replies."""

    def run(self, grid: Grid) -> None:
        """Train all arms and seeds that are not finished.

        Raises:
            RunError: If nodes are missing, a round fails, or another process is at this run.
        """
        with self.folder.claimed():
            self._run(LazyGrid(grid, self.stop))

    def _run(self, grid: LazyGrid) -> None:
        config = load_config(self.folder.config)
        jobs = [(arm, seed) for seed in config.seeds for arm in config.arms]
        rounds = {job: self._start(*job).round for job in jobs}
        self._drop_unfinished(rounds)
        first = self._request(config, *jobs[0], self._start(*jobs[0]))
        roll = RollCall(grid, first, self.observer, expected_roles(self.folder.path))
        claims = self._claims(config)
        quorum = math.ceil(config.federation.min_replies * self.num_nodes)
        roll.wait(self.num_nodes, quorum, config.federation.wait_seconds)
        self.observer.run_started(
            config.arms,
            config.seeds,
            config.federation.num_rounds,
            len(roll.roster.with_role("train")),
            len(roll.roster.with_role("val")),
        )
        self._say_what_is_not_robust(config, len(roll.roster.with_role("train")))
        tell_of_earlier(rounds, self.folder.lines(), self.observer)
        for (arm, seed), round in rounds.items():
            if round < config.federation.num_rounds:
                self._train(grid, roll, claims, config, arm, seed)
        self.observer.run_finished()

    def _start(self, arm: str, seed: int) -> Checkpoint:
        checkpoint = self.folder.latest(arm, seed)
        if checkpoint is None:
            raise RunError(f"{self.folder.path}: no checkpoint of arm {arm}, seed {seed}")
        return checkpoint

    def _drop_unfinished(self, rounds: Mapping[tuple[str, int], int]) -> None:
        """Forget what came after the rounds to go on from: damaged checkpoints, and lines."""
        for (arm, seed), round in rounds.items():
            self.folder.discard_after(arm, seed, round)
        self.folder.keep_lines(lambda line: line["round"] <= rounds[line["arm"], line["seed"]])

    def _claims(self, config: Config) -> Claims:
        """What the cities have said in earlier rounds, and what the partition knows."""
        arms = arms_of(config)
        pooled = (name for name, arm in arms.items() if arm.training == "centralised")
        return Claims(self.folder.num_images(), self.folder.lines(), pooled)

    def _say_what_is_not_robust(self, config: Config, num_trainers: int) -> None:
        federation = config.federation
        line = what_withstands_nothing(federation, federation.num_asked(num_trainers))
        if line is not None:
            logger.warning("%s", line)
            self.observer.message(line)

    def _train(
        self, grid: Grid, roll: RollCall, claims: Claims, config: Config, arm: str, seed: int
    ) -> None:
        start = self._start(arm, seed)
        config = config_for(config, arms_of(config)[arm])
        training = arms_of(config)[arm].training
        run = ArmRun(
            self._request(config, arm, seed, start),
            config.federation,
            roll,
            start.description,
            is_centralised=training == "centralised",
            num_val=max(0, self.num_nodes - config.clients),
            num_examples=self._num_examples(),
            claims=claims,
        )
        kind = LocalOnlyStrategy if training == "local-only" else CityStrategy
        strategy = kind(run, self.folder, self.observer, start)
        self.observer.arm_started(arm, seed)
        if not start.round:
            score_start(run, self.folder, self.observer, start.arrays, grid)
        strategy.start(
            grid,
            pack_arrays(start.arrays),
            num_rounds=config.federation.num_rounds - start.round,
            timeout=config.federation.round_timeout,
        )
        self.observer.arm_finished(arm, seed)

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
            num_classes=len(start.description["classes"]),
            model=ModelConfig.model_validate(start.description["model"]),
            training=config.training,
            run="" if identity is None else str(identity),
        )

    def _num_examples(self) -> dict[str, int]:
        """Training images by city, as far as the partition or earlier rounds tell."""
        trained = (line for line in self.folder.lines() if line["role"] == "train")
        return self.folder.num_images() | {line["city"]: line["num_examples"] for line in trained}


def build_server_app(federation: Federation) -> ServerApp:
    """A ServerApp that runs a federation, to its end or until its stop is set."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            federation.run(grid)
        except StoppedError:
            logger.info("stopped between two replies")

    return server_app


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Entry of `flwr run .`: run-config names the prepared run folder and the number of nodes."""
    run = submission(context.run_config)
    folder = RunFolder(Path(run.run_dir))
    try:
        Federation(folder, RecordedObserver(folder.progress), run.num_nodes).run(grid)
    except OSError as error:
        raise RunError(describe(error)) from error
