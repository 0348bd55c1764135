"""A federation whose nodes hold label maps in the order of their ciphertexts, data to scores."""

from pathlib import Path

import numpy as np
import pytest
import small_federation as small

from fl_ppseg.data.dataset import Scene
from fl_ppseg.experiment import scoring
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.checkpoints import load_checkpoint, model_of

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
    """As many pixels of each class as the plain label maps of the val clients have."""
    lines = [line for line in experiment.folder.lines() if line["confusion"] is not None]
    val = [line for line in lines if line["role"] == "val"]
    assert {line["round"] for line in val} == {0, 1, 2}
    maps = [s.load()[1] for s in experiment.dataset.split("val")[val[0]["client"]]]
    shown = {line["round"]: np.sum(line["confusion"], axis=1) for line in val[:: len(val) // 3]}
    expected = sum(np.bincount(each[each != 255], minlength=19)[:19] for each in maps)
    for counts in shown.values():
        np.testing.assert_array_equal(counts, expected)


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
