"""The owner's right: what has derived keys becomes a tree of images again, whole or not at all."""

import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_owner import Owner, fails, files_in, python

from clients.vault.shards import plain_tree
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.views import views
from fl_ppseg.system.directory import Directory


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(scenes, tmp_path, capsys).ready()


ODD = """
name: odd
classes:
  - {name: road, train_id: 1, label_ids: [7, 9], colour: [0, 0, 0]}
  - {name: nothing, train_id: 0, label_ids: [0, 1], colour: [9, 9, 9]}
"""
"""A table in which labelId 0 is a class, so that pixels of none are no 0."""


@pytest.mark.parametrize(
    ("arm", "size", "classes"),
    [
        ("per-client-private", (32, 64), "cityscapes"),
        ("per-image-derived", (32, 64), "cityscapes"),
        ("per-image-derived", (16, 32), "odd"),
    ],
)
def test_a_decrypted_tree_is_read_as_the_views_of_the_one_that_was_encrypted(
    arm: str, size: tuple[int, int], classes: str, owner: Owner
) -> None:
    if classes == "odd":
        classes = str(owner.place / "odd.yaml")
        Path(classes).write_text(ODD)
    owner.configure(data={"image_size": list(size), "num_views": 2, "classes": classes})
    assert owner.encrypt("--arms", arm)[0] == 0
    status, out, _ = owner.decrypt(arm)
    assert status == 0 and "13 views" in out  # 6 images in 2 views, one held out

    table = load_class_table(classes)
    before, after = (
        open_dataset(root, table).split("train")["aachen"]
        for root in (owner.root, owner.place / arm)
    )
    found = {scene.stem: scene for scene in after}
    for scene in before:
        number = 2 if scene != before[-1] else 1
        made = views(*scene.load(), size, "resize", number, 0, scene.scene_id)
        for view, (image, labels) in enumerate(made):
            read = found.pop(f"{scene.stem}_view{view}" if view else scene.stem).load()
            np.testing.assert_array_equal(read[0], image)
            np.testing.assert_array_equal(read[1], labels)
            assert (labels == 255).any() or classes == "cityscapes"
    assert not found


def test_records_of_before_label_ids_were_kept_still_serve_to_verify(owner: Owner) -> None:
    for path in (owner.vault / "manifests").iterdir():
        record = json.loads(path.read_text())
        del record["label_ids"]
        text = json.dumps(record)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        path.with_stem(name).write_text(text)
        for manifest in owner.node.glob("shards/*/manifest.json"):
            manifest.write_text(manifest.read_text().replace(path.stem, name))
    (owner.vault / "handed_over.json").unlink()  # nor did it record what it handed over
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0
    fails(owner.decrypt("per-image-derived"), "made by an earlier version")


def test_what_is_decrypted_is_the_owners_alone_and_whole_or_absent(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, save, calls = os.umask(0), Image.Image.save, 0
    try:
        assert owner.decrypt("per-client-private")[0] == 0
    finally:
        os.umask(before)
    out = owner.place / "per-client-private"
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*.png")}
    assert modes == {0o600}
    fails(
        owner.decrypt("per-client-private"), "exists and is not an empty folder; choose a new --out"
    )

    def interrupted(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        save(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "save", interrupted)
    assert owner.decrypt("per-image-derived")[0] == 1
    assert not [path for path in owner.place.iterdir() if "per-image-derived" in path.name]


def test_what_cannot_be_decrypted_says_why(owner: Owner) -> None:
    assert owner.encrypt("--arms", "plain", "--allow-plain")[0] == 0
    fails(
        owner.decrypt("per-image"),
        "its keys were disposable and no longer exist: nobody can decrypt",
    )
    fails(
        owner.decrypt("plain"), "its images are stored unencrypted, so there is nothing to decrypt"
    )
    fails(
        owner.decrypt("per-client"),
        "no arm 'per-client'; expected one of per-client-private, per-im",
    )
    fails(owner.decrypt("per-image-derived", "--seed", "7"), "no seed 7; expected one of 0")
    assert owner.keys("new", client="bochum")[0] == 0
    outcome = owner.keys(
        "decrypt", "--node", owner.node, "--arm", "x", "--out", "o", client="bochum"
    )
    fails(outcome, "is the node folder of aachen, not of bochum")
    assert not [path for path in owner.place.iterdir() if path.name in owner.policy.arms]


def test_another_owners_vault_decrypts_nothing(owner: Owner) -> None:
    owner.vaults = owner.place / "thief"
    assert owner.keys("new")[0] == 0
    fails(owner.decrypt("per-image-derived"), "no salts of record")


@pytest.mark.parametrize("place", ["node/tree", "vaults/aachen/tree", "."])
def test_plain_images_never_lie_with_keys_or_what_is_handed_over(place: str, owner: Owner) -> None:
    before = files_in(owner.place)
    fails(owner.decrypt("per-image-derived", "--out", owner.place / place), "plain images must not")
    assert files_in(owner.place) == before


@pytest.mark.parametrize("place", ["/proc/tree", "passphrase", "passphrase/tree"])
def test_a_bad_folder_is_found_out_before_anything_is_decrypted(
    place: str, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_tree, "decrypt_shard", lambda *_: pytest.fail("decrypted"))
    monkeypatch.setattr(plain_tree, "wrong_samples", lambda *_: pytest.fail("decrypted"))
    status, _, error = owner.decrypt("per-image-derived", "--out", owner.place / place)
    assert status == 2 and error.count("\n") == 1 and place.removesuffix("/tree") in error
    assert not (owner.vault / "decrypting").exists()


# Cut short.

KILLED = """
import os, signal, sys
from PIL import Image
from clients.vault.command import main
save, calls = Image.Image.save, []

def last(*arguments, **options):
    save(*arguments, **options)
    calls.append(1)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Image.Image.save = last
main(sys.argv[1:])
"""
"""The command, killed after the fifth file."""


@pytest.fixture
def killed(owner: Owner) -> Path:
    """The folder of a decryption that was killed."""
    out = owner.place / "killed"
    process = python(
        KILLED, "decrypt", "--vault", owner.vaults, "--client", "aachen", "--node", owner.node,
        "--arm", "per-image-derived", "--out", out,
    )  # fmt: skip
    assert process.communicate(timeout=150)[1] == "" and process.returncode == -9
    return out


def test_what_a_killed_decryption_leaves_is_in_its_folder_said_and_removed(
    killed: Path, owner: Owner
) -> None:
    assert [path.name for path in killed.iterdir()] == [".draft"]
    assert len(list(killed.rglob("*.png"))) == 5
    elsewhere = (path for path in owner.place.rglob("*.png") if killed not in path.parents)
    assert not list(elsewhere)
    said = f"{killed}: plain images of a decryption that was interrupted"
    assert said in owner.keys("show")[1]
    fails(owner.call("verify", "--node", owner.node, "--vault", owner.vaults), said, status=1)

    assert owner.decrypt("per-client-private")[0] == 0  # any next one
    assert not killed.exists()
    assert "plain images" not in owner.keys("show")[1]
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0


def test_the_same_command_begins_again(killed: Path, owner: Owner) -> None:
    assert owner.decrypt("per-image-derived", "--out", killed)[0] == 0
    assert {path.name for path in killed.iterdir()} == {"leftImg8bit", "gtFine"}
    assert len(list(killed.rglob("*.png"))) == 2 * 13
    assert not (owner.vault / "decrypting").exists()


@pytest.mark.parametrize("moved", ["gtFine", "leftImg8bit"])
def test_a_move_that_was_cut_short_is_no_tree(
    moved: str, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_in = Directory.move_in

    def cut(tree: Directory, source: Directory, name: str) -> None:
        if name == moved:
            raise KeyboardInterrupt
        move_in(tree, source, name)

    monkeypatch.setattr(Directory, "move_in", cut)
    assert owner.decrypt("per-image-derived")[0] == 1
    assert not (owner.place / "per-image-derived").exists()
