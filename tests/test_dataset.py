import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fl_ppseg.classes import load_class_table
from fl_ppseg.dataset import Dataset, Scene, open_dataset
from fl_ppseg.errors import InputError

CLASSES = load_class_table("cityscapes")
CAMVID = Path(
    os.environ.get("FL_PPSEG_CAMVID", Path(__file__).parents[2] / "shared" / "data" / "camvid")
)
HEIGHT, WIDTH = 12, 20


def pixels(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A gradient with another slope in each channel, (H, W, 3)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 9, columns * 7, rows + columns], axis=-1).astype(np.uint8)


def label_ids(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return (np.arange(height * width) % 34).reshape(height, width).astype(np.uint8)


def image_path(root: Path, city: str, split: str = "train", kind: str = "png") -> Path:
    return root / "leftImg8bit" / split / city / f"{city}_000000_000019_leftImg8bit.{kind}"


def label_path(root: Path, city: str, split: str = "train") -> Path:
    return root / "gtFine" / split / city / f"{city}_000000_000019_gtFine_labelIds.png"


def add_scene(root: Path, city: str, split: str = "train", kind: str = "png") -> None:
    for path, array in (
        (image_path(root, city, split, kind), pixels()),
        (label_path(root, city, split), label_ids()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    add_scene(root, "bochum")
    add_scene(root, "aachen")
    add_scene(root, "lindau", split="val")
    return root


def only_scene(root: Path, city: str = "aachen") -> Scene:
    (scene,) = open_dataset(root, CLASSES).split("train")[city]
    return scene


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


def as_jpeg(path: Path) -> None:
    Image.fromarray(pixels()).save(path.with_suffix(".jpg"), quality=95)
    path.unlink()


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


def remove_label(root: Path) -> Path:
    label_path(root, "bochum").unlink()
    return label_path(root, "bochum")


def remove_label_city(root: Path) -> Path:
    shutil.rmtree(root / "gtFine/train/bochum")
    return label_path(root, "bochum")


def remove_gt(root: Path) -> Path:
    shutil.rmtree(root / "gtFine")
    return root / "gtFine"


def remove_images(root: Path) -> Path:
    shutil.rmtree(root / "leftImg8bit")
    return root / "leftImg8bit"


def remove_train(root: Path) -> Path:
    shutil.rmtree(root / "leftImg8bit/train")
    return root / "leftImg8bit/train"


def empty_train(root: Path) -> Path:
    remove_train(root).mkdir()
    return root / "leftImg8bit/train"


def empty_city(root: Path) -> Path:
    (root / "leftImg8bit/train/cologne").mkdir()
    return root / "leftImg8bit/train/cologne"


def image_twice(root: Path) -> Path:
    add_scene(root, "aachen", kind="jpg")
    return root / "leftImg8bit/train/aachen"


def remove_all(root: Path) -> Path:
    shutil.rmtree(root)
    return root


@pytest.mark.parametrize(
    "damage",
    [
        remove_label, remove_label_city, remove_gt, remove_images, remove_train, empty_train,
        empty_city, image_twice, remove_all,
    ],
)  # fmt: skip
def test_a_broken_layout_is_found_on_opening(tree: Path, damage: Callable[[Path], Path]) -> None:
    culprit = damage(tree)
    with pytest.raises(InputError) as caught:
        open_dataset(tree, CLASSES)
    assert str(caught.value).startswith(str(culprit)) and "\n" not in str(caught.value)


def test_a_tree_for_evaluation_needs_no_train_split(tree: Path) -> None:
    remove_train(tree)
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


@pytest.mark.parametrize("which", [image_path, label_path])
def test_a_truncated_png_is_refused_and_never_gives_wrong_pixels(
    tree: Path, which: Callable[[Path, str], Path]
) -> None:
    path, scene = which(tree, "aachen"), only_scene(tree)
    whole, expected = path.read_bytes(), scene.load()
    # No pixel is in the last bytes: end of the stream (up to 2), Adler-32, CRC, the IEND chunk.
    num_pixel_bytes = len(whole) - (2 + 4 + 4 + 12)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            loaded = scene.load()
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert length >= num_pixel_bytes
            for array, intended in zip(loaded, expected, strict=True):
                np.testing.assert_array_equal(array, intended)


def test_a_missing_file_is_named_on_loading(tree: Path) -> None:
    scene = only_scene(tree)
    scene.image_path.unlink()
    with pytest.raises(InputError, match="unreadable image"):
        scene.load()


@pytest.mark.parametrize(
    "labels",
    [
        Image.fromarray(pixels()),
        Image.fromarray(label_ids().astype(np.uint16) * 1000),
        Image.fromarray(label_ids()).convert("LA"),
        Image.fromarray(label_ids()).convert("1"),
    ],
    ids=["colour", "instanceIds", "alpha", "bits"],
)
def test_labels_that_are_no_label_ids_are_refused(tree: Path, labels: Image.Image) -> None:
    labels.save(label_path(tree, "aachen"))
    with pytest.raises(InputError, match="labelIds are wanted"):
        only_scene(tree).load()


def test_a_jpeg_under_the_name_of_a_label_map_is_refused(tree: Path) -> None:
    Image.fromarray(label_ids()).save(label_path(tree, "aachen"), format="JPEG")
    with pytest.raises(InputError, match="JPEG of mode L, but labelIds"):
        only_scene(tree).load()


def grey_png_of_four_bits(labels: np.ndarray) -> bytes:
    """By hand, as Pillow writes none: chunks as in the PNG specification."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = labels.shape
    rows = b"".join(b"\0" + bytes(row[::2] * 16 + row[1::2]) for row in labels % 16)
    header = struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_grey_labels_of_four_bits_are_refused_rather_than_stretched(tree: Path) -> None:
    label_path(tree, "aachen").write_bytes(grey_png_of_four_bits(label_ids()))
    with pytest.raises(InputError, match="labelIds are wanted"):
        only_scene(tree).load()


def test_sizes_that_differ_are_told(tree: Path) -> None:
    Image.fromarray(label_ids(HEIGHT, WIDTH + 1)).save(label_path(tree, "aachen"))
    with pytest.raises(InputError, match="21x12 but its image is 20x12"):
        only_scene(tree).load()


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


@pytest.fixture(scope="module")
def camvid() -> Dataset:
    if not CAMVID.is_dir():
        pytest.skip(f"no CamVid tree at {CAMVID}")
    return open_dataset(CAMVID, load_class_table("camvid"))


@pytest.mark.camvid
def test_camvid_is_read_whole(camvid: Dataset) -> None:
    train, val = camvid.split("train"), camvid.split("val")
    assert (len(train), sum(map(len, train.values()))) == (18, 367)
    assert sum(map(len, val.values())) == 101
    assert load_all(camvid) == 468


@pytest.mark.camvid
def test_camvid_labels_are_its_eleven_classes(camvid: Dataset) -> None:
    (scenes,) = camvid.split("val").values()
    maps = [scene.load()[1] for scene in scenes]
    assert {labels.shape for labels in maps} == {(180, 240)}
    assert set(np.unique(maps)) == {*range(11), 255}
