"""What is made while rounds train in a simulation: which rounds' views, for which clients, where.

Nothing heavy is imported here: the process that makes them starts with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from clients.policy.fresh_views import ROUNDS_ON_DISK, round_folder, training_name
from clients.vault.assignment import Assignment, Prepared
from fl_ppseg.config import run_layout
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from strategies.rounds.draw import drawn


class ArmRound(NamedTuple):
    """A round of an arm and seed."""

    arm: str
    seed: int
    round: int


@dataclass(frozen=True)
class ViewsPlan:
    """What is made while a run trains: picklable, contains no key."""

    run: Path
    """The run folder."""
    place: Path
    """Where the shards of rounds go."""
    config: Config
    arms: Mapping[str, ArmConfig]
    jobs: Mapping[tuple[str, int], Assignment]
    """Of the training clients, by client and seed."""
    shards: Mapping[tuple[str, int], Mapping[str, Path]]
    """What was made ahead for them, by arm."""

    def next_rounds(self) -> list[ArmRound]:
        """The rounds whose views are needed next; none: the run is trained."""
        found: list[ArmRound] = []
        for seed in self.config.seeds:
            for arm in self.config.arms:
                done = newest_round(self.run, arm, seed)
                left = range(done + 1, self.config.federation.num_rounds + 1)
                found += [
                    ArmRound(arm, seed, round) for round in left[: ROUNDS_ON_DISK - len(found)]
                ]
                if len(found) == ROUNDS_ON_DISK:
                    return found
        return found

    def finished(self) -> dict[str, int]:
        """The newest finished round of each arm and seed."""
        return {
            training_name(arm, seed): newest_round(self.run, arm, seed)
            for seed in self.config.seeds
            for arm in self.config.arms
        }

    def clients(self, arm_round: ArmRound) -> list[str]:
        """Clients whose images a round trains on, in the order of the jobs."""
        every = [client for client, seed in self.jobs if seed == arm_round.seed]
        if self.arms[arm_round.arm].training == "centralised":  # one node, with the images of all
            return every
        asked = drawn(sorted(every), self.config.federation, arm_round.seed, arm_round.round)
        return [client for client in every if client in asked]

    def folder(self, arm_round: ArmRound, client: str) -> Path:
        """Folder of a client's views of a round."""
        return round_folder(
            self.place, self.shards[client, arm_round.seed][arm_round.arm], arm_round.round
        )

    def job(self, arm_round: ArmRound, client: str) -> Assignment:
        """What one owner encrypts for a round."""
        job = self.jobs[client, arm_round.seed].of_round(arm_round.round)
        return replace(job, protections={arm_round.arm: self.arms[arm_round.arm]})


def views_plan(
    config: Config,
    run: Path,
    jobs: Mapping[tuple[str, int], Assignment],
    prepared: Mapping[tuple[str, int], Mapping[str, Prepared]],
) -> ViewsPlan | None:
    """What is made while a run trains; None where all views are made ahead.

    Args:
        config: The experiment.
        run: The run folder.
        jobs: What was made ahead, by client and seed.
        prepared: Where it lies.
    """
    own = {key: replace(job, public={}) for key, job in jobs.items() if job.train}
    places = [job.fresh.place for job in own.values() if job.fresh is not None]
    if not places:
        return None
    shards = {key: {arm: p.shard for arm, p in prepared[key].items()} for key in own}
    return ViewsPlan(run, places[0], config, arms_of(config), own, shards)


def newest_round(run: Path, arm: str, seed: int) -> int:
    """The last round of an arm and seed that has a checkpoint; 0: none is trained."""
    files = run_layout.rounds_in(run_layout.seed_folder(run, arm, seed), ".json")
    return (run_layout.round_of(files[-1]) or 0) if files else 0
