"""Right, wrong and no key: what the models of the shared-key arms tell whom.

Where owners share a key, it is also the licence to the model: a query under another key, or under
none, should get nothing of use. Sources: Kiya et al., Journal of Imaging 8(9) 233, 2022; Ito et
al., arXiv 2107.09362, 2021.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean

from clients.query import KEYS, Query, shared_query
from clients.vault.keyring import shared_subkey
from fl_ppseg.checkpoints import latest, model_of, protection_of, weights_of
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import DataConfig
from fl_ppseg.data_notes import reserved_scene
from fl_ppseg.dataset import Scene
from fl_ppseg.evaluation import Sample, Scores, evaluate, score
from fl_ppseg.keys import SubKey
from fl_ppseg.preparation import Experiment
from fl_ppseg.run_folder import Checkpoint
from fl_ppseg.sliding import SlidingWindows
from fl_ppseg.views import fit_for_scoring

Trials = dict[str, dict[str, float]]
"""Key of the query -> aAcc, mIoU and mAcc, in percent."""


def key_trials(experiment: Experiment) -> dict[str, Trials]:
    """Score queries to every shared-key arm under the right key, a wrong one and none.

    The newest checkpoint of each seed answers for all val scenes of the run. Confusion counts are
    summed over the cities, then scored; scores are the mean over the seeds.

    Returns:
        Arm -> key -> scores; arms without a shared key, or not trained yet, are left out.
    """
    config = experiment.config
    scenes = _scored(experiment)
    trials: dict[str, Trials] = {}
    for name, arm in arms_of(config).items():
        found = [latest(experiment.folder, name, seed) for seed in config.seeds]
        checkpoints = [checkpoint for checkpoint in found if checkpoint is not None]
        if arm.key_mode == "shared" and checkpoints:
            shared = shared_subkey(experiment.vault_dir, arm)
            of_seeds = [_trial(c, shared, scenes, config.data, config.device) for c in checkpoints]
            trials[name] = {key: _mean([own[key] for own in of_seeds]) for key in KEYS}
    return trials


def _scored(experiment: Experiment) -> list[Scene]:
    """The val scenes that the nodes score: of a user's own data, all but the reserved ones."""
    data = experiment.config.data
    return [
        scene
        for scenes in experiment.dataset.split("val").values()
        for scene in scenes
        if scene != reserved_scene(scenes, data)
    ]


def _trial(
    checkpoint: Checkpoint, shared: SubKey, scenes: Sequence[Scene], data: DataConfig, device: str
) -> dict[str, Scores]:
    protection, weights = protection_of(checkpoint), weights_of(checkpoint)
    model = model_of(checkpoint).to(device)
    num_classes = len(checkpoint.description["classes"])
    scores: dict[str, Scores] = {}
    for key in KEYS:
        query = shared_query(protection, key, shared, model.patch_size, weights)
        query.load_into(model)
        samples = _samples(query, scenes, data, model.patch_size)
        counts, _ = evaluate(SlidingWindows(model), samples, num_classes, device)
        scores[key] = score(counts)
    return scores


def _samples(
    query: Query, scenes: Sequence[Scene], data: DataConfig, block_size: int
) -> Iterator[Sample]:
    for scene in scenes:
        image, labels = fit_for_scoring(*scene.load(), data.image_size, data.fit, block_size)
        yield query.encrypt(image), labels


def _mean(scores: Sequence[Scores]) -> dict[str, float]:
    return {
        name: fmean(getattr(entry, name) for entry in scores) for name in ("aAcc", "mIoU", "mAcc")
    }
