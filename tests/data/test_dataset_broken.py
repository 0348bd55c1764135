"""Trees that are not as they should be: each is one line that names the file."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ImageFile import ImageFile
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

from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.system.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "data")


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


def refuses(call: Callable[[], object]) -> str | None:
    try:
        call()
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("which", [image_path, label_path, as_jpeg])
def test_a_check_refuses_what_loading_refuses_wherever_a_file_is_cut(
    tree: Path, which: Callable[..., Path]
) -> None:
    path = image_path(tree, "aachen") if which is as_jpeg else which(tree, "aachen")
    if which is as_jpeg:
        as_jpeg(path)
        path = path.with_suffix(".jpg")
    whole, scene = path.read_bytes(), only_scene(tree)
    outcomes = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        outcomes.append(refuses(scene.check))
        assert outcomes[-1] == refuses(scene.load)
    assert None not in outcomes[: len(whole) // 2] and outcomes[-1] is None


def test_a_check_decodes_no_pixel_of_a_whole_pair(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = only_scene(tree)
    monkeypatch.setattr(Scene, "load", lambda _: pytest.fail("loaded"))
    monkeypatch.setattr(ImageFile, "load", lambda _: pytest.fail("decoded"))
    scene.check()


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
    for look in (only_scene(tree).load, only_scene(tree).check):
        with pytest.raises(InputError, match="labelIds are expected"):
            look()


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
    with pytest.raises(InputError, match="labelIds are expected"):
        only_scene(tree).load()


def test_sizes_that_differ_are_told(tree: Path) -> None:
    Image.fromarray(label_ids(HEIGHT, WIDTH + 1)).save(label_path(tree, "aachen"))
    for look in (only_scene(tree).load, only_scene(tree).check):
        with pytest.raises(InputError, match="21x12 but its image is 20x12"):
            look()
