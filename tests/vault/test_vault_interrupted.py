"""kill -9 in the middle: nothing plain lies about, and the same command goes on."""

import json
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from small_owner import Owner, files_in, python

from clients.vault.shards import preparation
from clients.vault.shards.encrypting import SceneTask
from fl_ppseg.data.shard import open_shard

SLOWLY = """
import sys
from clients.vault.command import main
from clients.vault.shards import preparation
from slow_encryption import encrypt_slowly
preparation.SYNC_SECONDS = 0
preparation.encrypt_scene = encrypt_slowly
sys.exit(main(sys.argv[1:]))
"""
"""The command with a pause after each scene, which is noted at once."""
PATIENCE = 150.0
"""Seconds for a process to import what it needs, on a busy machine."""


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    owner = Owner(scenes, tmp_path, capsys)
    assert owner.keys("new")[0] == 0
    return owner


def done(owner: Owner) -> list[list[int]]:
    """Scenes that are noted as done, in each draft."""
    found = []
    for path in sorted(owner.vault.glob("drafts/*/done.npy")):
        try:
            found.append(np.flatnonzero(np.load(path)).tolist())
        except (EOFError, OSError, ValueError):  # just being made
            found.append([])
    return found


def killed(owner: Owner, *options: str) -> list[list[int]]:
    """Kill the command once two scenes are done; returns which."""
    scratch = owner.place / "scratch"
    scratch.mkdir()
    arguments = [*owner.encrypt_options(), *options, *owner.agreement(*options)]
    with python(
        SLOWLY, "encrypt", "--vault", owner.vaults, "--client", "aachen", *arguments,
        env={"TMPDIR": str(scratch)},
    ) as process:  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE
            while not (marks := done(owner)) or min(map(len, marks)) < 2:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            workers = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
    assert psutil.wait_procs(workers, timeout=10)[1] == [], "workers outlived their parent"
    return done(owner)


def interrupt(owner: Owner, monkeypatch: pytest.MonkeyPatch, after: int) -> str:
    """Ctrl-C after some scenes; returns what the command says."""
    encrypt, calls = preparation.encrypt_scene, 0

    def interrupted(task: SceneTask) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        encrypt(task)

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "encrypt_scene", interrupted)
        status, _, error = owner.encrypt()
    assert status == 1
    return error


def plain_rows(owner: Owner) -> set[bytes]:
    """Rows of all plain views as bytes, channel by channel and pixel by pixel; flat ones aside."""
    rows = set()
    for view in owner.plain_views():
        for layout in (view.reshape(-1, 64), view.transpose(1, 2, 0).reshape(32, 192)):
            rows |= {row.tobytes() for row in layout if len(np.unique(row)) > 8}
    return rows


def with_plain_rows(files: dict[str, bytes], rows: set[bytes]) -> list[str]:
    return [name for name, content in files.items() if any(row in content for row in rows)]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_in_the_middle_it_leaves_nothing_plain_and_goes_on(
    workers: str, owner: Owner
) -> None:
    marks = killed(owner, "--workers", workers)
    assert len(marks) == 3 and not list(owner.node.glob("shards/*"))
    assert not (owner.node / "policy.yaml").exists()
    assert max(map(len, marks)) < 7
    rows = plain_rows(owner)
    assert len(rows) > 500
    places = (owner.node, owner.vaults, owner.place / "scratch")
    files = {f"{place}/{name}": text for place in places for name, text in files_in(place).items()}
    assert with_plain_rows(files, rows) == []
    records = {path: path.read_bytes() for path in (owner.vault / "manifests").iterdir()}
    kept, under_way = ciphertexts(owner, are_done=1), ciphertexts(owner, are_done=0)

    status, out, error = owner.encrypt()
    assert status == 0, error
    assert f"to encrypt: {7 - min(map(len, marks))} images" in out
    for path, content in records.items():
        assert path.read_bytes() == content  # no salt was lost, none is new
    for arm in owner.policy.arms:
        folder = owner.shard(arm)
        found = open_shard([folder]).parts[0].images
        for number, image in kept[folder.name].items():
            np.testing.assert_array_equal(found[number], image)
        for number, image in under_way[folder.name].items():  # a disposable key is drawn anew
            assert np.array_equal(found[number], image) == (arm != "per-image")
    assert not list(owner.node.rglob(".*")) and not list(owner.vault.rglob(".*"))
    assert not (owner.vault / "drafts").exists()
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0
    assert with_plain_rows(files_in(owner.node), rows) == []


def ciphertexts(owner: Owner, are_done: int) -> dict[str, dict[int, np.ndarray]]:
    """Encrypted training images that are done, or whole though not noted as done, by shard."""
    found = {}
    for draft in owner.vault.glob("drafts/*"):
        images = np.load(draft / draft.name / "leftImg8bit/train/aachen.npy")
        numbers = np.flatnonzero(np.load(draft / "done.npy")[:6] == are_done).tolist()
        whole = {n: images[n].copy() for n in numbers if images[n].any(axis=(1, 2, 3)).all()}
        found[draft.name] = whole
    return found


def test_the_search_can_find_plain_rows(owner: Owner) -> None:
    assert owner.encrypt("--arms", "plain", "--allow-plain")[0] == 0
    found = with_plain_rows(files_in(owner.node), plain_rows(owner))
    assert {Path(name).parts[2] for name in found} == {"leftImg8bit"} and len(found) == 2


def test_another_config_does_not_go_on_with_the_draft_and_removes_it(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(owner, monkeypatch, after=3)
    records = {path.name for path in (owner.vault / "manifests").iterdir()}
    owner.configure(data={"image_size": [32, 64], "num_views": 1})
    assert owner.encrypt()[0] == 0
    assert not list(owner.node.rglob(".*")) and not (owner.vault / "drafts").exists()
    after = {path.name for path in (owner.vault / "manifests").iterdir()}
    assert len(after) == len(records) == 2 and not after & records  # nothing is left to decrypt


def test_ctrl_c_keeps_what_is_finished(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    error = interrupt(owner, monkeypatch, after=3)
    assert error == "error: interrupted; finished work is kept, half-done work removed\n"
    assert done(owner) == [[0, 1, 2]] * 3
    status, out, _ = owner.encrypt()
    assert status == 0 and "to encrypt: 4 images, 0 bytes on disk" in out


def test_temporary_files_of_killed_processes_go(owner: Owner) -> None:
    assert owner.encrypt()[0] == 0
    left = [
        owner.node / ".policy.yaml.1.tmp",
        owner.vault / ".master.key.1.tmp",
        owner.vault / "manifests" / f".{'a' * 32}.json.1.tmp",
    ]
    for path in left:
        path.write_text(json.dumps({}))
    assert owner.encrypt()[0] == 0
    assert not any(path.exists() for path in left)
    assert (owner.node / "policy.yaml").exists()
