"""What label maps hold is found out before anything is done with them, and judged."""

import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import photographs
import pytest
from PIL import Image
from small_tree import CLASSES, add_scene, image_path, label_path, pixels, small_tree

from fl_ppseg.data.classes import ClassTable, load_class_table
from fl_ppseg.data.dataset import Files, Scene, open_dataset
from fl_ppseg.data.preflight import cache
from fl_ppseg.data.preflight.cache import ScanCache
from fl_ppseg.data.preflight.rules import holds_train_ids, refuse_unusable, warnings
from fl_ppseg.data.preflight.scan import Scan, scan_data
from fl_ppseg.data.preflight.table import scan_table
from fl_ppseg.system.errors import InputError

STREET = np.array([[23, 23, 11, 11], [0, 7, 7, 26], [7, 7, 7, 8]], np.uint8)
TRAIN_IDS = load_class_table("cityscapes-train-ids")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "tree")


def with_labels(root: Path, city: str, ids: np.ndarray, split: str = "train") -> None:
    """Gives the one scene of a city other labels, and an image of their size."""
    Image.fromarray(ids.astype(np.uint8)).save(label_path(root, city, split))
    Image.fromarray(pixels(*ids.shape)).save(image_path(root, city, split))


def looked(root: Path, classes: ClassTable = CLASSES, **options: object) -> Scan:
    return scan_data(open_dataset(root, classes).splits, **options)  # type: ignore[arg-type]


def street(root: Path) -> Path:
    for city, split in (("aachen", "train"), ("bochum", "train"), ("lindau", "val")):
        with_labels(root, city, STREET, split)
    return root


def test_what_a_city_holds_by_hand(tree: Path) -> None:
    with_labels(tree, "aachen", STREET)
    found = looked(tree)
    (aachen, bochum) = found.of_split("train")
    assert (aachen.city, aachen.num_images, aachen.num_turned) == ("aachen", 1, 0)
    assert aachen.label_ids == [0, 7, 8, 11, 23, 26]
    assert aachen.counts[[0, 7, 8, 11, 23, 26]].tolist() == [1, 5, 1, 2, 2, 1]
    assert aachen.labelled == pytest.approx(11 / 12)
    assert len(aachen.missing) == 14 and "wall" in aachen.missing and "road" not in aachen.missing
    assert aachen.sizes == ((3, 4),)
    assert bochum.missing == []


@pytest.mark.parametrize("num_workers", [1, 2, 7])
def test_any_number_of_workers_finds_the_same(
    scenes: Path, num_workers: int, tmp_path: Path
) -> None:
    splits = open_dataset(scenes, CLASSES).splits
    seen: list[tuple[int, int]] = []
    found = scan_data(splits, num_workers, lambda done, total: seen.append((done, total)))
    alone = scan_data(splits)
    assert [city.counts.tolist() for city in found.cities] == [
        city.counts.tolist() for city in alone.cities
    ]
    assert [s.content for s in found.scenes] == [s.content for s in alone.scenes]
    assert seen == [(number, 20) for number in range(21)]


def test_an_interrupted_survey_begins_nothing_more(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def slow(scene: Scene) -> Files:
        begun.append(scene.stem)
        time.sleep(0.1)
        return files_of(scene)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    files_of = Scene.files
    monkeypatch.setattr(Scene, "files", slow)
    with pytest.raises(KeyboardInterrupt):
        scan_data(open_dataset(scenes, CLASSES).splits, 2, interrupt)
    number = len(begun)
    assert number <= 6
    time.sleep(0.3)
    assert len(begun) == number


def test_counts_are_those_of_the_maps(scenes: Path) -> None:
    dataset = open_dataset(scenes, CLASSES)
    for city in scan_data(dataset.splits, 2).cities:
        maps = [np.asarray(Image.open(s.label_path)) for s in dataset.split(city.split)[city.city]]
        np.testing.assert_array_equal(city.counts, np.bincount(np.ravel(maps), minlength=256))


def test_all_broken_files_are_named_at_once(tree: Path) -> None:
    image_path(tree, "aachen").write_bytes(b"x")
    label_path(tree, "lindau", "val").write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        looked(tree, num_workers=2)
    line = str(caught.value)
    assert line.startswith(str(image_path(tree, "aachen"))) and "\n" not in line
    assert "and 1 more: lindau_000000_000019" in line


def test_turned_images_are_counted_and_told(tree: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels()).save(image_path(tree, "aachen"), exif=exif)
    found = looked(tree)
    assert [city.num_turned for city in found.cities] == [1, 0, 0]
    (line,) = warnings(found)
    assert "EXIF orientation applied to 1 image" in line and "train/aachen 1" in line


# Files that change.


def changed_under_the_same_time(path: Path) -> None:
    """Other labels in as many bytes, at the same time."""
    before = path.stat()
    ids = np.asarray(Image.open(path)).copy()
    ids[ids == 11] = 12
    Image.fromarray(ids).save(path)
    with path.open("ab") as file:
        file.write(bytes(max(0, before.st_size - path.stat().st_size)))
    os.truncate(path, before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_file_that_changed_since_it_was_looked_at_is_refused(tree: Path) -> None:
    street(tree)
    scene = looked(tree).scenes[0]
    scene.load()
    scene.check()
    changed_under_the_same_time(scene.label_path)
    for read in (scene.load, scene.check):
        with pytest.raises(InputError, match="changed after the preflight check"):
            read()


def test_what_is_known_is_not_decoded_again_and_what_changed_is(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    street(tree)
    file = tmp_path / "cache" / "surveys.json"
    first = looked(tree, cache=ScanCache(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text("utf-8")
    assert "aachen" not in text and str(tree) not in text
    with monkeypatch.context() as patch:
        patch.setattr(Scene, "look", lambda *_: pytest.fail("decoded"))
        again = looked(tree, cache=ScanCache(file))
    assert scan_table(again) == scan_table(first)
    assert [s.content for s in again.scenes] == [s.content for s in first.scenes]

    changed_under_the_same_time(label_path(tree, "aachen"))
    third = looked(tree, cache=ScanCache(file))
    assert third.cities[0].label_ids == [0, 7, 8, 12, 23, 26]
    assert third.scenes[0].content != first.scenes[0].content


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b'{"x": [1, 1, false, {}]}',
        json.dumps({"0" * 64: [1, 1, False, {"256": 1}]}).encode(),
        json.dumps({"0" * 64: [1, 1, False, {"7": -1}]}).encode(),
        json.dumps({"0" * 64: [1, 1, False, {"7": 1.5}]}).encode(),
        json.dumps({"0" * 64: [1, 1, False, {"7": 2**60}]}).encode(),
        json.dumps({"0" * 64: [1, 1, False]}).encode(),
        b'{"' + b"0" * 64 + b'": [1, 1, false, {"7": NaN}]}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_cache_that_must_fail_is_as_if_it_were_not_there(
    content: bytes, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    file = tmp_path / "cache" / "surveys.json"
    file.write_bytes(content)
    kept = ScanCache(file)
    assert kept.find("0" * 64) is None
    looked(street(tree), cache=kept)
    assert len(json.loads(file.read_text("utf-8"))) == 1  # all three scenes are alike


def test_a_cache_that_cannot_be_written_is_no_matter(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    looked(tree, cache=ScanCache(tmp_path / "file" / "surveys.json"))


def test_a_user_without_a_home_has_no_cache(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "user_folder", homeless)
    looked(tree, cache=ScanCache.of_table(CLASSES))


def test_each_class_table_has_a_cache_of_its_own(tree: Path) -> None:
    """What a palette means depends on the table."""
    looked(street(tree), cache=ScanCache.of_table(CLASSES))
    content = looked(tree).scenes[0].content
    assert content is not None
    assert ScanCache.of_table(CLASSES).find(content) is not None
    assert ScanCache.of_table(load_class_table("camvid")).find(content) is None


def test_a_cache_has_room_for_so_many(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    for city in ("aachen", "bochum", "lindau"):
        split = "val" if city == "lindau" else "train"
        with_labels(tree, city, STREET + (city == "bochum") + 2 * (city == "lindau"), split)
    found = looked(tree, cache=ScanCache(tmp_path / "c" / "s.json"))
    kept = json.loads((tmp_path / "c" / "s.json").read_text("utf-8"))
    assert list(kept) == [scene.content for scene in found.scenes[1:]]


# What cannot be meant.


def as_train_ids(ids: np.ndarray) -> np.ndarray:
    return CLASSES.label_to_train[ids]


def refusal(root: Path, classes: ClassTable = CLASSES) -> str:
    with pytest.raises(InputError) as caught:
        refuse_unusable(looked(root, classes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_train_ids_under_the_name_of_label_ids_are_refused_by_folder(tree: Path) -> None:
    street(tree)
    refuse_unusable(looked(tree))
    with_labels(tree, "bochum", as_train_ids(STREET))
    line = refusal(tree)
    assert line.startswith(str(tree / "gtFine/train/bochum")) and "trainIds" in line
    assert "data.classes=cityscapes-train-ids" in line and "aachen" not in line
    with_labels(tree, "lindau", as_train_ids(STREET), "val")
    assert "and so do val/lindau" in refusal(tree)


def test_train_ids_are_read_with_their_own_table(tree: Path) -> None:
    street(tree)
    expected = [scene.load()[1] for scene in looked(tree).scenes]
    for city, split in (("aachen", "train"), ("bochum", "train"), ("lindau", "val")):
        with_labels(tree, city, as_train_ids(STREET), split)
    found = looked(tree, TRAIN_IDS)
    refuse_unusable(found)
    for scene, labels in zip(found.scenes, expected, strict=True):
        np.testing.assert_array_equal(scene.load()[1], labels)


@pytest.mark.parametrize(
    "ids",
    [
        [[0, 0, 0, 0], [0, 0, 0, 7]],  # hardly anything is labelled, and that is road
        [[7, 7, 11, 11], [0, 1, 2, 3]],  # no sky, no car; hood and borders of the picture
        [[7, 7, 8, 8], [255, 255, 255, 255]],
        [[7, 23, 26, 33], [0, 1, 2, 3]],
    ],
)
def test_label_ids_are_not_taken_for_train_ids(ids: list[list[int]], tree: Path) -> None:
    street(tree)
    with_labels(tree, "aachen", np.array(ids))
    refuse_unusable(looked(tree))


def bdd(rng: np.random.Generator) -> np.ndarray:
    """TrainIds in BDD100K's proportions (Yu et al., 2020), in the lower half signs and people."""
    shares = {0: 30, 1: 3, 2: 19, 8: 19, 9: 1, 10: 25, 13: 11, 5: 1, 7: 1, 11: 1, 255: 8}
    values = rng.choice(list(shares), 400, p=np.array(list(shares.values())) / sum(shares.values()))
    return values.reshape(20, 20)


def test_train_ids_of_all_classes_are_recognised_whatever_their_proportions(scenes: Path) -> None:
    """Where a third of the pixels happen to be labelIds of classes as well."""
    for city in looked(scenes).cities:
        assert not holds_train_ids(city)
        ids = np.bincount(CLASSES.label_to_train, city.counts, minlength=256).astype(np.int64)
        assert holds_train_ids(replace(city, counts=ids))


def test_ids_that_are_train_ids_and_one_more_are_label_ids(tree: Path, tmp_path: Path) -> None:
    """A table of 1 to 8, and a city without the last class."""
    table = tmp_path / "table.yaml"
    entries = "".join(
        f"  - {{name: c{k}, train_id: {k}, label_ids: [{k + 1}], colour: [{k}, 0, 0]}}\n"
        for k in range(8)
    )
    table.write_text(f"name: t\nclasses:\n{entries}")
    for city, split in (("aachen", "train"), ("bochum", "train"), ("lindau", "val")):
        with_labels(tree, city, np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), split)
    refuse_unusable(looked(tree, load_class_table(table)))


def test_train_ids_with_people_signs_and_trees_are_recognised(tree: Path) -> None:
    """Their values are labelIds as well: 7, 8, 11 and 13 are road, sidewalk, building, fence."""
    street(tree)
    with_labels(tree, "aachen", bdd(np.random.default_rng(0)))
    assert "trainIds" in refusal(tree)


def unlabelled(root: Path, city: str, split: str) -> None:
    with_labels(root, city, np.full((3, 4), 255), split)


def test_a_training_city_without_labels_is_told_by_name(tree: Path) -> None:
    street(tree)
    unlabelled(tree, "bochum", "train")
    found = looked(tree)
    refuse_unusable(found)
    (line,) = warnings(found)
    assert "no labelled pixel in 1 label map of training city bochum" in line
    assert str(tree / "gtFine/train/bochum") in line and "values met: 255" in line


def test_a_training_set_without_labels_is_refused(tree: Path) -> None:
    street(tree)
    for city in ("aachen", "bochum"):
        unlabelled(tree, city, "train")
    assert "no training image has a labelled pixel (values met: 255)" in refusal(tree)


def test_a_val_city_without_labels_is_refused(tree: Path) -> None:
    street(tree)
    add_scene(tree, "ulm", "val")
    unlabelled(tree, "lindau", "val")
    line = refusal(tree)
    assert line.startswith(str(tree / "gtFine/val/lindau")) and "val/lindau" in line
    assert "ulm" not in line


def test_the_classes_of_another_data_set_are_refused(tree: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    table.write_text(
        "name: t\nclasses:\n"
        "  - {name: a, train_id: 0, label_ids: [100], colour: [1, 2, 3]}\n"
        "  - {name: b, train_id: 1, label_ids: [101], colour: [4, 5, 6]}\n"
    )
    assert "no training image has a labelled pixel" in refusal(
        street(tree), load_class_table(table)
    )


# In words.


def test_the_table_says_what_each_city_holds(tree: Path) -> None:
    with_labels(tree, "aachen", STREET)
    head, aachen, bochum, lindau = scan_table(looked(tree)).splitlines()
    assert head.split()[:4] == ["split", "city", "images", "labelled"]
    assert " ".join(aachen.split()).startswith("train aachen 1 91.7 % 0 7 8 11 23 26 14: wall")
    assert aachen.endswith("14: wall, fence, pole and 11 more")
    assert "0 1 2 3 4 5 6 7 8 9 10 11 +22" in bochum and bochum.endswith("none")
    assert lindau.startswith("val ")


def test_the_table_is_bounded(tree: Path) -> None:
    for number in range(100):
        add_scene(tree, f"city-{number:03}")
    lines = scan_table(looked(tree)).splitlines()
    assert len(lines) < 40 and max(map(len, lines)) < 200
    assert any("72 more" in line for line in lines)


def test_classes_of_no_city_are_told_of_the_split(tree: Path) -> None:
    table = scan_table(looked(street(tree)))
    assert "no city of train has: wall, fence" in table


@pytest.mark.photographs
@pytest.mark.parametrize("name", photographs.SIZES)
def test_photographs_are_meant_as_they_are(name: str) -> None:
    num_train, num_val, num_classes = photographs.SIZES[name]
    classes = load_class_table(photographs.TABLES[name])
    found = looked(photographs.tree(name), classes, num_workers=2)
    refuse_unusable(found)
    assert warnings(found) == []
    train, val = found.of_split("train"), found.of_split("val")
    assert (sum(c.num_images for c in train), sum(c.num_images for c in val)) == (
        num_train,
        num_val,
    )
    met = {k for city in found.cities for k in classes.label_to_train[city.label_ids]}
    assert met == {*range(num_classes), 255}
    assert not {city.city for city in train} & {city.city for city in val}
