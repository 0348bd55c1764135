"""Encrypted shards: whole or absent, memory-mapped, several as one, damage found by hash."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fl_ppseg.data import shard as shard_module
from fl_ppseg.data.manifest import SCHEMA, Manifest, read_manifest
from fl_ppseg.data.shard import Shard, ShardPart, damaged_files, open_shard
from fl_ppseg.data.shard_draft import ShardDraft, record_of
from fl_ppseg.system.errors import InputError

DIGEST = "0123456789abcdef" * 2
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


def manifest(client: str, num_images: int, num_views: int = 2) -> Manifest:
    return Manifest(3, client, DIGEST, 8, num_images, num_views, SIZES)


def fill(draft: ShardDraft, views: Sequence[Pair], heldout: Sequence[Pair]) -> None:
    """All scenes into a draft, in another order than that of the shard."""
    num_images, num_views = draft.manifest.num_images, draft.manifest.num_views
    for number, pair in enumerate(heldout):
        draft.put(num_images + number, 0, *pair)
    for number in reversed(range(num_images)):
        for view in range(num_views):
            draft.put(number, view, *views[num_views * number + view])
    draft.mark(range(num_images + len(heldout)))


def write(root: Path, client: str, num_images: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """A shard with two views an image; returns its views and its held-out pairs."""
    views, heldout = pairs(seed, [SIZE] * (2 * num_images)), pairs(seed + 1, SIZES)
    draft = ShardDraft.begin(root / "drafts" / client, manifest(client, num_images), SIZE)
    fill(draft, views, heldout)
    placed(draft, root)
    return views, heldout


def placed(draft: ShardDraft, root: Path) -> None:
    """Finish a draft and move its shard, as the vault does."""
    draft.finish().rename(root / draft.place.name)
    draft.discard()


def assert_same(found: Sequence[Pair], wanted: Sequence[Pair]) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        for left, right in zip(ours, theirs, strict=True):
            assert left.dtype == np.uint8
            np.testing.assert_array_equal(left, right)


def test_frames_of_any_size_come_back(tmp_path: Path) -> None:
    """Whole images, over which windows of the views' size slide."""
    generator = np.random.default_rng(3)
    views, sizes = pairs(0, [SIZE] * 2), [(SIZE[0], SIZE[1] + 8), SIZE, (SIZE[0] + 16, SIZE[1])]
    frames = [
        (generator.integers(0, 256, (3, *s), dtype=np.uint8), pairs(1, [s])[0][1]) for s in sizes
    ]
    about = Manifest(SCHEMA, "ulm", DIGEST, 8, 1, 2, sizes, frames=True)
    draft = ShardDraft.begin(tmp_path / "drafts" / "ulm", about, SIZE)
    fill(draft, views, frames)
    placed(draft, tmp_path)
    shard = open_shard([tmp_path / "ulm"])
    assert_same(list(shard.heldout()), frames)
    assert (shard.image_size, shard.num_heldout) == (SIZE, 3)


def test_views_and_heldout_come_back(tmp_path: Path) -> None:
    views, heldout = write(tmp_path, "ulm", 3, seed=0)
    shard = open_shard([tmp_path / "ulm"])
    assert (len(shard), shard.num_views, shard.num_heldout) == (3, 2, 3)
    assert shard.image_size == SIZE
    found = read_manifest(tmp_path / "ulm")
    assert found is not None and dataclasses.replace(found, sha256={}) == manifest("ulm", 3)
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


def test_several_clients_are_one_shard(tmp_path: Path) -> None:
    first, first_heldout = write(tmp_path, "bonn", 2, seed=0)
    second, second_heldout = write(tmp_path, "ulm", 3, seed=10)
    shard = open_shard([tmp_path / "bonn", tmp_path / "ulm"])
    assert (len(shard), shard.num_heldout) == (5, 6)
    images, labels = shard.batch(range(5), [1, 0, 1, 0, 1])
    expected = [first[1], first[2], second[1], second[2], second[5]]
    assert_same(list(zip(images, labels, strict=True)), expected)
    assert_same(list(shard.heldout()), first_heldout + second_heldout)


def test_a_val_client_has_no_training_images(tmp_path: Path) -> None:
    _, heldout = write(tmp_path, "lindau", 0, seed=0)
    shard = open_shard([tmp_path / "lindau"])
    assert len(shard) == 0
    assert shard.image_size == SIZE
    assert_same(list(shard.heldout()), heldout)


def test_nothing_held_out(tmp_path: Path) -> None:
    alone = Manifest(3, "ulm", DIGEST, 8, 1, 1, [])
    (view,) = pairs(0, [SIZE])
    draft = ShardDraft.begin(tmp_path / "drafts" / "ulm", alone, SIZE)
    fill(draft, [view], [])
    placed(draft, tmp_path)
    shard = open_shard([tmp_path / "ulm"])
    assert list(shard.heldout()) == []
    assert shard.image_size == SIZE
    assert_same([(shard.batch([0], [0])[0][0], shard.batch([0], [0])[1][0])], [view])


def test_a_missing_shard_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ulm: no encrypted shard; encrypt the images again"):
        open_shard([tmp_path / "ulm"])


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": 3}'])
def test_a_broken_manifest_is_no_shard(tmp_path: Path, text: str) -> None:
    write(tmp_path, "ulm", 1, seed=0)
    (tmp_path / "ulm" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json: damaged manifest of a shard \("):
        open_shard([tmp_path / "ulm"])


def test_a_manifest_of_another_schema_is_no_shard(tmp_path: Path) -> None:
    write(tmp_path, "ulm", 1, seed=0)
    path = tmp_path / "ulm" / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 3', '"schema": 1'))
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


# Hashes.


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, "ulm", 2, seed=0)
    found = read_manifest(tmp_path / "ulm")
    assert found is not None
    files = [path for path in (tmp_path / "ulm").rglob("*.npy")]
    assert found.sha256 == {
        path.relative_to(tmp_path / "ulm").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert len(files) == 4 and damaged_files(tmp_path / "ulm") == []


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [flip_last_byte, Path.unlink], ids=["a bit", "gone"])
def test_every_damaged_file_is_named(
    kind: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path, "ulm", 2, seed=0)
    path = tmp_path / "ulm" / kind / "ulm.npy"
    damage(path)
    assert damaged_files(tmp_path / "ulm") == [path]


def test_a_file_too_many_is_named(tmp_path: Path) -> None:
    write(tmp_path, "ulm", 2, seed=0)
    added = tmp_path / "ulm" / "leftImg8bit" / "note.txt"
    added.write_text("plain")
    assert damaged_files(tmp_path / "ulm") == [added]
    with pytest.raises(InputError, match="no encrypted shard"):
        damaged_files(tmp_path / "nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_before_anything_is_trained_on(kind: str, tmp_path: Path) -> None:
    write(tmp_path, "ulm", 2, seed=0)
    assert len(open_shard([tmp_path / "ulm"])) == 2
    flip_last_byte(tmp_path / "ulm" / kind / "ulm.npy")  # after this process has looked, too
    with pytest.raises(InputError, match=rf"damaged shard \({kind}/ulm.npy was changed since"):
        open_shard([tmp_path / "ulm"])


def test_a_process_looks_at_a_hash_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "ulm", 2, seed=0)
    write(tmp_path, "bonn", 2, seed=0)
    looked = []

    def counted(path: Path) -> str:
        looked.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(shard_module, "sha256", counted)
    for _ in range(3):
        open_shard([tmp_path / "ulm", tmp_path / "bonn"])
    assert len(looked) == len(set(looked)) == 8


def test_a_shard_of_other_bytes_than_pixels_is_damaged(tmp_path: Path) -> None:
    write(tmp_path, "ulm", 2, seed=0)
    path = tmp_path / "ulm" / "gtFine/train/ulm.npy"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    np.save(path, np.load(path).astype(np.int8))
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    text = (tmp_path / "ulm" / "manifest.json").read_text()
    (tmp_path / "ulm" / "manifest.json").write_text(text.replace(before, after))
    with pytest.raises(InputError, match="does not hold bytes of images"):
        open_shard([tmp_path / "ulm"])


# Drafts.


def test_a_draft_is_no_shard_until_all_scenes_are_done(tmp_path: Path) -> None:
    views, heldout = pairs(0, [SIZE] * 4), pairs(1, SIZES)
    draft = ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 2), SIZE)
    assert draft.missing == [0, 1, 2, 3, 4]
    fill(draft, views, heldout)
    assert draft.missing == [] and not (tmp_path / "ulm").exists()
    placed(draft, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ulm"]

    draft = ShardDraft.begin(tmp_path / "drafts" / "bonn", manifest("bonn", 2), SIZE)
    draft.mark([0, 3])
    with pytest.raises(ValueError, match=r"scenes \[1, 2, 4\] are missing"):
        draft.finish()
    assert read_manifest(tmp_path / "bonn") is None


def test_whoever_comes_later_goes_on_where_the_draft_stands(tmp_path: Path) -> None:
    views, heldout = pairs(0, [SIZE] * 4), pairs(1, SIZES)
    first = ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 2), SIZE)
    first.put(1, 0, *views[2])
    first.put(1, 1, *views[3])
    first.mark([1])
    first.put(4, 0, *heldout[2])  # written, but not noted
    del first

    second = ShardDraft.resume(tmp_path / "drafts" / "ulm")
    assert second is not None and second.manifest == manifest("ulm", 2)
    assert second.missing == [0, 2, 3, 4]
    for view in (0, 1):
        second.put(0, view, *views[view])
    for number in range(3):
        second.put(2 + number, 0, *heldout[number])
    second.mark([0, 2, 3, 4])
    placed(second, tmp_path)
    shard = open_shard([tmp_path / "ulm"])
    images, labels = shard.batch([0, 0, 1, 1], [0, 1, 0, 1])
    assert_same(list(zip(images, labels, strict=True)), views)
    assert_same(list(shard.heldout()), heldout)


def test_two_writers_of_one_draft_meet_in_its_files(tmp_path: Path) -> None:
    views, heldout = pairs(0, [SIZE] * 4), pairs(1, SIZES)
    draft = ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 2), SIZE)
    fill(ShardDraft(tmp_path / "drafts" / "ulm"), views, heldout)
    assert draft.missing == []
    placed(draft, tmp_path)
    assert_same(list(open_shard([tmp_path / "ulm"]).heldout()), heldout)


def test_a_new_draft_voids_the_old_one_but_not_the_shard(tmp_path: Path) -> None:
    _, heldout = write(tmp_path, "ulm", 2, seed=0)
    ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 2), SIZE).mark([0, 1])
    again = ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 1), SIZE)
    assert again.missing == [0, 1, 2, 3]
    assert_same(list(open_shard([tmp_path / "ulm"]).heldout()), heldout)
    again.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["ulm"]
    assert ShardDraft.resume(tmp_path / "drafts" / "ulm") is None


@pytest.mark.parametrize("name", ["draft.json", "done.npy", "ulm/gtFine/train/ulm.npy"])
def test_a_damaged_draft_is_none(name: str, tmp_path: Path) -> None:
    ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 2), SIZE)
    path = (tmp_path / "drafts" / "ulm") / name
    for damage in (b"", b"garbage" * 100):
        path.write_bytes(damage)
        assert ShardDraft.resume(tmp_path / "drafts" / "ulm") is None
    path.unlink()
    assert ShardDraft.resume(tmp_path / "drafts" / "ulm") is None


def test_a_crash_between_manifest_and_place_is_gone_on_with(
    tmp_path: Path,
) -> None:
    views, heldout = pairs(0, [SIZE] * 4), pairs(1, SIZES)
    draft = ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 2), SIZE)
    fill(draft, views, heldout)
    assert draft.finish().is_dir()  # and here the power is cut
    assert read_manifest(tmp_path / "ulm") is None
    again = ShardDraft.resume(tmp_path / "drafts" / "ulm")
    assert again is not None and again.missing == []
    placed(again, tmp_path)
    assert_same(list(open_shard([tmp_path / "ulm"]).heldout()), heldout)
    assert [path.name for path in tmp_path.iterdir()] == ["ulm"]


def test_a_draft_names_its_record_until_it_is_finished(tmp_path: Path) -> None:
    """What is half made goes with its salts; a shard that may lie in its place keeps them."""
    named = dataclasses.replace(manifest("ulm", 2), record="f" * 32)
    place = tmp_path / "drafts" / "ulm"
    assert record_of(place) is None
    draft = ShardDraft.begin(place, named, SIZE)
    (place / "done.npy").unlink()  # killed while it was being made
    assert ShardDraft.resume(place) is None and record_of(place) == "f" * 32
    draft = ShardDraft.begin(place, named, SIZE)
    fill(draft, *(pairs(0, [SIZE] * 4), pairs(1, SIZES)))
    draft.finish()
    assert record_of(place) is None
    draft.reopen()
    assert record_of(place) == "f" * 32


def test_a_full_disk_is_said_before_the_first_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as caught:
        ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 2), SIZE)
    assert caught.value.errno == 28
    assert str(caught.value.filename).startswith(str(tmp_path))
    assert list(tmp_path.rglob("*")) == [tmp_path / "drafts"]


def test_arrays_are_on_disk_before_they_are_noted_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = ShardDraft.begin(tmp_path / "drafts" / "ulm", manifest("ulm", 3), SIZE)
    synced, fsync = [], os.fsync

    def watched(number: int) -> None:
        synced.append((os.fstat(number).st_ino, len(draft.missing)))
        fsync(number)

    monkeypatch.setattr(os, "fsync", watched)
    draft.mark([0])
    arrays = {path.stat().st_ino for path in tmp_path.rglob("ulm.npy")}
    done = (tmp_path / "drafts" / "ulm") / "done.npy"
    assert len(arrays) == 4
    assert set(synced[:-1]) == {(number, 6) for number in arrays}
    assert synced[-1] == (done.stat().st_ino, 5)


def test_a_system_that_cannot_reserve_space_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    _, heldout = write(tmp_path, "ulm", 3, seed=0)
    assert_same(list(open_shard([tmp_path / "ulm"]).heldout()), heldout)
