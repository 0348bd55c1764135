"""The answer without an image: what the training label maps say of each pixel, and nothing else."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fl_ppseg.config.loading import load_config
from fl_ppseg.config.run_layout import NO_IMAGE
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.data.partition.record import Partition
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.learning.evaluation import score
from fl_ppseg.learning.no_image import (
    AT_ONCE,
    counts_without_image,
    label_maps_of,
    load_answer,
    majority,
)
from fl_ppseg.system.errors import InputError

LABELS = arrays(np.uint8, (7, 3, 4), elements=st.sampled_from([0, 1, 2, 255]))


@pytest.fixture(scope="module")
def experiment(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return small.prepared(small.config(scenes), tmp_path_factory.mktemp("prior"))


def commonest(values: np.ndarray, otherwise: int) -> int:
    """By counting, one value after the other."""
    found = [int(value) for value in values if value != 255]
    return max(sorted(set(found)), key=found.count) if found else otherwise


@given(LABELS)
def test_each_pixel_has_its_commonest_class_and_unlabelled_ones_that_of_all(
    maps: np.ndarray,
) -> None:
    answer = majority(maps, 3)
    overall = commonest(maps.ravel(), 0)
    for place in np.ndindex(3, 4):
        assert answer[place] == commonest(maps[(slice(None), *place)], overall)


@given(LABELS, st.integers(0, 6))
def test_no_order_of_the_label_maps_changes_it(maps: np.ndarray, turn: int) -> None:
    np.testing.assert_array_equal(majority(maps, 3), majority(np.roll(maps, turn, axis=0), 3))


def test_answers_are_counted_as_those_of_a_model_of_any_size() -> None:
    """Whole factors: each pixel of the answer is a square of the label map, up to its borders."""
    answer = np.array([[0, 1], [2, 0]], np.uint8)
    same = np.array([[0, 1], [255, 1]], np.uint8)
    np.testing.assert_array_equal(
        counts_without_image(answer, [same, same], 3), [[[1, 0, 0], [1, 1, 0], [0, 0, 0]]] * 2
    )
    halves = np.array([[0, 0, 0, 0, 1, 1, 1, 1]] * 2, np.uint8)
    found = counts_without_image(np.array([[0, 1]], np.uint8), [halves], 2)
    np.testing.assert_array_equal(found, [[[8, 0], [0, 8]]])


def test_it_is_made_of_what_clients_train_on_and_of_no_other_label_map(
    experiment: Experiment, scenes: Path
) -> None:
    partition = Partition.from_json(experiment.folder.partition.read_text(), "partition")
    named = [ref for client in partition.clients for ref in partition.split(client)[0]]
    table = load_class_table("cityscapes")
    train = open_dataset(scenes, table).split("train")
    maps = [s.load()[1] for own in train.values() for s in own if (s.city, s.stem) in named]
    assert 0 < len(maps) < sum(map(len, train.values()))  # held-out ones are left out
    np.testing.assert_array_equal(
        np.array(Image.open(experiment.folder.path / NO_IMAGE)), majority(maps, table.num_classes)
    )


def test_it_is_scored_on_the_images_that_arms_are_scored_on(experiment: Experiment) -> None:
    answer = load_answer(experiment.folder.path, 19)
    assert answer is not None
    val = [scene for own in experiment.dataset.split("val").values() for scene in own]
    truth = np.stack([scene.load()[1] for scene in val])
    guess = np.broadcast_to(answer, truth.shape)[truth != 255]
    counts = np.zeros((19, 19), np.int64)
    np.add.at(counts, (truth[truth != 255], guess), 1)
    assert experiment.no_image == score(counts)
    assert 0 < experiment.no_image.mIoU < experiment.no_image.aAcc < 100


def test_images_are_not_decoded_and_a_resumed_run_reads_no_training_label_map(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small.prepared(small.config(scenes), tmp_path)
    read: list[str] = []
    label_map = Scene.label_map
    monkeypatch.setattr(Scene, "label_map", lambda s: (read.append(s.split), label_map(s))[1])
    again = small.prepared(load_config(experiment.folder.config), tmp_path)
    assert read == ["val"] * 4
    assert again.no_image == experiment.no_image
    (experiment.folder.path / NO_IMAGE).unlink()
    monkeypatch.setattr(Scene, "decode", None)  # of images
    scene = next(iter(again.dataset.split("train").values()))[0]
    assert scene.label_map().dtype == np.uint8


def test_many_label_maps_are_read_a_few_at_a_time(cities: dict[str, tuple[Scene, ...]]) -> None:
    many = [scene for own in cities.values() for scene in own] * 9
    done: list[tuple[int, int]] = []
    found = label_maps_of(many, 2, lambda *each: done.append(each))
    first = next(found)
    assert first.shape == (32, 64) and done == []
    assert len(list(found)) == len(many) - 1
    assert done == [(AT_ONCE, len(many)), (2 * AT_ONCE, len(many)), (len(many), len(many))]


@pytest.mark.parametrize(
    ("pixels", "wanted"),
    [(np.full((4, 4), 19, np.uint8), "below 19"), (np.zeros((4, 4, 3), np.uint8), "one channel")],
)
def test_a_file_that_is_no_answer_is_refused(
    pixels: np.ndarray, wanted: str, tmp_path: Path
) -> None:
    assert load_answer(tmp_path, 19) is None
    Image.fromarray(pixels).save(tmp_path / NO_IMAGE)
    with pytest.raises(InputError, match=f"{re.escape(str(tmp_path / NO_IMAGE))}: .*{wanted}"):
        load_answer(tmp_path, 19)
    shutil.rmtree(tmp_path)
