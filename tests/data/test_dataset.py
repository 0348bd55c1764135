"""Any tree in Cityscapes layout is read as it was meant."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import photographs
import pytest
from PIL import Image
from small_tree import (
    CLASSES,
    HEIGHT,
    WIDTH,
    add_scene,
    as_jpeg,
    image_path,
    label_ids,
    label_path,
    only_scene,
    pixels,
    small_tree,
)

from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Dataset, open_dataset
from fl_ppseg.system.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "data")


def load_all(dataset: Dataset) -> int:
    """How many scenes there are; each of them is read."""
    scenes = [s for cities in dataset.splits.values() for city in cities.values() for s in city]
    return sum(len(scene.load()) == 2 for scene in scenes)


def test_scenes_by_split_and_city(tree: Path) -> None:
    dataset = open_dataset(tree, CLASSES)
    assert list(dataset.split("train")) == ["aachen", "bochum"]
    assert list(dataset.split("val")) == ["lindau"]
    scene = only_scene(tree)
    assert (scene.city, scene.split, scene.stem) == ("aachen", "train", "aachen_000000_000019")
    assert scene.scene_id == "train/aachen/aachen_000000_000019"
    assert load_all(dataset) == 3


def test_load_gives_chw_pixels_and_train_ids(tree: Path) -> None:
    image, labels = only_scene(tree).load()
    np.testing.assert_array_equal(image, pixels().transpose(2, 0, 1))
    np.testing.assert_array_equal(labels, CLASSES.encode(label_ids()))
    assert image.dtype == labels.dtype == np.uint8
    assert image.flags.c_contiguous


def as_grey(path: Path) -> None:
    Image.fromarray(pixels()).convert("L").save(path)


def as_palette(path: Path) -> None:
    Image.fromarray(pixels()).quantize(256).save(path)


def as_rgba(path: Path) -> None:
    picture = Image.fromarray(pixels())
    picture.putalpha(100)
    picture.save(path)


def as_cmyk(path: Path) -> None:
    Image.fromarray(pixels()).convert("CMYK").save(path.with_suffix(".jpeg"), quality=95)
    path.unlink()


def as_16_bit_grey(path: Path) -> None:
    grey = np.asarray(Image.fromarray(pixels()).convert("L")).astype(np.uint16)
    Image.fromarray(grey * 256 + 17).save(path)


@pytest.mark.parametrize(
    ("rewrite", "tolerance"),
    [(as_jpeg, 8), (as_grey, 0), (as_palette, 8), (as_rgba, 0), (as_cmyk, 8), (as_16_bit_grey, 0)],
)
def test_image_formats(tree: Path, rewrite: Callable[[Path], None], tolerance: float) -> None:
    rewrite(image_path(tree, "aachen"))
    image, _ = only_scene(tree).load()
    grey = np.asarray(Image.fromarray(pixels()).convert("L"))
    expected = np.stack([grey] * 3, -1) if "grey" in rewrite.__name__ else pixels()
    error = np.abs(image.transpose(1, 2, 0).astype(int) - expected)
    assert error.mean() <= tolerance


def test_palette_labels_are_their_indices(tree: Path) -> None:
    picture = Image.fromarray(label_ids(), mode="P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.save(label_path(tree, "aachen"))
    np.testing.assert_array_equal(only_scene(tree).load()[1], CLASSES.encode(label_ids()))


def test_a_tree_for_evaluation_needs_no_train_split(tree: Path) -> None:
    shutil.rmtree(tree / "leftImg8bit/train")
    dataset = open_dataset(tree, CLASSES, required=("val",))
    assert list(dataset.split("val")) == ["lindau"]
    with pytest.raises(InputError, match="'train'"):
        dataset.split("train")


def test_a_label_map_without_image_is_told(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(
        label_path(tree, "aachen"), label_path(tree, "aachen").with_stem("spare_gtFine_labelIds")
    )
    open_dataset(tree, CLASSES)
    assert "1 label maps have no image" in caplog.text


def test_hidden_files_of_archives_are_passed_over(tree: Path) -> None:
    image_path(tree, "aachen").with_name("._aachen_000000_000019_leftImg8bit.png").touch()
    assert only_scene(tree).stem == "aachen_000000_000019"


def test_size_is_read_without_the_pixels(tree: Path) -> None:
    scene = only_scene(tree)
    assert scene.size() == (HEIGHT, WIDTH)
    content = scene.label_path.read_bytes()
    scene.label_path.write_bytes(content[: content.index(b"IDAT") + 4])
    assert scene.size() == (HEIGHT, WIDTH)
    scene.label_path.write_bytes(content[:7])
    with pytest.raises(InputError, match="unreadable label map"):
        scene.size()


def test_any_split_that_is_asked_for_is_read(tree: Path) -> None:
    add_scene(tree, "berlin", split="test")
    assert "test" not in open_dataset(tree, CLASSES).splits
    dataset = open_dataset(tree, CLASSES, required=("test",))
    assert list(dataset.split("test")) == ["berlin"]
    with pytest.raises(InputError, match="has no 'demo' split"):
        open_dataset(tree, CLASSES, required=("demo",))


@pytest.mark.photographs
@pytest.mark.parametrize("name", photographs.SIZES)
def test_photographs_are_read_whole(name: str) -> None:
    num_train, num_val, num_classes = photographs.SIZES[name]
    classes = load_class_table(photographs.TABLES[name])
    dataset = open_dataset(photographs.tree(name), classes)
    train, val = dataset.split("train"), dataset.split("val")
    assert (classes.num_classes, len(train), len(val)) == (num_classes, 18, 3)
    assert (sum(map(len, train.values())), sum(map(len, val.values()))) == (num_train, num_val)
    assert load_all(dataset) == num_train + num_val
