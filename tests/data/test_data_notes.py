"""How images are scored is said where the scores are: terminal, log, summary, report."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from PIL import Image
from rich.console import Console

from clients.policy.node_policy import load_policy, policy_path
from fl_ppseg.config.data import DataConfig
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Dataset, open_dataset
from fl_ppseg.data.preflight.scan import scan_data
from fl_ppseg.data.shard import open_shard
from fl_ppseg.experiment.data_notes import examine, reserved_scene, scoring_notes
from fl_ppseg.learning.scores import MEAN_OF
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.system.errors import InputError


@pytest.fixture
def tree(scenes: Path, tmp_path: Path) -> Path:
    """The small data set with a third image of lindau, whose middle one is then reserved."""
    root = small.tree_of_links(scenes, tmp_path / "tree")
    for part in ("leftImg8bit", "gtFine"):
        first = sorted((root / part / "val/lindau").iterdir())[0]
        shutil.copy(first, first.with_name(first.name.replace("000000_", "000009_")))
    return root


def notes(root: Path, **data: Any) -> str:
    settings = DataConfig(root=root, **{"image_size": (32, 64)} | data)
    dataset = open_dataset(root, load_class_table("cityscapes"))
    return "\n".join(scoring_notes(scan_data(dataset.splits), dataset, settings))


def label_maps(root: Path, height: int, width: int) -> None:
    """Images and label maps of another size in all val clients."""
    for part, mode in (("leftImg8bit", "RGB"), ("gtFine", "L")):
        for path in (root / part / "val").rglob("*.png"):
            picture = Image.open(path).convert(mode).resize((width, height), 0)
            path.unlink()
            picture.save(path)


def test_the_image_that_is_not_scored_is_named(tree: Path) -> None:
    assert "lindau: lindau_000001_000019;" in notes(tree)
    assert "1 of 5 val images are not scored" in notes(tree)
    assert "munster" not in notes(tree)
    assert "not scored" not in notes(tree, show_val_scene=False)


def test_what_is_trained_on_and_what_is_scored_of_large_images_is_told(tree: Path) -> None:
    label_maps(tree, 64, 256)
    said = notes(tree, fit="crop")
    assert "training uses windows of 32x64 pixels; val label maps are scored whole" in said
    assert "scored whole, every pixel" in said


def test_the_size_of_training_is_told_where_images_are_larger(tree: Path) -> None:
    assert "trained on" not in notes(tree)
    label_maps(tree, 64, 256)
    assert "images of up to 64x256 are trained on and segmented at 32x64" in notes(tree)


@pytest.mark.parametrize("shows", [True, False])
def test_all_val_images_are_scored_if_none_is_to_be_shown(
    shows: bool, tree: Path, tmp_path: Path
) -> None:
    data = {"show_val_scene": shows}
    experiment = small.prepared(small.config(tree, arms=["plain"], data=data), tmp_path)
    policies = [
        load_policy(policy_path(experiment.nodes, number)) for number in range(experiment.num_nodes)
    ]
    numbers = {
        p.client: len(list(open_shard(p.arms["plain"].shards[0]).heldout())) for p in policies
    }
    assert numbers["lindau"] == (2 if shows else 3) and numbers["munster"] == 2
    lindau = experiment.dataset.split("val")["lindau"]
    assert reserved_scene(lindau, experiment.config.data) == (lindau[1] if shows else None)


def test_a_run_says_in_all_its_outputs_how_its_images_were_scored(
    tree: Path, simulate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    status, out, error = simulate("--out", str(tmp_path / "run"), root=tree, arms=["plain"])
    assert status == 0, error
    named = "lindau: lindau_000001_000019"
    summary = json.loads((tmp_path / "run/summary.json").read_text("utf-8"))
    assert MEAN_OF in summary["notes"]
    log = (tmp_path / "run/log.txt").read_text("utf-8")
    report = (tmp_path / "run/report.html").read_text("utf-8")
    for text in (out, error, log, report, "\n".join(summary["notes"])):
        assert named in text and "not scored" in text and "cityscapesScripts" in text
    for text in (error, log):
        assert "classes that never occur" in text and "train  aachen" in text


def test_nothing_is_encrypted_where_label_maps_cannot_be_meant(
    tree: Path, simulate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for path in (tree / "gtFine/val/munster").iterdir():
        ids = np.array(Image.open(path))
        path.unlink()
        Image.fromarray(np.full_like(ids, 255)).save(path)
    status, out, error = simulate("--out", str(tmp_path / "run"), root=tree, arms=["plain"])
    assert status == 2 and out == ""
    assert "labelIds met" in error  # the table comes first
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "munster" in line and "no labelled pixel" in line
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "vaults").rglob("shards"))


def quiet_steps() -> StepProgress:
    return StepProgress(Console(), quiet=True)


def test_procedural_scenes_are_named_by_content_and_not_checked_scenes(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(scenes, load_class_table("cityscapes"))
    monkeypatch.setattr(
        "fl_ppseg.experiment.data_notes.scan_data", lambda *_: pytest.fail("surveyed")
    )
    found, about = examine(dataset, DataConfig(), 2, quiet_steps())
    assert about.table == "" and about.notes == (MEAN_OF,)
    assert all(scene.content for scene in found.scenes())


def staged_anew(root: Path, place: Path) -> Path:
    """A copy elsewhere, with other times."""
    shutil.copytree(root, place)
    for path in place.rglob("*.png"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return place


def shards_in(place: Path) -> set[Path]:
    return {p.relative_to(place) for p in (place / "vaults").glob("*/shards/*")}


def test_data_that_are_staged_anew_are_found_again(tree: Path, tmp_path: Path) -> None:
    arms = ["per-client-private", "per-image"]
    small.prepared(small.config(tree, arms=arms), tmp_path / "place")
    before = shards_in(tmp_path / "place")
    assert before
    copy = staged_anew(tree, tmp_path / "copy")
    small.prepared(small.config(copy, arms=arms), tmp_path / "place")
    assert shards_in(tmp_path / "place") == before


def corrected(path: Path) -> None:
    """Another class, in as many bytes and at the same time."""
    before = path.stat()
    ids = np.array(Image.open(path))
    ids[ids == 7] = 8
    path.unlink()
    Image.fromarray(ids).save(path, compress_level=0)
    assert path.stat().st_size != 0
    os.truncate(path, path.stat().st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_corrected_label_maps_are_trained_on_whatever_their_time(
    tree: Path, tmp_path: Path
) -> None:
    maps = sorted((tree / "gtFine").rglob("*.png"))
    for path in maps:  # as large as they will be
        ids = np.array(Image.open(path))
        path.unlink()
        Image.fromarray(ids).save(path, compress_level=0)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    sizes = [path.stat().st_size for path in maps]
    settings = small.config(tree, arms=["plain"])
    small.prepared(settings, tmp_path)
    for path in maps:
        corrected(path)
    assert [path.stat().st_size for path in maps] == sizes
    assert {path.stat().st_mtime_ns for path in maps} == {1_600_000_000 * 10**9}
    experiment = small.prepared(settings, tmp_path)
    policy = load_policy(policy_path(experiment.nodes, 0))
    shard = open_shard(policy.arms["plain"].shards[0])
    labels = [np.asarray(labels) for _, labels in shard.heldout()]
    assert not any((each == 0).any() for each in labels)
    assert any((each == 1).any() for each in labels)


def both_splits(root: Path) -> Dataset:
    for part in ("leftImg8bit", "gtFine"):
        (root / part / "val/lindau").rename(root / part / "val/aachen")
    return open_dataset(root, load_class_table("cityscapes"))


@pytest.mark.parametrize("clients", [2, 3, 6])
def test_a_client_of_both_splits_is_refused_with_what_to_rename(
    clients: int, tree: Path, tmp_path: Path
) -> None:
    """Also where its training node goes by another name, being merged or split."""
    both_splits(tree)
    with pytest.raises(InputError, match="is under train and under val") as caught:
        small.prepared(small.config(tree, clients=clients), tmp_path / "place")
    line = str(caught.value)
    for part in ("leftImg8bit", "gtFine"):
        assert f"rename {tree}" in line and str(tree / part / "val/aachen") in line
    assert "\n" not in line and not (tmp_path / "place").exists()
