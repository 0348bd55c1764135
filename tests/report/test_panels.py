"""The scenes of the report: the middle one of each val client, through every arm's own eyes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
import torch

from clients.policy.node_policy import load_policy, policy_path
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.loading import arms_of
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.data.blocks import to_blocks
from fl_ppseg.data.shard import open_shard
from fl_ppseg.experiment.panels import cipher_gallery, scene_panels
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.checkpoints import latest, model_of
from fl_ppseg.learning.evaluation import segment
from fl_ppseg.report.scenes import ScenePanel
from fl_ppseg.scenes.tree import synthesize

ARMS = [
    "plain",
    "per-image",
    "per-image-per-block",
    "per-client-private",
    "per-image-invariant-shuffle",
    "conventional-1",
    "conventional-2",
    "access-control-np",
    "local-only",
]
SHARED = ["conventional-1", "conventional-2", "access-control-np"]
READS_PLAIN = ["plain", "per-client-private", "conventional-1"]
"""Arms whose checkpoint is a model for plain images, by which encrypted queries are answered."""
SHUFFLED = ["shuffle, common", "shuffle, per-block"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three val clients, of which the last has no scene to spare."""
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


def test_a_panel_a_val_client_with_its_own_scene(
    experiment: Experiment, panels: list[ScenePanel]
) -> None:
    val = experiment.dataset.split("val")
    assert [panel.client for panel in panels] == ["lindau", "munster"]
    for panel in panels:
        image, labels = val[panel.client][len(val[panel.client]) // 2].load()
        np.testing.assert_array_equal(panel.plain.transpose(2, 0, 1), image)
        np.testing.assert_array_equal(panel.label_map, labels)
        assert panel.plain_note == "your own data"


def test_encrypted_pictures_hold_the_values_of_the_scene(panels: list[ScenePanel]) -> None:
    for panel in panels:
        assert set(panel.encrypted) == {*SHUFFLED, "negative-positive, common"}
        for picture in panel.encrypted.values():
            assert picture.shape == panel.plain.shape
            assert (picture != panel.plain).any()
        for label in SHUFFLED:
            values = np.sort(panel.encrypted[label], axis=None)
            np.testing.assert_array_equal(values, np.sort(panel.plain, axis=None))


def with_the_shared_key(experiment: Experiment, image: np.ndarray, cipher: str) -> np.ndarray:
    """(H, W, 3) -> (H, W, 3), encrypted as the owners of a shared arm would."""
    shared = ensure_shared_subkey(
        experiment.vault_dir, arms_of(experiment.config)["conventional-2"]
    )
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    return encrypt(pixels, shared, cipher, block_size=8, scope="common").transpose(1, 2, 0)


def test_no_picture_is_made_with_the_shared_key(
    experiment: Experiment, panels: list[ScenePanel]
) -> None:
    for panel in panels:
        for label, picture in panel.encrypted.items():
            ciphertext = with_the_shared_key(experiment, panel.plain, label.split(",")[0])
            assert not np.array_equal(picture, ciphertext)


def answer(experiment: Experiment, arm: str, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W) trainIds, by the newest weights of an arm as they are."""
    checkpoint = latest(experiment.folder, arm, 0)
    assert checkpoint is not None
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        size = (image.shape[0], image.shape[1])
        return np.asarray(segment(model_of(checkpoint), pixels, size)[0])


def test_predictions_are_the_arms_own(experiment: Experiment, panels: list[ScenePanel]) -> None:
    for panel in panels:
        assert list(panel.predictions) == ARMS[:-1]
        for guess in panel.predictions.values():
            assert guess.shape == panel.label_map.shape
            assert guess.dtype == np.uint8
            assert guess.max() < 19
        for arm in READS_PLAIN:
            expected = answer(experiment, arm, panel.plain)
            assert (panel.predictions[arm] == expected).mean() > 0.999
        ciphertext = panel.encrypted["shuffle, per-block"]
        expected = answer(experiment, "per-image-invariant-shuffle", ciphertext)
        np.testing.assert_array_equal(panel.predictions["per-image-invariant-shuffle"], expected)


def test_shared_arms_show_right_wrong_and_no_key(
    experiment: Experiment, panels: list[ScenePanel]
) -> None:
    arms = arms_of(experiment.config)
    for panel in panels:
        assert list(panel.key_predictions) == SHARED
        for arm, guesses in panel.key_predictions.items():
            assert list(guesses) == ["right", "wrong", "none"]
            np.testing.assert_array_equal(guesses["right"], panel.predictions[arm])
            assert (guesses["right"] != guesses["wrong"]).any()
            assert (guesses["right"] != guesses["none"]).any()
        for arm in ("conventional-2", "access-control-np"):
            guesses, cipher = panel.key_predictions[arm], arms[arm].cipher
            assert cipher is not None
            ciphertext = with_the_shared_key(experiment, panel.plain, cipher)
            expected = answer(experiment, arm, ciphertext)
            np.testing.assert_array_equal(guesses["right"], expected)
            np.testing.assert_array_equal(guesses["none"], answer(experiment, arm, panel.plain))


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
    assert [panel.client for panel in shown] == ["lindau", "munster", "ulm"]
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
                spare = policy.client in {panel.client for panel in panels}
                assert len(part.heldout_images) == len(val[policy.client]) - spare


def _values(image: np.ndarray) -> bytes:
    return bytes(np.sort(image, axis=None))


def test_a_cropped_scene_is_shown_and_labelled_as_cropped(
    tree: Path, tmp_path: Path, experiment: Experiment
) -> None:
    data = {"image_size": [16, 32], "fit": "crop"}
    cropped = small.prepared(small.config(tree, arms=["plain"], data=data), tmp_path)
    val = cropped.dataset.split("val")
    for panel in scene_panels(cropped):
        image, labels = val[panel.client][len(val[panel.client]) // 2].load()
        np.testing.assert_array_equal(panel.plain.transpose(2, 0, 1), image[:, 8:24, 16:48])
        np.testing.assert_array_equal(panel.label_map, labels[8:24, 16:48])


def test_gallery_has_every_cipher_under_a_key_of_its_own(experiment: Experiment) -> None:
    first, second = cipher_gallery(experiment), cipher_gallery(experiment)
    assert first is not None and second is not None
    reserved = experiment.dataset.split("val")["lindau"][1].load()[0]
    np.testing.assert_array_equal(first.plain, reserved.transpose(1, 2, 0))
    assert first.note == "your own data"
    products = {"shuffle+negative-positive", "shuffle-spatial+negative-positive"}
    assert set(first.encrypted) == set(CIPHERS) | products
    for name, picture in first.encrypted.items():
        assert picture.shape == first.plain.shape
        assert (picture != first.plain).any()
        assert (picture != second.encrypted[name]).any(), "keys serve one picture"
    plain, shuffled = (
        np.sort(to_blocks(image.transpose(2, 0, 1), 8))
        for image in (first.plain, first.encrypted["shuffle"])
    )
    np.testing.assert_array_equal(plain, shuffled)


def test_gallery_shows_no_image_that_a_shard_holds(tree: Path, tmp_path: Path) -> None:
    """The one val client has two scenes: none is reserved, unless all are public."""
    root = small.tree_of_links(tree, tmp_path / "tree")
    for kind in ("leftImg8bit", "gtFine"):
        for client in ("lindau", "munster"):
            shutil.rmtree(root / kind / "val" / client)
    private = small.prepared(small.config(root, arms=["plain"]), tmp_path)
    assert cipher_gallery(private) is None
    data = private.config.data.model_copy(update={"root": None})
    config = private.config.model_copy(update={"data": data})
    gallery = cipher_gallery(replace(private, config=config))
    assert gallery is not None
    assert gallery.note == "procedural scene"
    middle = private.dataset.split("val")["ulm"][1].load()[0]
    np.testing.assert_array_equal(gallery.plain, middle.transpose(1, 2, 0))


def test_gallery_leaves_out_a_cipher_that_refuses_the_block_size(
    tree: Path, tmp_path: Path
) -> None:
    changes = {"data": {"image_size": [35, 70]}, "model": {"patch_size": 7}}
    gallery = cipher_gallery(
        small.prepared(small.config(tree, arms=["plain"], **changes), tmp_path)
    )
    assert gallery is not None
    assert set(CIPHERS) - set(gallery.encrypted) == {"etc"}
