"""Label maps mean what every viewer shows, whatever rewrote them, or they are refused."""

from io import BytesIO
from pathlib import Path

import must_fail
import numpy as np
import pytest
from PIL import Image
from small_tree import CLASSES, label_ids, label_path, only_scene, small_tree

from fl_ppseg.data import label_maps
from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.label_maps import decode_label_ids
from fl_ppseg.system.errors import InputError

IDS = np.array([[7, 7, 11, 11], [23, 23, 26, 26], [0, 1, 17, 20]], np.uint8)


def as_palette(indices: np.ndarray, palette: np.ndarray) -> bytes:
    picture = Image.fromarray(indices.astype(np.uint8), mode="P")
    picture.putpalette(palette.astype(np.uint8).ravel().tolist())
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def read(data: bytes) -> np.ndarray:
    return decode_label_ids(data, Path("x.png"), CLASSES)


def class_colours() -> np.ndarray:
    """(256, 3), labelId -> the colour of its class, black for those of none."""
    colours = np.zeros((256, 3), np.uint8)
    for label_id, train_id in enumerate(CLASSES.label_to_train):
        if train_id != IGNORE_INDEX:
            colours[label_id] = CLASSES.colours[train_id]
    return colours


@pytest.mark.filterwarnings("error")
@must_fail.of("label_maps")
def test_label_maps_that_must_fail_do_in_one_line(vector: must_fail.Vector, tmp_path: Path) -> None:
    root = small_tree(tmp_path / "tree")
    label_path(root, "aachen").write_bytes(vector.content)
    scene = only_scene(root)
    with pytest.raises(InputError) as caught:
        scene.load()
    assert str(caught.value).startswith(str(scene.label_path)) and "\n" not in str(caught.value)
    assert vector.error in str(caught.value)


def test_the_control_of_the_vectors_is_read(tmp_path: Path) -> None:
    scene = only_scene(small_tree(tmp_path / "tree"))
    np.testing.assert_array_equal(scene.load()[1], CLASSES.encode(label_ids()))


def test_a_grey_palette_of_an_optimiser_is_its_grey_values() -> None:
    values, indices = np.unique(IDS, return_inverse=True)
    palette = np.repeat(values[:, None], 3, axis=1)
    np.testing.assert_array_equal(read(as_palette(indices.reshape(IDS.shape), palette)), IDS)


def test_a_colour_palette_is_its_indices() -> None:
    np.testing.assert_array_equal(read(as_palette(IDS, class_colours())), IDS)
    foreign = np.random.default_rng(0).integers(0, 256, (256, 3))
    np.testing.assert_array_equal(read(as_palette(IDS, foreign)), IDS)


def test_a_map_of_one_grey_class_colour_is_its_index() -> None:
    """Building is (70, 70, 70): grey, but the colour of a class, and labelId 70 is nothing."""
    ids = np.full((4, 4), 11, np.uint8)
    palette = np.zeros((12, 3))
    palette[11] = 70
    np.testing.assert_array_equal(read(as_palette(ids, palette)), ids)


def test_values_of_large_maps_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_maps, "BAND", 100)
    pixels = np.random.default_rng(0).integers(0, 256, (37, 41), dtype=np.uint8)
    expected = np.bincount(pixels.ravel(), minlength=256)
    with monkeypatch.context() as patch:
        seen: list[int] = []
        bincount = np.bincount
        patch.setattr(np, "bincount", lambda x, **more: seen.append(x.size) or bincount(x, **more))
        np.testing.assert_array_equal(label_maps.count_values(pixels), expected)
    assert max(seen) <= 100 and sum(seen) == pixels.size
