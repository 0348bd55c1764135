"""`python -m clients.vault encrypt`: what a node gets, and what a second call changes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_owner import ARMS, Owner, files_in

from clients.policy.node_policy import LocalPrivacy, save_policy
from clients.private_state import load_start
from fl_ppseg.config.loading import load_config
from fl_ppseg.data.shard import ShardPart, open_shard
from fl_ppseg.federation.public_weights import initial_model, public_embedding
from fl_ppseg.setr.names import EMBEDDING_TENSORS


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(scenes, tmp_path, capsys)


def part(folder: Path) -> ShardPart:
    return open_shard([folder]).parts[0]


def blocks(images: np.ndarray) -> np.ndarray:
    """(..., 3, 32, 64) -> (num_blocks, 192)."""
    grid = np.array(images).reshape(-1, 3, 4, 8, 8, 8)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 192)


# What the node gets.


def test_a_node_folder_holds_shards_policy_and_private_embedding_and_no_key(owner: Owner) -> None:
    owner.ready()
    inside = {"owner.json", "policy.yaml", "private", "shards", "start"}
    assert {path.name for path in owner.node.iterdir()} == inside
    policy = owner.policy
    assert (policy.client, policy.role, policy.run) == ("aachen", "train", None)
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
        "floor.yaml",
        "handed_over.json",
        "master.key",
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
        for encrypted, plain in ((shard.images, views[:6]), (shard.heldout_images, views[6:, 0])):
            np.testing.assert_array_equal(np.sort(blocks(encrypted)), np.sort(blocks(plain)))


def test_private_embedding_reads_ciphertexts_as_the_public_one_reads_images(owner: Owner) -> None:
    """E'x' = Ex with E of the config's own weights of round 0."""
    owner.ready()
    folders = owner.policy.arms["per-client-private"].private
    assert folders is not None
    private = load_start(folders[0])
    public = public_embedding(initial_model(load_config(owner.config), 19, 0))
    weight = EMBEDDING_TENSORS[0]
    plain = blocks(next(owner.plain_views()))
    encrypted = blocks(part(owner.shard("per-client-private")).images[0, 0])
    np.testing.assert_allclose(
        (2.0 * encrypted - 255) / 255 @ private[weight].reshape(32, 192).T,
        (2.0 * plain - 255) / 255 @ public[weight].reshape(32, 192).T,
        atol=1e-5,
    )


def test_a_val_client_is_only_evaluated_on(owner: Owner) -> None:
    assert owner.keys("new", client="lindau")[0] == 0
    status, out, _ = owner.encrypt("--split", "val", client="lindau")
    assert status == 0 and "0 images to train on, 2 held out" in out
    assert (owner.policy.client, owner.policy.role) == ("lindau", "val")
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
    assert "already complete, nothing was done" in out and "to encrypt" not in out
    assert states(owner.place) == before


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
    assert "about 1 s with 1 worker process(es)" in out
    assert owner.encrypt()[0] == 0
    on_disk = sum(path.stat().st_size for path in (owner.node / "shards").rglob("*.npy"))
    assert 3 * views < on_disk <= 3 * (views + 4 * 128)  # a header an array


def test_plain_images_are_handed_over_by_an_explicit_word_alone(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    assert owner.encrypt("--arms", "plain", "--allow-plain")[0] == 0
    first = next(owner.plain_views())
    np.testing.assert_array_equal(part(owner.shard("plain")).images[0, 0], first)
