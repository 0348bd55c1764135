"""The data set on disk: the same bytes from any number of workers, whole or absent."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.scenes.files import SceneFiles
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.synthesize import main
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.files import hold_lock

SMALL = ({"jena": 3, "ulm": 1}, {"lindau": 1})


def wait_for_the_end_of_group(group: int) -> bool:
    """Whether all processes of the group end within 10 s (zombies count as ended)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        alive = [p for p in psutil.process_iter(["status"]) if p.info["status"] != "zombie"]
        if not any(psutil.pid_exists(p.pid) and os.getpgid(p.pid) == group for p in alive):
            return True
        time.sleep(0.1)
    return False


def make(root: Path, **changes: object) -> None:
    settings: dict[str, object] = dict(
        num_train=8, num_val=3, size=(32, 64), seed=1, cities=SMALL, workers=1
    )
    synthesize(root, **{**settings, **changes})  # type: ignore[arg-type]


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "tree"
    make(root)
    return root


def test_the_loader_reads_it_and_sizes_follow_the_table(tree: Path) -> None:
    data = open_dataset(tree, load_class_table("cityscapes"))
    assert {city: len(scenes) for city, scenes in data.split("train").items()} == {
        "jena": 6,
        "ulm": 2,
    }
    assert {city: len(scenes) for city, scenes in data.split("val").items()} == {"lindau": 3}
    image, labels = data.split("val")["lindau"][0].load()
    assert (image.shape, labels.shape) == ((3, 32, 64), (32, 64))
    assert set(np.unique(labels)) <= {*range(19), 255}


def test_names_and_modes_are_those_of_cityscapes(tree: Path) -> None:
    photo = tree / "leftImg8bit/train/jena/jena_000002_000019_leftImg8bit.png"
    labels = tree / "gtFine/train/jena/jena_000002_000019_gtFine_labelIds.png"
    with Image.open(photo) as picture, Image.open(labels) as label_map:
        assert (picture.mode, picture.size) == ("RGB", (64, 32))
        assert (label_map.mode, label_map.size) == ("L", (64, 32))


def test_any_number_of_workers_writes_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", workers=2)
    assert content(tmp_path / "again") == content(tree)


def test_another_seed_writes_other_pictures(tree: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", seed=2)
    before, after = content(tree), content(tmp_path / "other")
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_progress_counts_up_to_all_scenes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make(tmp_path / "tree", progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 11)
    assert seen[-1] == (11, 11)
    assert seen == sorted(seen)


def test_a_complete_tree_is_left_alone(tree: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    make(tree, workers=5)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_other_settings_are_refused_and_named(tree: Path) -> None:
    with pytest.raises(InputError, match="another size, seed: choose another folder or delete"):
        make(tree, size=(64, 64), seed=9)


def test_a_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(InputError, match=r"no dataset\.json"):
        make(tmp_path)
    assert (tmp_path / "note").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    make(tmp_path)
    assert (tmp_path / "dataset.json").is_file()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3, "count": 11}', "\x00"])
def test_a_corrupt_marker_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match="is corrupt: delete") as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_picture_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "tree")
    next((tmp_path / "tree").rglob("*labelIds.png")).unlink()
    with pytest.raises(InputError, match="holds 10 pictures instead of 11"):
        make(tmp_path / "tree")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (16, 64)}, "got 16x64"),
        ({"size": (2048, 2048)}, "got 2048x2048"),
        ({"seed": -1}, "expected a seed of 0 or more"),
        ({"workers": 0}, "workers"),
        ({"num_train": 3}, "at least 4"),
        ({"num_train": 0, "num_val": 0}, "no scenes"),
        ({"cities": ({"ulm": 1}, {"ulm": 1})}, "one split"),
        ({"cities": ({"../up": 1}, {"ulm": 1})}, "city name"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path / "tree", **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunError, "no space left"),
        (OSError(errno.EIO, "Input/output error"), RunError, "cannot write"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    expected: type[BaseException],
    message: str,
) -> None:
    write = SceneFiles.write

    def fail_later(scene: SceneFiles) -> None:
        write(scene)
        if scene.city == "ulm":
            raise failure

    monkeypatch.setattr(SceneFiles, "write", fail_later)
    with pytest.raises(expected, match=message):
        make(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_workers_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    arguments = ["--size", "256x512", "--workers", "2", "--quiet"]
    command = [sys.executable, "-m", "fl_ppseg.synthesize", "--out", str(root), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(tmp_path.rglob("*leftImg8bit.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, len(errors.splitlines())) == (1, 1)
    assert list(tmp_path.iterdir()) == []
    assert wait_for_the_end_of_group(process.pid)


def test_of_two_processes_the_second_waits_and_finds_the_tree(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    options = ["--num-train", "36", "--num-val", "6", "--size", "32x64", "--workers", "1"]
    command = [sys.executable, "-m", "fl_ppseg.synthesize", "--out", str(root), *options]
    with hold_lock(tmp_path / ".tree.lock"):
        both = [subprocess.Popen([*command, "--quiet"]) for _ in range(2)]
        make(tmp_path / "other")  # time enough for them to come to the lock
        time.sleep(2)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".tree.lock", "other"]
        assert [process.poll() for process in both] == [None, None]
    assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "tree"]


def test_it_works_outside_the_main_thread(tree: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=make, args=(tmp_path / "tree",), kwargs={"workers": 2})
    thread.start()
    thread.join(60)
    assert content(tmp_path / "tree") == content(tree)


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--num-train", "36", "--num-val", "6", "--size", "32x64", "--workers", "1"]
    assert main(["--out", str(tmp_path / "tree"), *options]) == 0
    out = capsys.readouterr()
    assert out.out == f"42 scenes in {tmp_path / 'tree'}\n"
    assert out.err == ""
    assert json.loads((tmp_path / "tree/dataset.json").read_text())["count"] == 42
