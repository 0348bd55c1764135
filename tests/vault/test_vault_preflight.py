"""The owner's vault looks at label maps before it encrypts, and says what they hold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
from PIL import Image
from small_owner import Owner, fails, files_in

from clients.vault.export import encryption
from fl_ppseg.data.classes import IGNORE_INDEX, load_class_table

CLASSES = load_class_table("cityscapes")


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    """With a tree of its own, whose files may be replaced, and a key."""
    owner = Owner(small.tree_of_links(scenes, tmp_path / "tree"), tmp_path / "place", capsys)
    assert owner.keys("new")[0] == 0
    return owner


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()


def images(owner: Owner) -> list[Path]:
    return sorted((owner.root / "leftImg8bit/train/aachen").iterdir())


def labels(owner: Owner) -> list[Path]:
    return sorted((owner.root / "gtFine/train/aachen").iterdir())


def rewrite(paths: list[Path], change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in paths:
        pixels = change(np.array(Image.open(path)))
        path.unlink()
        Image.fromarray(pixels).save(path)


def as_train_ids(ids: np.ndarray) -> np.ndarray:
    return CLASSES.label_to_train[ids]


def test_the_owner_is_told_what_label_maps_hold(owner: Owner) -> None:
    status, out, _ = owner.encrypt("--dry-run")
    assert status == 0
    head, aachen, *_ = out.splitlines()
    assert "classes that never occur" in head and aachen.split()[:3] == ["train", "aachen", "7"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (as_train_ids, "seem to hold trainIds"),
        (lambda ids: np.full_like(ids, IGNORE_INDEX), "no training image has a labelled pixel"),
    ],
    ids=["trainIds", "unlabelled"],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_encrypted(
    change: Callable[[np.ndarray], np.ndarray], said: str, owner: Owner
) -> None:
    rewrite(labels(owner), change)
    outcome = owner.encrypt()
    fails(outcome, said)
    assert str(owner.root / "gtFine/train") in outcome[2]
    assert files_in(owner.node) == {}


def test_train_ids_are_encrypted_with_their_own_table(owner: Owner) -> None:
    rewrite(labels(owner), as_train_ids)
    data = small.SETTINGS["data"] | {"classes": "cityscapes-train-ids"}
    owner.configure(data=data)
    assert owner.encrypt()[0] == 0


def test_an_image_that_exif_turns_is_encrypted_as_it_is_shown(owner: Owner) -> None:
    first = images(owner)[0]
    shown = np.array(Image.open(first))
    exif = Image.Exif()
    exif[0x0112] = 3
    first.unlink()
    Image.fromarray(np.ascontiguousarray(shown[::-1, ::-1])).save(first, exif=exif)
    status, out, _ = owner.encrypt()
    assert status == 0 and "EXIF orientation applied to 1 image" in out
    assert owner.decrypt("per-image-derived")[0] == 0
    seen = owner.place / "per-image-derived" / first.relative_to(owner.root)
    np.testing.assert_array_equal(np.array(Image.open(seen)), shown)


def test_corrected_label_maps_make_another_shard(owner: Owner) -> None:
    assert owner.encrypt()[0] == 0
    before = owner.shard("per-image")
    rewrite(labels(owner)[:1], lambda ids: np.where(ids == 7, 8, ids).astype(np.uint8))
    assert owner.encrypt()[0] == 0
    assert owner.shard("per-image") != before


def test_label_maps_that_change_under_way_are_refused(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard would not hold what its name says."""
    survey = encryption.scan_images

    def and_then(*arguments: object) -> object:
        found = survey(*arguments)  # type: ignore[arg-type]
        rewrite(labels(owner)[-1:], lambda ids: swapped[ids])  # each time, also before consent
        return found

    swapped = np.arange(256, dtype=np.uint8)
    swapped[[7, 8]] = 8, 7

    monkeypatch.setattr(encryption, "scan_images", and_then)
    fails(owner.encrypt(), "changed after the preflight check")
    assert not [name for name in files_in(owner.node) if "policy" in name]
