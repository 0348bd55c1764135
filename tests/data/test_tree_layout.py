"""Trees as people have them: what others left is passed over, what is wrong is told."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from small_tree import CLASSES, add_scene, image_path, label_path, small_tree

from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.system.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "data")


def cities(root: Path, split: str = "train") -> list[str]:
    return list(open_dataset(root, CLASSES).split(split))


def more_scenes(root: Path, city: str, number: int) -> list[str]:
    """Further scenes of a city; returns their stems."""
    stems = [f"{city}_{index:06}_000019" for index in range(1, number + 1)]
    for stem in stems:
        for path in (image_path(root, city), label_path(root, city)):
            shutil.copy(path, path.with_name(path.name.replace(f"{city}_000000_000019", stem)))
    return stems


def refusal(root: Path, *required: str) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(root, CLASSES, required or ("train",))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_file_managers_and_archives_leave_is_passed_over(tree: Path) -> None:
    images, city = tree / "leftImg8bit", tree / "leftImg8bit/train/aachen"
    for name in ("@eaDir", "__MACOSX", ".Trash-1000", "#recycle", "$RECYCLE.BIN", "lost+found"):
        for folder in (tree, images, images / "train", city, tree / "gtFine/train"):
            (folder / name).mkdir()
            (folder / name / "aachen_000000_000019_leftImg8bit.png").touch()
    for path in (
        city / "Thumbs.db", city / "desktop.ini", city / ".DS_Store", images / "train/README.txt",
        city / "._aachen_000000_000019_leftImg8bit.png", images / ".DS_Store",
        label_path(tree, "aachen").with_name("aachen_000000_000019_gtFine_instanceIds.png"),
        label_path(tree, "aachen").with_name("._aachen_000000_000019_gtFine_labelIds.png"),
    ):  # fmt: skip
        path.write_bytes(b"x")
    assert cities(tree) == ["aachen", "bochum"]
    assert [len(own) for own in open_dataset(tree, CLASSES).split("train").values()] == [1, 1]


@pytest.mark.parametrize("images_are", ["NFC", "NFD"])
def test_names_of_both_unicode_forms_are_one(tree: Path, images_are: str) -> None:
    forms = {"leftImg8bit": images_are, "gtFine": "NFD" if images_are == "NFC" else "NFC"}
    add_scene(tree, "münchen")
    for part, form in forms.items():
        folder = tree / part / "train" / "münchen"
        for path in list(folder.iterdir()):
            path.rename(folder / unicodedata.normalize(form, path.name))
        folder.rename(folder.with_name(unicodedata.normalize(form, folder.name)))
    (scene,) = open_dataset(tree, CLASSES).split("train")["münchen"]
    assert scene.scene_id == unicodedata.normalize("NFC", "train/münchen/münchen_000000_000019")
    scene.load()


def test_two_names_that_look_alike_are_refused(tree: Path) -> None:
    add_scene(tree, unicodedata.normalize("NFC", "münchen"))
    add_scene(tree, unicodedata.normalize("NFD", "münchen"))
    assert "different Unicode forms" in refusal(tree)


@pytest.mark.parametrize("name", ["\x1b[2Jaachen", "a\nerror: b", "a\u202eb", "a\udcffb"])
@pytest.mark.parametrize("part", ["leftImg8bit/train", "gtFine/train", "leftImg8bit/train/aachen"])
def test_names_that_a_terminal_would_obey_are_refused(tree: Path, name: str, part: str) -> None:
    (tree / part / name).mkdir()
    line = refusal(tree)
    assert "characters that cannot be printed" in line and line.isprintable()


def test_endings_may_be_upper_case(tree: Path) -> None:
    for path in (image_path(tree, "aachen"), label_path(tree, "aachen")):
        path.rename(path.with_suffix(".PNG"))
    (scene,) = open_dataset(tree, CLASSES).split("train")["aachen"]
    scene.load()


def test_archives_unpacked_each_into_its_own_folder_are_found(tree: Path) -> None:
    for part in ("leftImg8bit", "gtFine"):
        apart = tree / f"{part}_trainvaltest"
        apart.mkdir()
        (tree / part).rename(apart / part)
    dataset = open_dataset(tree, CLASSES)
    assert list(dataset.split("train")) == ["aachen", "bochum"]
    for scene in dataset.scenes():
        scene.load()


def test_two_archives_of_a_part_are_for_the_owner_to_choose(tree: Path) -> None:
    for kind in ("trainextra", "trainvaltest"):
        shutil.copytree(tree / "leftImg8bit", tree / f"leftImg8bit_{kind}" / "leftImg8bit")
    shutil.rmtree(tree / "leftImg8bit")
    line = refusal(tree)
    assert "leftImg8bit_trainextra" in line and "move the splits" in line


def test_a_part_in_the_place_of_the_tree_is_told(tree: Path) -> None:
    assert f"give its parent {tree}" in refusal(tree / "leftImg8bit")


def test_all_missing_label_maps_are_told_at_once(tree: Path) -> None:
    gone = [*more_scenes(tree, "aachen", 3), *more_scenes(tree, "bochum", 2)]
    for stem in gone:
        path = label_path(tree, stem.split("_")[0])
        path.with_name(f"{stem}_gtFine_labelIds.png").unlink()
    line = refusal(tree)
    assert "5 images have no label map" in line
    assert all(stem in line for stem in gone)


def test_thousands_of_missing_label_maps_are_one_line(tree: Path) -> None:
    for stem in more_scenes(tree, "aachen", 40):
        label_path(tree, "aachen").with_name(f"{stem}_gtFine_labelIds.png").unlink()
    line = refusal(tree)
    assert "40 images have no label map" in line and "and 30 more" in line
    assert len(line) < 1000


def test_polygons_without_label_maps_are_told_with_what_makes_them(tree: Path) -> None:
    for path in list(tree.rglob("*_labelIds.png")):
        path.rename(path.with_name(path.name.replace("labelIds.png", "polygons.json")))
    line = refusal(tree)
    assert "3 images" in line and "polygons" in line
    assert "python -m cityscapesscripts.preparation.json2labelImg" in line


def test_a_tree_of_links_is_read(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for part in ("leftImg8bit", "gtFine"):
        (tmp_path / "links" / part).symlink_to(tree / part)
    for scene in open_dataset(tmp_path / "links", CLASSES).scenes():
        scene.load()


def no_tree(root: Path) -> None:
    shutil.rmtree(root)


def a_file(root: Path) -> None:
    shutil.rmtree(root)
    root.touch()


def link_in_a_circle(root: Path) -> None:
    shutil.rmtree(root / "leftImg8bit/train")
    (root / "leftImg8bit/train").symlink_to(root / "leftImg8bit/train")


def city_is_a_file(root: Path) -> None:
    shutil.rmtree(root / "leftImg8bit/train")
    (root / "leftImg8bit/train").mkdir()
    (root / "leftImg8bit/train/aachen").touch()


def only_foreign_folders(root: Path) -> None:
    shutil.rmtree(root / "leftImg8bit/train")
    (root / "leftImg8bit/train/@eaDir").mkdir(parents=True)


def images_of_another_kind(root: Path) -> None:
    image_path(root, "aachen").rename(image_path(root, "aachen", kind="webp"))


def the_same_scene_twice(root: Path) -> None:
    add_scene(root, "aachen", kind="jpg")


def the_same_scene_in_two_cases(root: Path) -> None:
    path = image_path(root, "aachen")
    shutil.copy(path, path.with_suffix(".PNG"))


def labels_are_a_file(root: Path) -> None:
    shutil.rmtree(root / "gtFine/train")
    (root / "gtFine/train").touch()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_tree, "no such folder"),
        (a_file, "no such folder"),
        (link_in_a_circle, "has no 'train' split"),
        (city_is_a_file, "holds no city folder"),
        (only_foreign_folders, "holds no city folder"),
        (images_of_another_kind, "empty city"),
        (the_same_scene_twice, "has the same name as"),
        (the_same_scene_in_two_cases, "has the same name as"),
        (labels_are_a_file, "2 images have no label map"),
    ],
)
def test_trees_that_must_fail_do_in_one_line(
    tree: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(tree)
    assert said in refusal(tree)


def test_a_folder_that_cannot_be_listed_is_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, listing = tree / "leftImg8bit/train/bochum", os.listdir

    def refuse(path: str) -> list[str]:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", lambda self: (self / n for n in refuse(str(self))))
    assert f"{closed}: cannot be listed (Permission denied)" in refusal(tree)
