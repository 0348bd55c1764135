"""The scenes of the report: the middle one of each val city, through every arm's own eyes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
import torch

from clients.policy import load_policy, policy_path
from fl_ppseg.evaluation import segment
from fl_ppseg.panels import latest, model_of, scene_panels
from fl_ppseg.preparation import Experiment
from fl_ppseg.report.scenes import ScenePanel
from fl_ppseg.shard import open_shard
from fl_ppseg.synthesize import synthesize

ARMS = ["plain", "per-image", "per-image-per-block", "local-only"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three val cities, of which the last has no scene to spare."""
    root = tmp_path_factory.mktemp("own") / "tree"
    cities = ({"aachen": 4, "bochum": 3, "bremen": 2}, {"lindau": 3, "munster": 4, "ulm": 2})
    synthesize(root, num_train=9, num_val=9, size=(32, 64), cities=cities)
    return root


@pytest.fixture(scope="module")
def experiment(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    settings = small.config(tree, arms=ARMS, federation={"num_rounds": 1})
    experiment = small.prepared(settings, tmp_path_factory.mktemp("panels"))
    small.federate(experiment)
    return experiment


@pytest.fixture(scope="module")
def panels(experiment: Experiment) -> list[ScenePanel]:
    return scene_panels(experiment)


def test_a_panel_a_val_city_with_its_own_scene(
    experiment: Experiment, panels: list[ScenePanel]
) -> None:
    val = experiment.dataset.split("val")
    assert [panel.city for panel in panels] == ["lindau", "munster"]
    for panel in panels:
        image, labels = val[panel.city][len(val[panel.city]) // 2].load()
        np.testing.assert_array_equal(panel.plain.transpose(2, 0, 1), image)
        np.testing.assert_array_equal(panel.label_map, labels)
        assert panel.plain_note == "your own data"


def test_encrypted_pictures_hold_the_values_of_the_scene(panels: list[ScenePanel]) -> None:
    for panel in panels:
        assert len(panel.encrypted) == 2
        for picture in panel.encrypted.values():
            assert picture.shape == panel.plain.shape
            assert (picture != panel.plain).any()
            assert np.array_equal(np.sort(picture, axis=None), np.sort(panel.plain, axis=None))


def test_predictions_are_the_arms_own(experiment: Experiment, panels: list[ScenePanel]) -> None:
    for panel in panels:
        assert list(panel.predictions) == ["plain", "per-image", "per-image-per-block"]
        for guess in panel.predictions.values():
            assert guess.shape == panel.label_map.shape
            assert guess.max() < 19
        checkpoint = latest(experiment.folder, "plain", 0)
        assert checkpoint is not None
        model = model_of(checkpoint)
        image = torch.from_numpy(panel.plain.transpose(2, 0, 1).copy())[None]
        with torch.inference_mode():
            guess = segment(model, image, panel.label_map.shape)[0].numpy()
        np.testing.assert_array_equal(panel.predictions["plain"], guess)


def test_weights_that_are_no_one_model_or_not_trained_are_left_out(
    experiment: Experiment, tree: Path, tmp_path: Path
) -> None:
    assert latest(experiment.folder, "local-only", 0) is None
    untrained = small.prepared(small.config(tree, arms=["plain"]), tmp_path)
    assert latest(untrained.folder, "plain", 0) is None
    assert latest(untrained.folder, "unknown", 0) is None
    assert all(panel.predictions == {} for panel in scene_panels(untrained))


def test_procedural_scenes_are_marked_as_such(experiment: Experiment) -> None:
    data = experiment.config.data.model_copy(update={"root": None})
    config = experiment.config.model_copy(update={"data": data})
    shown = scene_panels(replace(experiment, config=config))
    assert [panel.city for panel in shown] == ["lindau", "munster", "ulm"]
    assert {panel.plain_note for panel in shown} == {"procedural scene"}


def test_no_scene_that_is_shown_plain_is_in_a_shard(
    experiment: Experiment, panels: list[ScenePanel]
) -> None:
    """Blocks keep their values under every cipher: sorted, they tell which image a shard holds."""
    val = experiment.dataset.split("val")
    shown = {_values(panel.plain.transpose(2, 0, 1)) for panel in panels}
    assert len(shown) == 2
    for number in range(experiment.num_nodes):
        policy = load_policy(policy_path(experiment.nodes, number))
        for arm in policy.arms.values():
            (part,) = open_shard(arm.shards[0]).parts
            stored = [*part.images.reshape(-1, 3, 32, 64), *part.heldout_images]
            assert not shown & {_values(image) for image in stored}
            if policy.role == "val":
                spare = policy.city in {panel.city for panel in panels}
                assert len(part.heldout_images) == len(val[policy.city]) - spare


def _values(image: np.ndarray) -> bytes:
    return bytes(np.sort(image, axis=None))


def test_a_cropped_scene_is_shown_and_labelled_as_cropped(
    tree: Path, tmp_path: Path, experiment: Experiment
) -> None:
    data = {"image_size": [16, 32], "fit": "crop"}
    cropped = small.prepared(small.config(tree, arms=["plain"], data=data), tmp_path)
    val = cropped.dataset.split("val")
    for panel in scene_panels(cropped):
        image, labels = val[panel.city][len(val[panel.city]) // 2].load()
        np.testing.assert_array_equal(panel.plain.transpose(2, 0, 1), image[:, 8:24, 16:48])
        np.testing.assert_array_equal(panel.label_map, labels[8:24, 16:48])
