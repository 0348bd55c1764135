"""A federation whose nodes hold label maps in the order of their ciphertexts, data to scores."""

from pathlib import Path

import numpy as np
import pytest
import small_federation as small
import torch
from torch.nn import functional

from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.pixel_order import scaled_to_cells
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.views import fit_for_scoring
from fl_ppseg.experiment import scoring
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.checkpoints import load_checkpoint, model_of
from fl_ppseg.learning.evaluation import confusion_counts

ARM = "per-image-invariant-spatial-labels"
HEAD = "pixel_head.query."


def trained(scenes: Path, place: Path) -> Experiment:
    settings = small.config(scenes, arms=[ARM], federation={"num_rounds": 2, "last_rounds": 1})
    experiment = small.prepared(settings, place)
    small.federate(experiment)
    return experiment


@pytest.fixture(scope="module")
def experiment(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return trained(scenes, tmp_path_factory.mktemp("labels"))


def test_nodes_score_what_their_labels_say_of_each_pixel(experiment: Experiment) -> None:
    """As the owner counts who brings scores of pixels back in place, without the decoder's."""
    checkpoint = load_checkpoint(experiment.folder.path / ARM)
    model = model_of(checkpoint)
    lines = [line for line in experiment.folder.lines() if line["role"] == "val"]
    assert {line["round"] for line in lines if line["confusion"] is not None} == {0, 1, 2}
    for line in (each for each in lines if each["round"] == 2):
        counts = np.zeros((19, 19), np.int64)
        for scene in experiment.dataset.split("val")[line["client"]]:
            image, labels = fit_for_scoring(*scene.load(), (32, 64), "resize", 8)
            cells = torch.from_numpy(scaled_to_cells(labels, (32, 64)))
            with torch.no_grad():  # of a plain image, whose pixels are in place
                scores = model(to_input(torch.from_numpy(image)[None])).main
            guess = functional.interpolate(scores, cells.shape, mode="nearest-exact").argmax(1)[0]
            counts += confusion_counts(guess, cells, 19).numpy()
        found = np.array(line["confusion"])
        np.testing.assert_array_equal(found.sum(axis=1), counts.sum(axis=1))
        assert np.abs(found - counts).sum() < 0.002 * counts.sum()  # sums of floats may differ


def test_training_does_not_depend_on_the_keys(
    scenes: Path, experiment: Experiment, tmp_path: Path
) -> None:
    """Keys are disposable, so another run has others; sums of floats alone may differ."""
    other = trained(scenes, tmp_path)
    own, again = (small.final(each.folder, ARM) for each in (experiment, other))
    for name in own:
        np.testing.assert_allclose(own[name], again[name], rtol=0, atol=1e-4, err_msg=name)
    moved = [float(np.abs(value).max()) for name, value in own.items() if name.startswith(HEAD)]
    assert max(moved) > 0.005  # some of it began as zero


def test_an_owner_scores_answers_in_place(
    experiment: Experiment, images: tuple[Scene, ...]
) -> None:
    checkpoint = load_checkpoint(experiment.folder.path / ARM)
    assert model_of(checkpoint).pixel_head is not None
    queries = scoring.queries(checkpoint, None)
    counts = [
        scoring.counts_by_image(checkpoint, {"aachen": images[:2]}, queries, "cpu")["aachen"]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*counts)
