"""What the owners of a simulation encrypt, and their vaults at work before the first round."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clients.policy.fresh_views import ROUNDS
from clients.policy.node_policy import nodes_folder
from clients.vault.assignment import Assignment, FreshViews
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.config.client_names import folder_name
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.experiment.initial_weights import Models
from fl_ppseg.experiment.simulated_nodes import Node, PreparedShards
from fl_ppseg.federation.checkpoint_file import OF_CLIENT, Checkpoint
from fl_ppseg.federation.public_weights import public_embedding
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.workers import work_at_once

Assignments = Mapping[tuple[str, int], Assignment]
"""By client and seed."""


def assignments(
    config: Config, nodes: Sequence[Node], vault_dir: Path, models: Models, folder: RunFolder
) -> dict[tuple[str, int], Assignment]:
    """What each owner encrypts, by client and seed.

    Args:
        config: The experiment.
        nodes: The clients, in the order in which they are worked on.
        vault_dir: The owners' side.
        models: Of `initial_models`.
        folder: The run.
    """
    arms, place = arms_of(config), nodes_folder(vault_dir, folder.path)
    fresh = FreshViews(config.training.local_epochs, place / ROUNDS)
    private = [name for name, arm in arms.items() if arm.embedding == "private"]
    jobs = {}
    for seed in config.seeds:  # outside: jobs of one client wait for each other
        newest = [folder.latest(name, seed) for name in private]
        public = _public(newest, models[seed, private[0]]) if private else {}
        for node in nodes:
            jobs[node.client, seed] = Assignment(
                vault=vault_dir / folder_name(node.client),
                client=node.client,
                train=node.train,
                heldout=node.heldout,
                data=config.data,
                block_size=next(iter(models.values())).patch_size,
                seed=seed,
                protections=arms,
                public=public,
                run=place.name,
                fresh=fresh if config.data.fresh_views else None,
            )
    return jobs


def _public(newest: Iterable[Checkpoint | None], initial: SETR) -> Arrays:
    """The public embedding of a run's arms with private ones, which training never changes.

    A resumed run keeps its own: the weights that its config names may have changed since.
    """
    for checkpoint in newest:
        if checkpoint is not None:
            named = {name.rpartition(OF_CLIENT)[2]: v for name, v in checkpoint.arrays.items()}
            return {name: named[name] for name in EMBEDDING_TENSORS}
    return public_embedding(initial)


def encrypt(jobs: Assignments, num_workers: int, progress: StepProgress) -> PreparedShards:
    """Run the owners' vaults, several at a time, in processes other than the coordinator's."""
    keys, tasks = list(jobs), list(jobs.values())
    total = sum(len(job.train) + len(job.heldout) for job in tasks)
    done, prepared = 0, {}
    for number, made in work_at_once(prepare_shards, tasks, num_workers, "encrypting"):
        prepared[keys[number]] = made
        done += len(tasks[number].train) + len(tasks[number].heldout)
        progress.update("encrypting in the vaults", done, total)
    return prepared
