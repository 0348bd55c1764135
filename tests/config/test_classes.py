from pathlib import Path

import must_fail
import numpy as np
import pytest
import yaml
from cityscapesscripts.helpers.labels import labels as reference

from fl_ppseg.data.classes import IGNORE_INDEX, built_in_tables, load_class_table
from fl_ppseg.system.errors import InputError

SCORED = sorted((row for row in reference if 0 <= row.trainId < 255), key=lambda row: row.trainId)
CAMVID = {
    "sky": 23,
    "building": 11,
    "pole": 17,
    "road": 7,
    "sidewalk": 8,
    "vegetation": 21,
    "traffic sign": 20,
    "fence": 13,
    "car": 26,
    "person": 24,
    "bicycle": 33,
}


def test_cityscapes_equals_the_table_of_cityscapesscripts() -> None:
    table = load_class_table("cityscapes")
    assert table.num_classes == 19
    assert table.names == tuple(row.name for row in SCORED)
    assert [tuple(colour) for colour in table.colours.tolist()] == [row.color for row in SCORED]
    expected = np.full(256, IGNORE_INDEX)
    for row in reference:
        if row.id >= 0:
            expected[row.id] = row.trainId
    np.testing.assert_array_equal(table.label_to_train, expected)


def test_the_table_of_train_ids_is_that_of_cityscapes_but_for_the_values_of_its_maps() -> None:
    table, cityscapes = load_class_table("cityscapes-train-ids"), load_class_table("cityscapes")
    assert table.names == cityscapes.names
    np.testing.assert_array_equal(table.colours, cityscapes.colours)
    expected = np.full(256, IGNORE_INDEX)
    expected[:19] = range(19)
    np.testing.assert_array_equal(table.label_to_train, expected)


def test_camvid_has_eleven_classes_of_cityscapes() -> None:
    table = load_class_table("camvid")
    by_id = {row.id: row for row in reference}
    assert table.names == tuple(CAMVID)
    for train_id, (name, label_id) in enumerate(CAMVID.items()):
        assert table.label_to_train[label_id] == train_id
        assert by_id[label_id].name == name
        assert tuple(table.colours[train_id]) == by_id[label_id].color
    assert (table.label_to_train != IGNORE_INDEX).sum() == 11


def test_labelme_facade_has_eight_classes_of_which_two_are_none_of_cityscapes() -> None:
    table = load_class_table("labelme-facade")
    by_id = {row.id: row.name for row in reference}
    ids = dict(zip(table.names, table.train_to_label.tolist(), strict=False))
    own = {"door": 40, "window": 41}
    assert {name: by_id[k] for name, k in ids.items() if name not in own} == {
        "building": "building",
        "car": "car",
        "pavement": "sidewalk",
        "road": "road",
        "sky": "sky",
        "vegetation": "vegetation",
    }
    assert {name: ids[name] for name in own} == own
    assert not set(own.values()) & by_id.keys()
    assert (table.label_to_train != IGNORE_INDEX).sum() == 8


def test_encode_ignores_what_no_class_lists() -> None:
    encoded = load_class_table("cityscapes").encode(np.array([[0, 7], [33, 255]], np.uint8))
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[255, 0], [18, 255]]


def test_colourise_paints_road_and_leaves_ignored_black() -> None:
    painted = load_class_table("cityscapes").colourise(np.array([[0, 255]], np.uint8))
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[[128, 64, 128], [0, 0, 0]]]


def test_tables_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_class_table("cityscapes").label_to_train[7] = 3


def entry(name: str, train_id: object, *label_ids: object, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "train_id": train_id,
        "label_ids": list(label_ids),
        "colour": [1, 2, 3],
    } | more


def written(folder: Path, document: object) -> Path:
    path = folder / "table.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_a_table_of_ones_own_in_any_order(tmp_path: Path) -> None:
    classes = [entry("drivable", 1, 7, 9), entry("rest", 0, 0, colour=[9, 8, 7])]
    table = load_class_table(written(tmp_path, {"name": "mine", "classes": classes}))
    assert (table.name, table.names) == ("mine", ("rest", "drivable"))
    assert table.colours.tolist() == [[9, 8, 7], [1, 2, 3]]
    assert table.encode(np.array([0, 7, 9, 8], np.uint8)).tolist() == [0, 1, 1, 255]


@pytest.mark.parametrize("name", built_in_tables())
def test_label_ids_that_are_written_are_read_as_they_were_meant(name: str) -> None:
    table = load_class_table(name)
    train_ids = np.array([*range(table.num_classes), IGNORE_INDEX], np.uint8)
    np.testing.assert_array_equal(table.encode(table.train_to_label[train_ids]), train_ids)


def test_of_several_label_ids_the_smallest_is_written(tmp_path: Path) -> None:
    classes = [entry("drivable", 1, 9, 7), entry("rest", 0, 0, 1)]
    table = load_class_table(written(tmp_path, {"name": "mine", "classes": classes}))
    assert table.train_to_label[[0, 1, IGNORE_INDEX]].tolist() == [0, 7, 2]


@pytest.mark.parametrize(
    ("classes", "fault"),
    [
        ([entry("a", 0, 1)], "expected two classes or more, got only 'a'"),
        (
            [entry("a", 0, *range(255)), entry("b", 1, 255)],
            "all of the 256 labelIds are of a class; leave one out",
        ),
        ([entry("a", 0, 1), entry("b", 0, 2)], "train_id 0 is listed twice"),
        ([entry("a", 0, 1), entry("b", 1, 1)], "label_ids 1 is listed twice"),
        ([entry("a", 0, 1), entry("a", 1, 2)], "name 'a' is listed twice"),
        ([entry("a", 0, 1), entry("b", 2, 2)], "train_id 2 among 2 classes"),
        ([entry("a", 0, 256)], "classes.0.label_ids.0"),
        ([entry("a", 0, -1)], "classes.0.label_ids.0"),
        ([entry("a", 255, 1)], "classes.0.train_id"),
        ([entry("a", True, 1)], "classes.0.train_id"),
        ([entry("a", "0", 1)], "classes.0.train_id"),
        ([entry("a", 0)], "classes.0.label_ids"),
        ([entry("a", 0, 1, colour=[0, 0])], "classes.0.colour"),
        ([entry("a", 0, 1, colour=[0, 0, 300])], "classes.0.colour.2"),
        ([{"name": "a", "train_id": 0, "label_ids": [1]}], "classes.0.colour"),
        ([entry("a", 0, 1, color=[0, 0, 0])], "color"),
        ([], "classes"),
        ("road", "classes"),
    ],
)
def test_a_broken_table_is_one_line_that_names_file_and_key(
    tmp_path: Path, classes: object, fault: str
) -> None:
    path = written(tmp_path, {"name": "mine", "classes": classes})
    with pytest.raises(InputError) as caught:
        load_class_table(path)
    message = str(caught.value)
    assert str(path) in message and fault in message and "\n" not in message


@pytest.mark.filterwarnings("error")
@must_fail.of("class_tables")
def test_class_tables_that_must_fail_do_in_one_line(
    vector: must_fail.Vector, tmp_path: Path
) -> None:
    path = tmp_path / "table.yaml"
    path.write_bytes(vector.content)
    with pytest.raises(InputError) as caught:
        load_class_table(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and vector.error in message and "\n" not in message
    assert len(message) < 600 and message.isprintable()


def test_a_table_file_of_any_size_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text("name: x\n" + "# " + "x" * 2**17)
    with pytest.raises(InputError, match="expected a class table of at most"):
        load_class_table(path)


@pytest.mark.parametrize("document", ["", "- 1\n- 2\n", "name: [unclosed", "\ttabs: 1"])
def test_no_table_at_all_is_one_line(tmp_path: Path, document: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(InputError) as caught:
        load_class_table(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_name_lists_the_tables_there_are(tmp_path: Path) -> None:
    known = ("camvid", "cityscapes", "cityscapes-train-ids", "labelme-facade")
    assert built_in_tables() == known
    with pytest.raises(InputError, match=f"cityscape:.*{', '.join(known)}"):
        load_class_table("cityscape")
    with pytest.raises(InputError, match="cannot be read"):
        load_class_table(tmp_path)
