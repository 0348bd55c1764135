"""The file of counts: what was put in comes out, and what is no such file is refused in a line."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fl_ppseg.config.run_layout import VAL_IMAGES
from fl_ppseg.experiment.val_counts import (
    ValCounts,
    digest_of,
    digest_of_images,
    load_counts,
    name_of,
    save_counts,
)
from fl_ppseg.system.errors import InputError

TABLE = np.arange(2 * 3 * 2 * 2, dtype=np.int64).reshape(2, 3, 2, 2)
NAME = name_of("per-image", 7, "newest")
ABOUT = {
    "schema": "2",
    "images": "digest",
    "clients": json.dumps({"ulm": 1, "bonn": 2}),
    "weights": json.dumps({NAME: "weights"}),
}


def test_counts_come_out_as_they_were_put_in(tmp_path: Path) -> None:
    assert load_counts(tmp_path) is None
    counts = ValCounts("digest", {"ulm": 1, "bonn": 2}).including(NAME, TABLE, "weights")
    save_counts(tmp_path, counts)
    found = load_counts(tmp_path)
    assert found is not None
    assert (found.images, list(found.clients.items())) == ("digest", [("ulm", 1), ("bonn", 2)])
    assert found.weights == {NAME: "weights"}
    table = found.of("per-image", 7, "newest")
    np.testing.assert_array_equal(table, TABLE)
    assert found.of("per-image", 7, "start") is None
    later = found.including(NAME, TABLE + 1, "others")
    assert (later.weights, found.weights) == ({NAME: "others"}, {NAME: "weights"})


@pytest.mark.parametrize(
    ("changes", "table", "wanted"),
    [
        ({"schema": "1"}, TABLE, "schema '1', expected '2'"),
        ({"clients": json.dumps({"ulm": 1})}, TABLE, r"expected \(M, 1, C, C\)"),
        ({"clients": json.dumps({"ulm": -1, "bonn": 4})}, TABLE, "differ"),
        ({"clients": json.dumps({"ulm": "1"})}, TABLE, "clients: .*int"),
        ({"clients": json.dumps([1, 2])}, TABLE, "clients: "),
        ({"clients": "[" * 5000}, TABLE, "clients: "),
        ({"weights": json.dumps({})}, TABLE, "differ"),
        ({"weights": "{"}, TABLE, "weights: "),
        ({}, TABLE[0], "shape"),
        ({}, TABLE[:0], "shape"),
        ({}, TABLE[..., :1], "shape"),
        ({}, TABLE[:, :, :0, :0], "shape"),
        ({}, TABLE.astype(np.float32), "uint32"),
    ],
)
def test_what_is_no_file_of_counts_is_refused(
    changes: dict[str, str], table: np.ndarray, wanted: str, tmp_path: Path
) -> None:
    kind = np.float32 if table.dtype == np.float32 else np.uint32
    tensors = {NAME: np.ascontiguousarray(table.astype(kind))}
    (tmp_path / VAL_IMAGES).write_bytes(save(tensors, ABOUT | changes))
    with pytest.raises(InputError, match=wanted) as refused:
        load_counts(tmp_path)
    assert "remove it and make it again with --resume" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_such_file_at_all_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / VAL_IMAGES).write_bytes(content)
    with pytest.raises(InputError, match="is not a file of counts"):
        load_counts(tmp_path)


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    whole = save({NAME: TABLE.astype(np.uint32)}, ABOUT)
    (tmp_path / VAL_IMAGES).write_bytes(whole)
    assert load_counts(tmp_path) is not None
    (tmp_path / VAL_IMAGES).write_bytes(whole[:-4])
    with pytest.raises(InputError, match="is not a file of counts"):
        load_counts(tmp_path)


def test_digests_tell_weights_and_images_from_others() -> None:
    weights = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    others = [
        weights | {"b": np.zeros(2, np.float32)},
        weights | {"a": np.zeros((3, 2), np.float32)},
        {"a": weights["a"], "c": weights["b"]},
    ]
    assert digest_of(weights) == digest_of(dict(reversed(weights.items())))
    assert digest_of(weights) not in map(digest_of, others)
    scenes = [("ulm", "1"), ("ulm", "2")]
    assert digest_of_images(scenes) != digest_of_images(scenes[::-1])
    assert digest_of_images(scenes) != digest_of_images([("ulm", "1"), ("bonn", "2")])
