"""Right, wrong and no key, on models that really segment: the shipped weights."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import small_federation as small
import torch

from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.views import fit_for_scoring
from fl_ppseg.experiment.key_trials import key_trials
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.learning.evaluation import segment
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.setr.model import SETR

ARMS = [
    "plain",
    "conventional-1",
    "conventional-2",
    "access-control-shf",
    "access-control-np",
    "access-control-ffx",
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Own data: the third scene of lindau is reserved, munster has none to spare."""
    place = tmp_path_factory.mktemp("trials")
    cities = ({"aachen": 2, "bochum": 2, "bremen": 2}, {"lindau": 4, "munster": 2})
    synthesize(place / "tree", num_train=6, num_val=6, size=(64, 128), cities=cities)
    values = {
        "arms": ARMS,
        "clients": 3,
        "seeds": [0, 1],
        "data": {"root": str(place / "tree"), "num_views": 1},
    }
    return small.prepared(Config.model_validate(values), place)


@pytest.fixture(scope="module")
def trials(experiment: Experiment) -> dict[str, dict[str, dict[str, float]]]:
    """As after training: access-control models read the shared key, conventional-1 plain images.

    Conventional-2 has a second seed, another model; ffx is not trained yet.
    """
    shared = ensure_shared_subkey(
        experiment.vault_dir, arms_of(experiment.config)["access-control-shf"]
    )
    plain = shipped(experiment)
    for arm in ("plain", "conventional-1", "conventional-2"):
        save(experiment, arm, 0, plain)
    save(experiment, "conventional-2", 1, leaning(plain))
    for arm in ("access-control-shf", "access-control-np"):
        cipher = arms_of(experiment.config)[arm].cipher
        save(experiment, arm, 0, plain | adapted_embedding(plain, cipher, "common", shared))
    return key_trials(experiment)


def shipped(experiment: Experiment) -> dict[str, torch.Tensor]:
    return small.weights_of(initial_model(experiment.config, small.NUM_CLASSES, 0))


def leaning(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A worse model: it sees more road than there is."""
    name, road = "decoder.classifier.conv.bias", 0
    bias = weights[name].clone()
    bias[road] += 3
    return weights | {name: bias}


def save(experiment: Experiment, arm: str, seed: int, weights: dict[str, torch.Tensor]) -> None:
    initial = experiment.folder.latest(arm, seed)
    assert initial is not None
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    experiment.folder.save(Checkpoint(1, arrays, {}, initial.description), keep=2)


def scored_scenes(experiment: Experiment) -> list[Scene]:
    cities = experiment.dataset.split("val")
    lindau, munster = cities["lindau"], cities["munster"]
    return [lindau[0], lindau[1], lindau[3], *munster]


def by_hand(
    experiment: Experiment, weights: dict[str, torch.Tensor], scenes: Iterable[Scene]
) -> dict[str, float]:
    """Scores of plain images, pixel by pixel: counts of all scenes first, then the ratios."""
    model: SETR = initial_model(experiment.config, small.NUM_CLASSES, 0)
    model.load_state_dict(weights)
    model.eval()
    counts = np.zeros((small.NUM_CLASSES, small.NUM_CLASSES))
    for scene in scenes:
        image, labels = fit_for_scoring(*scene.load(), (64, 128), "resize", model.patch_size)
        with torch.inference_mode():
            size = (labels.shape[0], labels.shape[1])
            guess = segment(model, torch.from_numpy(image)[None], size)[0].numpy()
        known = labels != 255
        np.add.at(counts, (labels[known], guess[known]), 1)
    hits, truths = counts.diagonal(), counts.sum(axis=1)
    present = truths > 0
    unions = truths + counts.sum(axis=0) - hits
    return {
        "aAcc": 100 * hits.sum() / truths.sum(),
        "mIoU": 100 * float((hits[unions > 0] / unions[unions > 0]).mean()),
        "mAcc": 100 * float((hits[present] / truths[present]).mean()),
    }


def test_trained_arms_that_share_a_key_have_trials(trials: dict[str, object]) -> None:
    assert set(trials) == set(ARMS) - {"plain", "access-control-ffx"}
    for of_keys in trials.values():
        assert isinstance(of_keys, dict)
        assert list(of_keys) == ["right", "wrong", "none"]
        assert all(list(scores) == ["aAcc", "mIoU", "mAcc"] for scores in of_keys.values())


@pytest.mark.parametrize("arm", ["conventional-1", "access-control-shf", "access-control-np"])
def test_the_right_key_is_as_good_as_plain_and_any_other_is_useless(
    arm: str, trials: dict[str, dict[str, dict[str, float]]], experiment: Experiment
) -> None:
    plain = by_hand(experiment, shipped(experiment), scored_scenes(experiment))
    assert plain["mIoU"] > 25
    for name, value in plain.items():
        assert trials[arm]["right"][name] == pytest.approx(value, abs=0.1)
    for key in ("wrong", "none"):
        assert trials[arm][key]["mIoU"] < 0.6 * plain["mIoU"]


def test_counts_are_summed_over_cities_and_scores_averaged_over_seeds(
    trials: dict[str, dict[str, dict[str, float]]], experiment: Experiment
) -> None:
    """Conventional-2 without a key is the trained model on plain images."""
    weights, scenes = shipped(experiment), scored_scenes(experiment)
    first, second = (by_hand(experiment, w, scenes) for w in (weights, leaning(weights)))
    assert abs(first["mIoU"] - second["mIoU"]) > 1
    for name, value in trials["conventional-2"]["none"].items():
        assert value == pytest.approx((first[name] + second[name]) / 2, abs=1e-6)


def test_of_public_scenes_none_is_left_out(
    experiment: Experiment, trials: dict[str, object]
) -> None:
    data = experiment.config.data.model_copy(update={"root": None})
    changes = {"data": data, "seeds": (0,), "arms": ("conventional-2",)}
    public = replace(experiment, config=experiment.config.model_copy(update=changes))
    everywhere = key_trials(public)["conventional-2"]["none"]
    scenes = itertools.chain(*experiment.dataset.split("val").values())
    assert everywhere == pytest.approx(by_hand(experiment, shipped(experiment), scenes), abs=1e-6)
    held_back = by_hand(experiment, shipped(experiment), scored_scenes(experiment))
    assert everywhere["aAcc"] != pytest.approx(held_back["aAcc"], abs=1e-6)
