"""`clients.vault encrypt`: what cannot be is one line, before the work, and leaves no trace."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import small_federation as small
from small_owner import Owner, fails, files_in

from clients.vault.shards import preparation
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.dataset import Scene


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    owner = Owner(scenes, tmp_path, capsys)
    assert owner.keys("new")[0] == 0
    return owner


def test_an_arm_whose_embedding_cannot_be_adapted_is_refused_before_the_work(owner: Owner) -> None:
    arm = builtin_arms()["per-client-private"].model_dump() | {"cipher": "ffx"}
    owner.configure(arms=["odd"], arm_table={"odd": arm})
    fails(owner.encrypt(), "no embedding can be adapted")
    assert not owner.node.exists() and list(files_in(owner.vault)) == ["floor.yaml", "master.key"]


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("conventional-2", "share one key"),
        ("domain-adaptation", "can only be simulated"),
        ("centralised", "images of all owners in one place"),
        ("plain", "stores images unencrypted; leave it out of --arms, or add --allow-plain"),
        ("nothing", "unknown arm 'nothing'"),
    ],
)
def test_arms_that_no_owner_can_hand_over(arm: str, reason: str, owner: Owner) -> None:
    outcome = owner.encrypt("--arms", f"per-image,{arm}")
    fails(outcome, reason)
    assert outcome[1] == ""
    assert not owner.node.exists()


def broken_tree(owner: Owner) -> Path:
    """A copy of the tree that may be broken; returns its last training image."""
    owner.root = small.tree_of_links(owner.root, owner.place / "tree")
    return sorted((owner.root / "leftImg8bit/train/aachen").iterdir())[-2]


def truncate(owner: Owner) -> str:
    image = broken_tree(owner)
    content = image.read_bytes()
    image.unlink()
    image.write_bytes(content[: len(content) // 2])
    return image.name


def lose_label_map(owner: Owner) -> str:
    stem = broken_tree(owner).name.removesuffix("_leftImg8bit.png")
    label = owner.root / "gtFine/train/aachen" / f"{stem}_gtFine_labelIds.png"
    label.unlink()
    return label.name


def lose_client(owner: Owner) -> str:
    broken_tree(owner)
    shutil.rmtree(owner.root / "leftImg8bit/train/aachen")
    return "no folder of client 'aachen' under train; expected one of bochum, bremen"


def lose_tree(owner: Owner) -> str:
    owner.root = owner.place / "nothing"
    return "nothing: no such folder"


@pytest.mark.parametrize("accident", [truncate, lose_label_map, lose_client, lose_tree])
@pytest.mark.parametrize("workers", [1, 2])
def test_broken_data_are_one_line_and_nothing_is_left(
    accident: object, workers: int, owner: Owner
) -> None:
    named = accident(owner)  # type: ignore[operator]
    fails(owner.encrypt("--workers", workers), named)
    assert files_in(owner.node) == {}
    assert list(files_in(owner.vault)) == ["floor.yaml", "master.key"]


def scenes_of(owner: Owner) -> list[str]:
    images = (owner.root / "leftImg8bit/train/aachen").iterdir()
    return sorted(path.name.removesuffix("_leftImg8bit.png") for path in images)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_every_broken_file_is_named_before_the_first_image_is_encrypted(
    options: tuple[str, ...], owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "encrypt_scene", lambda _: pytest.fail("encrypted"))
    broken_tree(owner)
    stems = scenes_of(owner)
    image = owner.root / f"leftImg8bit/train/aachen/{stems[1]}_leftImg8bit.png"
    label_map = owner.root / f"gtFine/train/aachen/{stems[4]}_gtFine_labelIds.png"
    for path in (image, label_map):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(content)
    outcome = owner.encrypt(*options)
    fails(outcome, f"{image}: unreadable image")
    assert f"and 1 more: {stems[4]}" in outcome[2] and stems[0] not in outcome[2]
    assert not owner.node.exists()


def test_what_is_encrypted_already_is_not_looked_at_again(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owner.encrypt()[0] == 0
    monkeypatch.setattr(Scene, "check", lambda _: pytest.fail("looked"))
    assert owner.encrypt()[0] == 0


@pytest.mark.parametrize("place", ["/proc/node", "passphrase", "passphrase/node"])
@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_bad_folder_is_found_out_before_any_image_is_looked_at(
    place: str, options: tuple[str, ...], owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scene, "check", lambda _: pytest.fail("looked"))
    before = files_in(owner.place)
    owner.node = owner.place / place
    outcome = owner.encrypt(*options)
    fails(outcome, "nothing can be written there")
    assert str(owner.node) in outcome[2]
    assert files_in(owner.place) == before


def test_a_full_disk_is_one_line_and_nothing_is_left(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, reserve = 0, os.posix_fallocate

    def full(*arguments: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:  # in the second shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    fails(owner.encrypt(), f"no space left on the disk while writing {owner.vault}", status=1)
    assert list(files_in(owner.node)) == ["owner.json"]
    assert list(files_in(owner.vault)) == ["floor.yaml", "master.key"]


def test_a_disk_that_is_too_small_is_said_before_the_start(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_disk = shutil.disk_usage(owner.place)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: small_disk)
    fails(owner.encrypt(), "319 kB needed, 1 kB free", status=1)
    assert not owner.node.exists()


def test_a_vault_without_a_key_is_no_vault(owner: Owner) -> None:
    owner.vaults = owner.place / "another"
    fails(owner.encrypt(), "no master key; make one with `python -m clients.vault new")
    assert not owner.vaults.exists() and not owner.node.exists()


def test_a_node_folder_is_of_one_client(owner: Owner) -> None:
    assert owner.encrypt()[0] == 0
    before = files_in(owner.node)
    assert owner.keys("new", client="bochum")[0] == 0
    fails(owner.encrypt(client="bochum"), "is the node folder of aachen, not of bochum")
    assert files_in(owner.node) == before


@pytest.mark.parametrize("inside", ["aachen", "aachen/node"])
def test_keys_never_lie_with_what_is_handed_over(inside: str, owner: Owner) -> None:
    owner.node = owner.vaults / inside
    fails(owner.encrypt(), "must not contain each other")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_node_folder_that_is_not_ours_and_open_is_refused(owner: Owner) -> None:
    owner.node.mkdir(mode=0o755)
    os.chown(owner.node, 65534, 65534)
    fails(owner.encrypt(), f"{owner.node}: belongs to nobody, who could replace what lies in it")
    assert files_in(owner.node) == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--client", "../up"], "is not the name of a client"),
        (["--client", ".shared"], "is not the name of a client"),
        (["--workers", "0"], "is not a number; expected 1 or more"),
        (["--split", "test"], "invalid choice: 'test'"),
        (["--config", "nothing"], "no config 'nothing'"),
        (["--data-root", ""], "no such folder"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], reason: str, owner: Owner) -> None:
    fails(owner.encrypt(*options), reason)
