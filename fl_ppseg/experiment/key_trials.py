"""Key trials: the shared-key arms scored with the right key, a wrong key and no key.

A key that all owners share also controls access to the model: a query under another key, or under
none, should get no useful answer. Sources: Kiya et al., Journal of Imaging 8(9) 233, 2022; Ito et
al., arXiv 2107.09362, 2021.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from clients.query import KEYS
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.loading import arms_of
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.experiment.data_notes import scored_scenes
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.experiment.scoring import counts_by_image, queries
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.checkpoints import latest
from fl_ppseg.learning.evaluation import Scores, score

Trials = dict[str, dict[str, float]]
"""Key of the query -> aAcc, mIoU and mAcc, in percent."""


def key_trials(experiment: Experiment) -> dict[str, Trials]:
    """Score queries to every shared-key arm under the right key, a wrong one and none.

    The newest checkpoint of each seed answers for all val scenes of the run. Confusion counts are
    summed over the clients, then scored; scores are the mean over the seeds.

    Returns:
        Arm -> key -> scores; arms without a shared key, or not trained yet, are left out.
    """
    config = experiment.config
    clients = scored_scenes(experiment.dataset, config.data)
    trials: dict[str, Trials] = {}
    for name, arm in arms_of(config).items():
        found = [latest(experiment.folder, name, seed) for seed in config.seeds]
        checkpoints = [checkpoint for checkpoint in found if checkpoint is not None]
        if arm.key_mode == "shared" and checkpoints:
            shared = ensure_shared_subkey(experiment.vault_dir, arm)
            of_seeds = [_trial(c, shared, clients, config.device) for c in checkpoints]
            trials[name] = {key: _mean([own[key] for own in of_seeds]) for key in KEYS}
    return trials


def _trial(
    checkpoint: Checkpoint, shared: SubKey, clients: Mapping[str, Sequence[Scene]], device: str
) -> dict[str, Scores]:
    scores: dict[str, Scores] = {}
    for key in KEYS:
        counts = counts_by_image(checkpoint, clients, queries(checkpoint, shared, key), device)
        scores[key] = score(np.concatenate(list(counts.values())).sum(axis=0))
    return scores


def _mean(scores: Sequence[Scores]) -> dict[str, float]:
    return {
        name: fmean(getattr(entry, name) for entry in scores) for name in ("aAcc", "mIoU", "mAcc")
    }
