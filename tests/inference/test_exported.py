"""A model as a folder: what is written is read to the same bits, and what is hostile is refused."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mmseg_setr
import numpy as np
import pytest
import small_runs
import torch
from made_leaks import invariant, table
from safetensors.torch import load_file, save_file

import fl_ppseg
from fl_ppseg.config import run_layout
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.federation.checkpoint_file import write_checkpoint
from fl_ppseg.federation.checkpoints import load_checkpoint
from fl_ppseg.inference.exported import CARD, CONFIG, TENSORS
from fl_ppseg.system import files

PHOTO = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
ARM = "per-image-invariant"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "run"
    small_runs.add_checkpoint(folder, ARM)
    small_runs.add_checkpoint(folder, "per-client-private")
    small_runs.add_results(folder)
    return folder


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder; never written."""
    return fl_ppseg.save(fl_ppseg.load(run / ARM), tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(whole, tmp_path / "model")


def refusal(folder: Path) -> str:
    with pytest.raises(fl_ppseg.InputError) as caught:
        fl_ppseg.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(folder: Path, **values: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# There and back.


@pytest.mark.parametrize("arm", [ARM, "per-client-private"])
def test_a_folder_gives_the_same_model_to_the_bit(arm: str, run: Path, tmp_path: Path) -> None:
    model = fl_ppseg.load(run / arm)
    again = fl_ppseg.load(fl_ppseg.save(model, tmp_path / "model"))
    ours, theirs = model.network.state_dict(), again.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (again.spec, again.name, again.about) == (model.spec, model.name, model.about)
    for name in ("names", "name"):
        assert getattr(again.classes, name) == getattr(model.classes, name)
    for name in ("colours", "label_to_train"):
        np.testing.assert_array_equal(getattr(again.classes, name), getattr(model.classes, name))


def test_a_model_that_travelled_is_exported_to_the_same_files(whole: Path, tmp_path: Path) -> None:
    again = fl_ppseg.save(fl_ppseg.load(whole), tmp_path / "again")
    assert {path.name for path in again.iterdir()} == {CARD, CONFIG, TENSORS}
    for name in (CARD, CONFIG, TENSORS):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_tensors_start_another_training(whole: Path) -> None:
    """They are a weights file as any other: `model.weights`."""
    again = fl_ppseg.create_model(
        ARM,
        image_size=small_runs.SIZE,
        **{**small_runs.small.SETTINGS["model"], "weights": str(whole / TENSORS)},
    )
    expected = load_file(whole / TENSORS)
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


# Class tables.


@pytest.mark.parametrize(
    ("trained_on", "found"),
    [("cityscapes", "cityscapes"), ("cityscapes-train-ids", "cityscapes-train-ids"), (None, None)],
)
def test_the_class_table_is_that_of_the_run(
    trained_on: str | None, found: str | None, tmp_path: Path
) -> None:
    """Of two tables with equal names the run's config decides; without one the first serves."""
    folder = small_runs.add_checkpoint(tmp_path / "run", "plain")
    if trained_on is not None:
        small_runs.add_results(tmp_path / "run", trained_on)
    table = fl_ppseg.load(folder).classes
    expected = load_class_table(found or "cityscapes")
    assert table.name == expected.name
    np.testing.assert_array_equal(table.label_to_train, expected.label_to_train)


def test_classes_of_no_table_have_numbers_and_colours_that_travel(tmp_path: Path) -> None:
    names = tuple(f"kind {number}" for number in range(40))
    model = fl_ppseg.load(small_runs.add_checkpoint(tmp_path / "run", "plain", names=names))
    table = model.classes
    assert table.names == names
    assert table.train_to_label[:40].tolist() == list(range(40))
    assert len({tuple(colour) for colour in table.colours.tolist()}) == 40
    again = fl_ppseg.load(fl_ppseg.save(model, tmp_path / "model")).classes
    np.testing.assert_array_equal(again.colours, table.colours)
    assert again.names == names


# The card.


def test_the_card_says_what_the_run_folder_says(run: Path, whole: Path) -> None:
    text = (whole / CARD).read_text("utf-8")
    assert f"# {ARM}\n" in text
    assert "`shuffle-spatial+negative-positive`" in text and "block scope per-block" in text
    assert "procedural street scenes, scaled to 32 x 64" in text
    assert "2 clients, 3 images: aachen, bo\\*chum." in text
    for row in (
        "| no image (commonest class of each pixel) | 14.4 |",
        "| **this arm** | 32.0 |",
        "| plain (no encryption) | 40.2 |",
    ):
        assert row in text
    assert "| 11 | person | 24 | #dc143c |" in text
    assert "No audit of this arm" in text
    assert "fl_ppseg.encrypt(IMAGE, model.spec)" in text
    assert str(run) not in text and str(run) not in (whole / CONFIG).read_text("utf-8")


def test_the_card_has_what_an_audit_found(tmp_path: Path) -> None:
    folder = small_runs.add_checkpoint(tmp_path / "run", ARM)
    small_runs.add_results(tmp_path / "run")
    leaks = tmp_path / "run" / run_layout.AUDIT / run_layout.LEAKS
    leaks.parent.mkdir()
    leaks.write_text(table(invariant()).to_json())
    model = fl_ppseg.load(folder)
    text = (fl_ppseg.save(model, tmp_path / "model") / CARD).read_text("utf-8")
    assert model.about.facts.audit
    assert "SSIM" in text and "No audit" not in text


def test_a_checkpoint_by_itself_has_a_card_that_says_what_is_not_known(
    run: Path, tmp_path: Path
) -> None:
    for file in (run / ARM / "seed_0").iterdir():
        shutil.copy(file, tmp_path)
    model = fl_ppseg.load(tmp_path / "round_0002.safetensors")
    text = (fl_ppseg.save(model, tmp_path / "model") / CARD).read_text("utf-8")
    assert "nothing is known of its data" in text and "no scores of this arm" in text


# Places.


def test_an_export_takes_the_place_of_an_export_alone(run: Path, tmp_path: Path) -> None:
    model, target = fl_ppseg.load(run / ARM), tmp_path / "model"
    fl_ppseg.save(model, target)
    (target / CARD).write_text("edited")
    fl_ppseg.save(model, target)
    assert "edited" not in (target / CARD).read_text()
    (target / "notes.txt").write_text("mine")
    others = [target, tmp_path / "file", tmp_path / "link", run, tmp_path / "other"]
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / CONFIG).write_text("{}")
    for place in others:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(fl_ppseg.InputError) as caught:
            fl_ppseg.save(model, place)
        assert "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert fl_ppseg.load(fl_ppseg.save(model, tmp_path / "empty")).name == ARM


def test_a_full_disk_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, before = fl_ppseg.load(folder), (folder / CONFIG).read_bytes()
    write = files.write_all

    def full(descriptor: int, content: bytes) -> None:
        if content.startswith(b"---"):
            raise OSError(28, "No space left on device")
        write(descriptor, content)

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        fl_ppseg.save(model, folder)
    assert (folder / CONFIG).read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


# What others wrote.


def test_damaged_folders_are_refused_in_a_line(folder: Path, tmp_path: Path) -> None:
    tensors, config = (folder / TENSORS).read_bytes(), (folder / CONFIG).read_bytes()
    flipped = bytearray(tensors)
    flipped[-1] ^= 1
    cases: dict[str, Callable[[], object]] = {
        "schema 1, got 2": lambda: changed(folder, schema=2),
        "schema 1, got None": lambda: (folder / CONFIG).write_text("[]"),
        "not JSON": lambda: (folder / CONFIG).write_text("{"),
        "extra": lambda: changed(folder, extra=1),
        "expected at most": lambda: (folder / CONFIG).write_bytes(b" " * 2**23),
        "its hash differs": lambda: (folder / TENSORS).write_bytes(bytes(flipped)),
        "cannot be read": lambda: (folder / TENSORS).unlink(),
        "sha256": lambda: changed(folder, sha256="0"),
        "not a regular file": lambda: ((folder / CONFIG).unlink(), os.mkfifo(folder / CONFIG)),
    }
    for said, damage in cases.items():
        damage()
        assert said in refusal(folder), said
        (folder / CONFIG).unlink(missing_ok=True)
        (folder / CONFIG).write_bytes(config)
        (folder / TENSORS).write_bytes(tensors)
    assert fl_ppseg.load(folder).name == ARM


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_no_link_is_followed(name: str, folder: Path, whole: Path) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(whole / name)
    assert "cannot be read" in refusal(folder)


def test_tensors_of_another_model_are_refused_before_they_are_read(folder: Path) -> None:
    state = load_file(folder / TENSORS)
    name, tensor = next(iter(state.items()))
    for other in (
        {**state, "more": torch.zeros(1)},
        {key: value for key, value in state.items() if key != name},
        {**state, name: torch.zeros(2, *tensor.shape)},
    ):
        save_file(other, folder / TENSORS)
        changed(folder, sha256=files.sha256(folder / TENSORS))
        assert "not those of the model" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, folder: Path, run: Path) -> None:
    state = load_file(folder / TENSORS)
    name = sorted(state)[-1]
    state[name].view(-1)[-1] = value
    save_file(state, folder / TENSORS)
    changed(folder, sha256=files.sha256(folder / TENSORS))
    assert f"{folder}: {name} holds values that are not finite" in refusal(folder)
    found = load_checkpoint(run / ARM)
    arrays = {key: np.array(each) for key, each in found.arrays.items()}
    arrays[name].reshape(-1)[-1] = value
    path = folder.parent / "diverged" / "round_0001.safetensors"
    write_checkpoint(path, replace(found, arrays=arrays))
    assert f"{path}: {name} holds values that are not finite" in refusal(path)


def test_a_file_that_is_no_checkpoint_is_not_called_a_damaged_one(run: Path) -> None:
    path = next((run / ARM).rglob("round_*.json"))
    assert f"{path}: not a checkpoint; expected round_<nnnn>.safetensors" in refusal(path)


def test_a_config_cannot_ask_for_a_giant_or_for_other_blocks(folder: Path) -> None:
    about = json.loads((folder / CONFIG).read_text())["about"]
    spec = json.loads((folder / CONFIG).read_text())["spec"]
    giant = about["settings"] | {"embed_dim": 8192, "depth": 128}
    changed(folder, about=about | {"settings": giant})
    assert "million" in refusal(folder)
    changed(folder, about=about, spec=spec | {"block_size": 4})
    assert "expected blocks of the model's patch, 8 pixels, got 4" in refusal(folder)
    changed(folder, spec=spec | {"image_size": [10**6, 64]})
    assert "image_size" in refusal(folder)


def test_an_onnx_file_lies_beside_and_scores_alike(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = fl_ppseg.load(run / ARM)
    folder = fl_ppseg.save(model, tmp_path / "model", onnx=True)
    query = fl_ppseg.encrypt(PHOTO, model.spec)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (scores,) = session.run(None, {"images": query.pixels[None]})
    (own,) = model.segment_batch(query.pixels[None])
    assert (scores[0].argmax(axis=0) == own.labels).mean() > 0.999
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["spec"]) == json.loads(model.spec.model_dump_json())
    assert said["classes"].split(",") == list(model.classes.names)
    again = fl_ppseg.save(fl_ppseg.load(folder), folder)  # an exported folder may be made anew
    assert not (again / "model.onnx").exists()


def test_a_checkpoint_of_mmsegmentation_is_asked_with_one_call(tmp_path: Path) -> None:
    theirs = mmseg_setr.trained("naive", (64, 64), 19, 0)
    path = tmp_path / "setr_naive.pth"
    torch.save({"state_dict": theirs.state_dict(), "meta": {}}, path)
    model = fl_ppseg.load(path, classes="cityscapes")
    assert (model.name, model.spec.key, model.spec.fit) == ("setr_naive", "none", "crop")
    labels, confidence = fl_ppseg.Client(model).segment(PHOTO)
    assert labels.shape == confidence.shape == PHOTO.shape[:2]
    again = fl_ppseg.load(fl_ppseg.save(model, tmp_path / "model"))
    assert np.array_equal(fl_ppseg.Client(again).segment(PHOTO).labels, labels)
    with pytest.raises(fl_ppseg.InputError, match="scores 19 classes, camvid has 11"):
        fl_ppseg.load(path, classes="camvid")
