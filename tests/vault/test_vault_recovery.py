"""What a node folder is worth, and its end: verify, withdraw."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_owner import Owner, fails, files_in

from clients.policy.node_policy import RefusedError


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(scenes, tmp_path, capsys).ready()


def verify(owner: Owner, *options: object) -> tuple[int, str, str]:
    return owner.call("verify", "--node", owner.node, *options)


def test_a_whole_folder_is_good(owner: Owner) -> None:
    status, out, error = verify(owner)
    assert (status, error) == (0, "") and "BAD" not in out
    assert out.count("hashes match") == 3 and "samples decrypt" not in out
    status, out, _ = verify(owner, "--vault", owner.vaults)
    assert status == 0 and out.count("hashes match, samples decrypt") == 2


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_every_damaged_file_of_every_shard_is_named(owner: Owner) -> None:
    for arm in owner.policy.arms:
        for path in owner.shard(arm).rglob("*.npy"):
            before = path.read_bytes()
            damage(path)
            outcome = verify(owner)
            fails(
                outcome, f"1 problem(s), the first: {path}: changed since it was written", status=1
            )
            assert f"BAD:  {path}" in outcome[1]
            path.write_bytes(before)
    assert verify(owner)[0] == 0


def test_what_is_missing_too_much_or_open_is_named(owner: Owner) -> None:
    private = owner.policy.arms["per-client-private"].private
    assert private is not None
    added = owner.node / "shards" / "more"
    added.mkdir()
    fails(verify(owner), f"{added}: not named in the policy", status=1)
    added.rmdir()
    (private[0] / "round_0000.safetensors").chmod(0o640)
    fails(verify(owner), "open to others (mode 0640)", status=1)
    (private[0] / "round_0000.safetensors").write_bytes(b"x")
    (private[0] / "round_0000.safetensors").chmod(0o600)
    fails(verify(owner), "unreadable private embedding", status=1)
    owner.shard("per-image").rename(owner.place / "gone")
    fails(verify(owner), "2 problem(s)", status=1)
    (owner.node / "policy.yaml").unlink()
    fails(verify(owner), "policy.yaml: cannot be read")


@pytest.mark.parametrize("arm", ["per-client-private", "per-image-derived"])
def test_ciphertexts_that_decrypt_to_something_else_are_named(arm: str, owner: Owner) -> None:
    """Hashes that fit the changed file do not help: the vault knows what its images were."""
    folder = owner.shard(arm)
    path = folder / "leftImg8bit/train/aachen.npy"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    array = np.load(path)
    np.save(path, array[::-1])
    path.chmod(0o600)
    manifest = folder / "manifest.json"
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(before, after))
    assert verify(owner)[0] == 0
    outcome = verify(owner, "--vault", owner.vaults)
    fails(outcome, "decrypts to another image", status=1)
    fails(owner.decrypt(arm), "does not decrypt to the image that was encrypted")
    assert not (owner.place / arm).exists()


# Withdrawal.


def test_a_client_that_withdraws_leaves_nothing_but_its_refusal(owner: Owner) -> None:
    shard = owner.shard("per-image").name
    keys = files_in(owner.vault)
    status, out, _ = owner.keys("withdraw", "--node", owner.node)
    assert status == 0 and "5 folder(s) removed" in out and f"shards/{shard}" in out
    assert list(files_in(owner.node)) == ["owner.json", "policy.yaml"]
    assert files_in(owner.vault) == keys
    assert owner.policy.arms == {}
    with pytest.raises(RefusedError, match="refused: aachen has withdrawn"):
        owner.policy.require_consent()
    assert verify(owner)[0] == 0
    status, out, _ = owner.call("show", "--node", owner.node)
    assert status == 0 and "aachen has withdrawn" in out


def test_withdrawal_names_the_client_it_is_about(owner: Owner) -> None:
    before = files_in(owner.node)
    assert owner.keys("new", client="bochum")[0] == 0
    outcome = owner.keys("withdraw", "--node", owner.node, client="bochum")
    fails(outcome, "is the node folder of aachen, not of bochum")
    fails(owner.call("withdraw", "--node", owner.node, "--vault", owner.vaults), "--client")
    fails(owner.call("withdraw", "--node", owner.node, "--client", "aachen"), "--vault")
    assert files_in(owner.node) == before


def test_a_withdrawal_that_is_cut_short_refuses_already(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        assert owner.keys("withdraw", "--node", owner.node)[0] == 1
    assert owner.policy.withdrawn is not None
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0
    assert list(files_in(owner.node)) == ["owner.json", "policy.yaml"]


def test_an_owner_may_come_back(owner: Owner) -> None:
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0
    status, out, _ = owner.encrypt()
    assert status == 0 and "nothing was done" not in out
    assert owner.policy.withdrawn is None and len(owner.policy.arms) == 3
    assert verify(owner, "--vault", owner.vaults)[0] == 0
