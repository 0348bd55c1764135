"""The Flower ServerApp: trains all arms and seeds of a run folder, one after the other.

A run folder holds everything that the server needs: config, partition and, for each arm and seed, a
checkpoint (of round 0 at first). An interrupted run goes on from the newest ones.
"""

import logging
import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_ppseg.config import Config, ModelConfig, arms_of, load_config
from fl_ppseg.errors import InputError, RunError
from fl_ppseg.messages import Request, pack_arrays
from fl_ppseg.progress import LogObserver, RunObserver
from fl_ppseg.run_folder import Checkpoint, RunFolder
from strategies.city_strategy import ArmRun, CityStrategy, LocalOnlyStrategy
from strategies.grid import LazyGrid, StoppedError
from strategies.roster import Roster, call_roll

logger = logging.getLogger(__name__)

ROLL_SECONDS = 120.0
"""How long nodes may take to connect and to introduce themselves."""


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
            RunError: If nodes are missing or a round fails.
        """
        config = load_config(self.folder.config)
        lazy = LazyGrid(grid, self.stop)
        jobs = [(arm, seed) for seed in config.seeds for arm in config.arms]
        rounds = {job: self._start(*job).round for job in jobs}
        self._drop_unfinished(rounds)
        roll = _request(config, *jobs[0], self._start(*jobs[0]))
        roster = call_roll(lazy, roll, self.num_nodes, ROLL_SECONDS)
        self.observer.run_started(
            config.arms,
            config.seeds,
            config.federation.num_rounds,
            len(roster.with_role("train")),
            len(roster.with_role("val")),
        )
        for (arm, seed), round in rounds.items():
            if round < config.federation.num_rounds:
                self._train(lazy, roster, config, arm, seed)
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

    def _train(self, grid: Grid, roster: Roster, config: Config, arm: str, seed: int) -> None:
        start = self._start(arm, seed)
        request = _request(config, arm, seed, start)
        training = arms_of(config)[arm].training
        members = roster.with_role("train")
        trainers = members[:1] if training == "centralised" else members
        run = ArmRun(request, config.federation, roster, trainers, start.description)
        kind = LocalOnlyStrategy if training == "local-only" else CityStrategy
        strategy = kind(run, self.folder, self.observer, start)
        self.observer.arm_started(arm, seed)
        strategy.start(
            grid,
            pack_arrays(start.arrays),
            num_rounds=config.federation.num_rounds - start.round,
            timeout=config.federation.round_timeout,
        )
        self.observer.arm_finished(arm, seed)


def _request(config: Config, arm: str, seed: int, start: Checkpoint) -> Request:
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
    )


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
    path = Path(str(context.run_config["run-dir"]))
    if not path.is_absolute() or not (path / "config.yaml").is_file():
        raise InputError(
            "run-dir must be the absolute path of a prepared run folder: "
            "python -m fl_ppseg.simulate --prepare"
        )
    num_nodes = int(str(context.run_config["num-nodes"]))
    Federation(RunFolder(path), LogObserver(sys.stderr), num_nodes).run(grid)
