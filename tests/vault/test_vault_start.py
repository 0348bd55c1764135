"""Start weights in a node folder: handed over with the policy, recorded, removed when not named."""

from pathlib import Path

import numpy as np
import pytest
import small_federation as small
from safetensors.numpy import save_file
from small_owner import Owner, fails

from clients.policy.start_weights import WEIGHTS, read_start
from clients.vault.node_folders.exports import read_exports
from fl_ppseg.setr import shipped
from fl_ppseg.setr.weights import save_weights


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    owner = Owner(scenes, tmp_path, capsys)
    assert owner.keys("new")[0] == 0
    owner.configure(arms=["per-image", "per-client-private"])
    return owner


def starts(owner: Owner) -> list[Path]:
    return sorted((owner.node / "start").iterdir())


def test_the_node_folder_holds_the_weights_of_round_0_once_for_all_arms(owner: Owner) -> None:
    assert owner.encrypt()[0] == 0
    (folder,) = starts(owner)
    arms = owner.policy.arms.values()
    assert [arm.start for arm in arms] == [{0: folder}] * 2
    assert all(arm.max_change is not None for arm in arms)
    assert small.bits(read_start(folder)) == small.bits(small.arrays_of(small.model()))
    assert (folder / WEIGHTS).stat().st_mode & 0o777 == 0o600
    assert list(read_exports(owner.vault).start) == [folder.name]


def test_arms_whose_embeddings_read_other_things_have_starts_of_their_own(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    networks = {"per-client-private": small.model(), "per-image": small.model()}
    networks["per-image"].backbone.pos_embed.data += 1
    for suffix, network in zip(("", "_shuffled"), networks.values(), strict=True):
        save_weights(network, tmp_path / f"setr_procedural{suffix}.safetensors")
    owner.configure(arms=list(networks), model=small.SETTINGS["model"] | {"weights": "shipped"})
    assert owner.encrypt()[0] == 0
    assert len(starts(owner)) == 2
    for name, network in networks.items():
        (folder,) = (owner.policy.arms[name].start or {}).values()
        assert small.bits(read_start(folder)) == small.bits(network.state_dict())


def test_encrypted_again_nothing_changes_and_another_start_takes_the_place(owner: Owner) -> None:
    assert owner.encrypt()[0] == 0
    before, policy = starts(owner), (owner.node / "policy.yaml").read_bytes()
    assert "nothing was done" in owner.encrypt()[1]
    assert (starts(owner), (owner.node / "policy.yaml").read_bytes()) == (before, policy)
    owner.configure(arms=["per-image", "per-client-private"], seeds=[1])
    assert owner.encrypt()[0] == 0
    (after,) = starts(owner)
    assert after not in before and owner.policy.arms["per-image"].start == {1: after}
    assert set(read_exports(owner.vault).start) == {before[0].name, after.name}


def test_damaged_or_strange_start_weights_are_found_and_made_again(owner: Owner) -> None:
    assert owner.encrypt()[0] == 0
    (folder,) = starts(owner)
    verify = ("--node", owner.node, "--vault", owner.vaults)
    status, out, _ = owner.call("verify", *verify)
    assert status == 0 and f"start/{folder.name}: start weights, hash matches" in out
    (folder / WEIGHTS).write_bytes(b"x")
    (owner.node / "start" / ("0" * 32)).mkdir()
    read_start.cache_clear()
    status, out, error = owner.call("verify", *verify)
    assert status == 1
    assert "damaged start weights (their hash differs)" in out + error
    assert f"start/{'0' * 32}: not named in the policy" in out + error
    assert owner.encrypt()[0] == 0
    assert len(read_start(folder)) == len(small.arrays_of(small.model()))
    assert (owner.node / "start" / ("0" * 32)).exists()  # not ours to remove


def test_a_withdrawn_client_leaves_no_start_weights(owner: Owner) -> None:
    assert owner.encrypt()[0] == 0
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0
    assert starts(owner) == []


# What is said of them.


def test_shipped_drawn_and_given_weights_are_told_apart(owner: Owner) -> None:
    drawn = owner.keys("encrypt", *owner.encrypt_options())[1]
    assert "start weights: drawn from the seed" in drawn and "may be crafted" not in drawn
    assert "further from the start than 0.0" in drawn and "more than 30 images" in drawn
    file = owner.place / "given.safetensors"
    save_file(small.arrays_of(small.model()), file)
    changed = small.SETTINGS["model"] | {"weights": str(file)}
    owner.configure(model=changed)
    before = owner.agreement()
    given = owner.keys("encrypt", *owner.encrypt_options())[1]
    assert "start weights: from the file given.safetensors, SHA-256 " in given
    assert "WARNING: " in given and "may be crafted" in given
    save_file({n: v + np.float32(1) for n, v in small.arrays_of(small.model()).items()}, file)
    assert owner.agreement() != before  # the words hold the file's hash
    file.unlink()
    outcome = owner.keys("encrypt", *owner.encrypt_options())
    assert outcome[0] == 2 and outcome[2].count("\n") == 1
    owner.configure(model={})
    assert (
        "start weights: shipped with the package"
        in owner.keys("encrypt", *owner.encrypt_options())[1]
    )


def test_without_a_bound_the_agreement_says_so_and_the_floor_can_give_one(owner: Owner) -> None:
    sgd = {"batch_size": 2, "optimizer": "sgd", "gradient_clip": 0}
    owner.configure(arms=["per-image"], training=sgd)
    out = owner.keys("encrypt", *owner.encrypt_options())[1]
    assert "weights: ANY up to 1e+06" in out and "gradient_clip" in out and "label maps" in out
    assert owner.encrypt()[0] == 0
    arm = owner.policy.arms["per-image"]
    assert (arm.start, arm.max_change, starts(owner)) == (None, None, [])
    owner.lower_floor(max_change=0.25)
    out = owner.keys("encrypt", *owner.encrypt_options())[1]
    assert "further from the start than 0.25" in out and "max_change of your floor" in out
    assert "ANY" not in out
    assert owner.encrypt()[0] == 0
    arm = owner.policy.arms["per-image"]
    assert arm.max_change == 0.25 and arm.start == {0: starts(owner)[0]}


def test_a_val_client_assumes_a_number_of_images(owner: Owner) -> None:
    options = [*owner.encrypt_options(), "--split", "val"]
    assert owner.keys("new", client="lindau")[0] == 0
    out = owner.keys("encrypt", *options, client="lindau")[1]
    assert "more than 500 images" in out


def test_a_floor_of_no_change_is_refused(owner: Owner) -> None:
    owner.lower_floor(max_change=0)
    fails(owner.keys("encrypt", *owner.encrypt_options()), "max_change")
