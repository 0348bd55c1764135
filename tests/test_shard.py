"""Encrypted shards: whole or absent, memory-mapped, several as one."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fl_ppseg.errors import InputError
from fl_ppseg.shard import Manifest, Shard, ShardPart, open_shard, read_manifest, writing_shard

SIZE = (48, 32)
SIZES = [(5, 7), (64, 32), (1, 1)]
Pair = tuple[np.ndarray, np.ndarray]


def pairs(seed: int, label_sizes: Sequence[tuple[int, int]]) -> list[Pair]:
    generator = np.random.default_rng(seed)
    return [
        (
            generator.integers(0, 256, (3, *SIZE), dtype=np.uint8),
            generator.integers(0, 20, size, dtype=np.uint8),
        )
        for size in label_sizes
    ]


def manifest(city: str, num_images: int, num_views: int = 2) -> Manifest:
    return Manifest(1, city, "digest", 8, num_images, num_views, SIZES)


def write(root: Path, city: str, num_images: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """A shard with two views an image; returns its views and its held-out pairs."""
    views, heldout = pairs(seed, [SIZE] * (2 * num_images)), pairs(seed + 1, SIZES)
    with writing_shard(root / city, manifest(city, num_images), SIZE) as writer:
        for view in views:
            writer.add_view(*view)
        for pair in heldout:
            writer.add_heldout(*pair)
    return views, heldout


def assert_same(found: Sequence[Pair], wanted: Sequence[Pair]) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        for left, right in zip(ours, theirs, strict=True):
            assert left.dtype == np.uint8
            np.testing.assert_array_equal(left, right)


def test_views_and_heldout_come_back(tmp_path: Path) -> None:
    views, heldout = write(tmp_path, "ulm", 3, seed=0)
    shard = open_shard([tmp_path / "ulm"])
    assert (len(shard), shard.num_views, shard.num_heldout) == (3, 2, 3)
    assert shard.image_size == SIZE
    assert read_manifest(tmp_path / "ulm") == manifest("ulm", 3)
    images, labels = shard.batch([2, 0, 2, 1], [1, 0, 0, 1])
    assert_same(list(zip(images, labels, strict=True)), [views[k] for k in (5, 0, 4, 3)])
    assert_same(list(shard.heldout()), heldout)


def test_the_layout_is_that_of_cityscapes(tmp_path: Path) -> None:
    write(tmp_path, "ulm", 3, seed=0)
    files = sorted(str(p.relative_to(tmp_path / "ulm")) for p in tmp_path.rglob("*.*"))
    assert files == [
        "gtFine/train/ulm.npy",
        "gtFine/val/ulm.npy",
        "leftImg8bit/train/ulm.npy",
        "leftImg8bit/val/ulm.npy",
        "manifest.json",
    ]
    labels = np.load(tmp_path / "ulm" / "gtFine" / "val" / "ulm.npy")
    assert labels.shape == (5 * 7 + 64 * 32 + 1,)


def test_large_arrays_are_mapped_and_read_only(tmp_path: Path) -> None:
    write(tmp_path, "ulm", 3, seed=0)
    (part,) = open_shard([tmp_path / "ulm"]).parts
    assert isinstance(part.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        part.images[0] = 0


def test_several_cities_are_one_shard(tmp_path: Path) -> None:
    first, first_heldout = write(tmp_path, "bonn", 2, seed=0)
    second, second_heldout = write(tmp_path, "ulm", 3, seed=10)
    shard = open_shard([tmp_path / "bonn", tmp_path / "ulm"])
    assert (len(shard), shard.num_heldout) == (5, 6)
    images, labels = shard.batch(range(5), [1, 0, 1, 0, 1])
    expected = [first[1], first[2], second[1], second[2], second[5]]
    assert_same(list(zip(images, labels, strict=True)), expected)
    assert_same(list(shard.heldout()), first_heldout + second_heldout)


def test_a_val_city_has_no_training_images(tmp_path: Path) -> None:
    _, heldout = write(tmp_path, "lindau", 0, seed=0)
    shard = open_shard([tmp_path / "lindau"])
    assert len(shard) == 0
    assert shard.image_size == SIZE
    assert_same(list(shard.heldout()), heldout)


def test_nothing_held_out(tmp_path: Path) -> None:
    alone = Manifest(1, "ulm", "digest", 8, 1, 1, [])
    (view,) = pairs(0, [SIZE])
    with writing_shard(tmp_path / "ulm", alone, SIZE) as writer:
        writer.add_view(*view)
    shard = open_shard([tmp_path / "ulm"])
    assert list(shard.heldout()) == []
    assert shard.image_size == SIZE
    assert_same([(shard.batch([0], [0])[0][0], shard.batch([0], [0])[1][0])], [view])


class PowerCutError(BaseException):
    pass


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    (view,) = pairs(0, [SIZE])
    with (
        pytest.raises(PowerCutError),
        writing_shard(tmp_path / "ulm", manifest("ulm", 3), SIZE) as writer,
    ):
        writer.add_view(*view)
        raise PowerCutError
    assert list(tmp_path.iterdir()) == []
    assert read_manifest(tmp_path / "ulm") is None


def test_an_interrupted_writer_leaves_the_shard_of_before(tmp_path: Path) -> None:
    _, heldout = write(tmp_path, "ulm", 1, seed=0)
    with (
        pytest.raises(PowerCutError),
        writing_shard(tmp_path / "ulm", manifest("ulm", 3), SIZE),
    ):
        raise PowerCutError
    assert_same(list(open_shard([tmp_path / "ulm"]).heldout()), heldout)


def test_a_missing_shard_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ulm: no encrypted shard; encrypt the images again"):
        open_shard([tmp_path / "ulm"])


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": 1}'])
def test_a_broken_manifest_is_no_shard(tmp_path: Path, text: str) -> None:
    write(tmp_path, "ulm", 1, seed=0)
    (tmp_path / "ulm" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="no encrypted shard"):
        open_shard([tmp_path / "ulm"])


def test_a_manifest_of_another_schema_is_no_shard(tmp_path: Path) -> None:
    write(tmp_path, "ulm", 1, seed=0)
    path = tmp_path / "ulm" / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert read_manifest(tmp_path / "ulm") is None


KINDS = ("leftImg8bit/train", "gtFine/train", "leftImg8bit/val", "gtFine/val")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:60],
        lambda data: b"garbage" * 1000,
        lambda data: data.replace(b"}", b"(", 1),
    ],
    ids=["empty", "cut", "cut header", "garbage", "open header"],
)
@pytest.mark.parametrize("num_images", [1, 9])
def test_damaged_files_are_an_input_error(
    tmp_path: Path, kind: str, damage: object, num_images: int
) -> None:
    write(tmp_path, "ulm", num_images, seed=0)
    path = tmp_path / "ulm" / kind / "ulm.npy"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"damaged shard .*encrypt the images again"):
        open_shard([tmp_path / "ulm"])


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_do_not_fit_the_manifest_are_damaged(tmp_path: Path, kind: str) -> None:
    write(tmp_path, "ulm", 2, seed=0)
    path = tmp_path / "ulm" / kind / "ulm.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(InputError, match="damaged shard"):
        open_shard([tmp_path / "ulm"])


def test_shards_can_be_made_of_arrays_alone() -> None:
    images, labels = np.zeros((1, 2, 3, *SIZE), np.uint8), np.zeros((1, 2, *SIZE), np.uint8)
    flat = np.arange(5 * 7 + 64 * 32 + 1, dtype=np.uint8)
    part = ShardPart(manifest("ulm", 1), images, labels, images[0, [0, 0, 0]], flat)
    first = next(iter(Shard([part]).heldout()))
    np.testing.assert_array_equal(first[1], flat[:35].reshape(5, 7))


def test_arrays_are_on_disk_before_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def watched(number: int) -> None:
        synced.append(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr(os, "fsync", watched)
    write(tmp_path, "ulm", 3, seed=0)
    folder = tmp_path / "ulm"
    arrays = {path.stat().st_ino for path in folder.rglob("*.npy")}
    assert len(arrays) == 4
    assert set(synced[:-1]) == arrays
    assert synced[-1] == (folder / "manifest.json").stat().st_ino


def test_a_system_that_cannot_reserve_space_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    _, heldout = write(tmp_path, "ulm", 3, seed=0)
    assert_same(list(open_shard([tmp_path / "ulm"]).heldout()), heldout)
