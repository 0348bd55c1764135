"""`python -m clients.vault encrypt`: what a node gets, and what an owner is told."""

import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
from small_owner import ARMS, Owner, files_in

from clients.policy import LocalPrivacy, save_policy
from clients.private_state import load_private, save_private, versions
from clients.vault.command import main
from fl_ppseg.config import builtin_arms, load_config
from fl_ppseg.public_weights import initial_model, public_embedding
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.shard import ShardPart, open_shard


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(scenes, tmp_path, capsys)


def part(folder: Path) -> ShardPart:
    return open_shard([folder]).parts[0]


def blocks(images: np.ndarray) -> np.ndarray:
    """(..., 3, 32, 64) -> (num_blocks, 192)."""
    grid = np.array(images).reshape(-1, 3, 4, 8, 8, 8)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 192)


def one_line(error: str) -> str:
    """What a failure says: a single line."""
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


# What the node gets.


def test_a_node_folder_holds_shards_policy_and_private_embedding_and_no_key(owner: Owner) -> None:
    owner.ready()
    assert {path.name for path in owner.node.iterdir()} == {"policy.yaml", "private", "shards"}
    policy = owner.policy
    assert (policy.city, policy.role, policy.log) == ("aachen", "train", owner.node / "node.log")
    assert tuple(policy.arms) == ARMS
    for arm in policy.arms.values():
        (folder,) = arm.shards[0]
        shard = part(folder)
        assert folder.parent == owner.node / "shards"
        assert (len(shard.images), len(shard.heldout_images)) == (6, 1)  # the last tenth of 7
        assert shard.manifest.block_size == 8
    found = [arm.private for arm in policy.arms.values()]
    assert found[0] is not None and found[1:] == [None, None]
    assert {name for name in files_in(owner.vault) if not name.startswith("manifests/")} == {
        "master.key"
    }


def test_paths_in_the_policy_move_with_the_folder(owner: Owner, tmp_path: Path) -> None:
    owner.ready()
    assert str(tmp_path) not in (owner.node / "policy.yaml").read_text()
    moved = tmp_path / "elsewhere"
    shutil.move(owner.node, moved)
    owner.node = moved
    assert owner.shard("per-image").is_relative_to(moved)
    part(owner.shard("per-image"))


def test_images_are_those_of_the_simulation_under_another_key(owner: Owner) -> None:
    """One way to encrypt: equal blocks' values, equal labels, in equal places."""
    owner.ready()
    views = np.stack(list(owner.plain_views())).reshape(7, 2, 3, 32, 64)
    for arm in ARMS:
        shard = part(owner.shard(arm))
        assert (shard.images != views[:6]).any(axis=(-3, -2, -1)).all()
        for sealed, plain in ((shard.images, views[:6]), (shard.heldout_images, views[6:, 0])):
            np.testing.assert_array_equal(np.sort(blocks(sealed)), np.sort(blocks(plain)))


def test_private_embedding_reads_ciphertexts_as_the_public_one_reads_images(owner: Owner) -> None:
    """E'x' = Ex with E of the config's own weights of round 0."""
    owner.ready()
    folders = owner.policy.arms["per-client-private"].private
    assert folders is not None
    private = load_private(folders[0], 0)
    public = public_embedding(initial_model(load_config(owner.config), 19, 0))
    weight = EMBEDDING_TENSORS[0]
    plain = blocks(next(owner.plain_views()))
    sealed = blocks(part(owner.shard("per-client-private")).images[0, 0])
    np.testing.assert_allclose(
        (2.0 * sealed - 255) / 255 @ private[weight].numpy().reshape(32, 192).T,
        (2.0 * plain - 255) / 255 @ public[weight].reshape(32, 192).T,
        atol=1e-5,
    )


def test_a_val_city_is_only_evaluated_on(owner: Owner) -> None:
    assert owner.keys("new", city="lindau")[0] == 0
    status, out, _ = owner.encrypt("--split", "val", city="lindau")
    assert status == 0 and "0 images to train on, 2 held out" in out
    assert (owner.policy.city, owner.policy.role) == ("lindau", "val")
    shard = part(owner.shard("per-image"))
    assert (len(shard.images), len(shard.heldout_images)) == (0, 2)


def test_a_shard_for_each_seed(owner: Owner) -> None:
    owner.configure(seeds=[0, 5])
    owner.ready()
    for arm in owner.policy.arms.values():
        assert arm.shards.keys() == {0, 5}
        assert arm.shards[0] != arm.shards[5]


# Again, and more.


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_equal_command_does_nothing_and_says_so(owner: Owner) -> None:
    owner.ready()
    before = states(owner.place)
    status, out, _ = owner.encrypt()
    assert status == 0
    assert "complete already, nothing was done" in out and "to encrypt" not in out
    assert states(owner.place) == before


def test_the_equal_command_keeps_what_the_node_trained_in_private(owner: Owner) -> None:
    owner.ready()
    folders = owner.policy.arms["per-client-private"].private
    assert folders is not None
    save_private(folders[0], 4, load_private(folders[0], 0))
    assert owner.encrypt()[0] == 0
    assert versions(folders[0]) == [0, 4]


def test_arms_of_a_later_call_join_those_of_before(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    for arm in ARMS[:2]:
        assert owner.encrypt("--arms", arm)[0] == 0
    assert tuple(owner.policy.arms) == ARMS[:2]
    first = owner.shard("per-image")
    status, out, _ = owner.encrypt("--arms", "per-image")
    assert status == 0 and "nothing was done" in out
    assert owner.shard("per-image") == first


def test_what_the_owner_wrote_into_the_policy_stays(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    assert owner.encrypt("--arms", "per-image")[0] == 0
    privacy = LocalPrivacy(clipping_norm=1.0, noise_multiplier=2.0, max_epsilon=8.0)
    mine = owner.policy.model_copy(update={"device": "cuda:1", "privacy": privacy})
    save_policy(mine, owner.node / "policy.yaml")
    wanted = owner.policy
    assert owner.encrypt()[0] == 0
    assert (owner.policy.device, owner.policy.privacy) == ("cuda:1", wanted.privacy)
    assert len(owner.policy.arms) == 3


def test_an_arm_whose_embedding_cannot_be_adapted_is_refused_before_the_work(owner: Owner) -> None:
    arm = builtin_arms()["per-client-private"].model_dump() | {"cipher": "ffx"}
    owner.configure(arms=["odd"], arm_table={"odd": arm})
    assert owner.keys("new")[0] == 0
    status, _, error = owner.encrypt()
    assert status == 2 and "no embedding can be adapted" in one_line(error)
    assert not owner.node.exists() and list(files_in(owner.vault)) == ["master.key"]


def test_what_no_arm_uses_any_more_goes(owner: Owner) -> None:
    owner.ready()
    before = {path.name for path in (owner.node / "shards").iterdir()}
    owner.configure(data={"image_size": [32, 64], "num_views": 1})
    assert owner.encrypt()[0] == 0
    after = {path.name for path in (owner.node / "shards").iterdir()}
    assert len(before) == len(after) == 3 and not before & after
    assert owner.call("verify", "--node", owner.node)[0] == 0


def test_dry_run_says_disk_and_time_and_writes_nothing(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    before = states(owner.place)
    status, out, _ = owner.encrypt("--dry-run")
    assert status == 0
    assert states(owner.place) == before and not owner.node.exists()
    views = 6 * 2 * 4 * 32 * 64 + 4 * 32 * 64  # image and labels; the held-out one
    assert f"7 images, {3 * views / 1000:.3g} kB on disk" in out
    assert "about 1 s with 1 worker(s)" in out
    assert owner.encrypt()[0] == 0
    on_disk = sum(path.stat().st_size for path in (owner.node / "shards").rglob("*.npy"))
    assert 3 * views < on_disk <= 3 * (views + 4 * 128)  # a header an array


# What cannot be.


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("conventional-2", "share one key"),
        ("domain-adaptation", "comparison in a simulation only"),
        ("centralised", "images of all owners in one place"),
        ("plain", "stores images as they are; .* --allow-plain"),
        ("nothing", "unknown arm 'nothing'"),
    ],
)
def test_arms_that_no_owner_can_hand_over(arm: str, reason: str, owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    status, out, error = owner.encrypt("--arms", f"per-image,{arm}")
    assert status == 2 and out == ""
    assert re.search(reason, one_line(error))
    assert not owner.node.exists()


def test_plain_images_are_handed_over_by_an_explicit_word_alone(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    assert owner.encrypt("--arms", "plain", "--allow-plain")[0] == 0
    first = next(owner.plain_views())
    np.testing.assert_array_equal(part(owner.shard("plain")).images[0, 0], first)


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


def lose_city(owner: Owner) -> str:
    broken_tree(owner)
    shutil.rmtree(owner.root / "leftImg8bit/train/aachen")
    return "no city 'aachen' under train; there are bochum, bremen"


def lose_tree(owner: Owner) -> str:
    owner.root = owner.place / "nothing"
    return "nothing: no such folder"


@pytest.mark.parametrize("accident", [truncate, lose_label_map, lose_city, lose_tree])
@pytest.mark.parametrize("workers", [1, 2])
def test_broken_data_are_one_line_and_nothing_is_left(
    accident: object, workers: int, owner: Owner
) -> None:
    assert owner.keys("new")[0] == 0
    named = accident(owner)  # type: ignore[operator]
    status, _, error = owner.encrypt("--workers", workers)
    assert status == 2
    assert named in one_line(error)
    assert files_in(owner.node) == {}
    assert list(files_in(owner.vault)) == ["master.key"]


def test_a_full_disk_is_one_line_and_nothing_is_left(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owner.keys("new")[0] == 0
    calls, reserve = 0, os.posix_fallocate

    def full(*arguments: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:  # in the second shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    status, _, error = owner.encrypt()
    assert status == 1
    assert "no space left on the disk while writing" in one_line(error)
    assert str(owner.node) in error
    assert files_in(owner.node) == {}
    assert list(files_in(owner.vault)) == ["master.key"]


def test_a_disk_that_is_too_small_is_said_before_the_start(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owner.keys("new")[0] == 0
    small_disk = shutil.disk_usage(owner.place)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: small_disk)
    status, _, error = owner.encrypt()
    assert status == 1 and "319 kB are wanted and 1 kB free" in one_line(error)
    assert not owner.node.exists()


def test_a_vault_without_a_key_is_no_vault(owner: Owner) -> None:
    status, _, error = owner.encrypt()
    assert status == 2
    assert "no master key; make one with `python -m clients.vault new" in one_line(error)
    assert not owner.vaults.exists() and not owner.node.exists()


def test_a_node_folder_is_of_one_city(owner: Owner) -> None:
    owner.ready()
    before = files_in(owner.node)
    assert owner.keys("new", city="bochum")[0] == 0
    status, _, error = owner.encrypt(city="bochum")
    assert status == 2 and "is of aachen (train), not of bochum (train)" in one_line(error)
    assert files_in(owner.node) == before


@pytest.mark.parametrize("inside", ["aachen", "aachen/node"])
def test_keys_never_lie_with_what_is_handed_over(inside: str, owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    owner.node = owner.vaults / inside
    status, _, error = owner.encrypt()
    assert status == 2 and "lie in one another" in one_line(error)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_node_folder_that_is_not_ours_and_open_is_refused(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    owner.node.mkdir(mode=0o755)
    os.chown(owner.node, 65534, 65534)
    status, _, error = owner.encrypt()
    assert status == 2 and "others may enter it and it is not yours alone" in one_line(error)
    assert files_in(owner.node) == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--city", "../up"], "names no folder"),
        (["--city", ".shared"], "names no folder"),
        (["--workers", "0"], "no number of processes"),
        (["--split", "test"], "invalid choice: 'test'"),
        (["--config", "nothing"], "no config 'nothing'"),
        (["--data-root", ""], "no such folder"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], reason: str, owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    status, _, error = owner.encrypt(*options)
    assert status == 2 and reason in one_line(error)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-h"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for command in (
        "new", "encrypt", "decrypt", "verify", "backup", "restore", "rotate", "retire", "withdraw",
        "show",
    ):  # fmt: skip
        assert f"    {command} " in text
        with pytest.raises(SystemExit):
            main([command, "-h"])
        assert "(default: None)" not in capsys.readouterr().out
