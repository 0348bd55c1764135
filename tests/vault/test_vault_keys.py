"""Master keys over the years: made once, rotated, retired; and never shown."""

import base64
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from small_owner import PASSPHRASE, Owner, fails, files_in

from clients.vault.keys import rotation
from clients.vault.keys.keyring import Vault, open_vault
from fl_ppseg.crypto.keys import ClientKey


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(scenes, tmp_path, capsys)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_key_is_its_owners_alone_and_stays(owner: Owner) -> None:
    status, out, _ = owner.keys("new")
    key = ClientKey.load(owner.vault / "master.key")
    assert status == 0 and f"fingerprint {key.fingerprint}" in out
    assert (mode(owner.vault), mode(owner.vault / "master.key")) == (0o700, 0o600)
    before = files_in(owner.vaults)
    fails(owner.keys("new"), "exists and is never overwritten")
    assert files_in(owner.vaults) == before


def test_no_command_shows_a_secret(owner: Owner) -> None:
    secret = b""
    said = []
    for command, *options in (
        ["new"],
        ["encrypt", *owner.encrypt_options()],
        ["backup", "--to", owner.place / "backup", "--passphrase-file", owner.passphrase],
        ["show", "--node", owner.node],
        ["rotate"],
        ["encrypt", *owner.encrypt_options()],
        ["show", "--node", owner.node],
        ["retire"],
        ["decrypt", "--node", owner.node, "--arm", "per-image-derived", "--out", owner.place / "o"],
        ["retire", "--confirm", "aachen"],
        ["withdraw", "--node", owner.node],
    ):
        agreed = owner.agreement() if command == "encrypt" else []
        said += owner.keys(command, *options, *agreed)[1:]
        if command in ("new", "rotate"):
            secret = ClientKey.load(owner.vault / "master.key")._secret
        for form in (secret.hex(), base64.b64encode(secret).decode()[:40], PASSPHRASE):
            assert all(form not in text for text in said)
        salts = [
            salt
            for path in owner.vault.rglob("manifests/*.json")
            for salt in json.loads(path.read_text())["salts"].values()
        ]
        assert all(salt not in text for text in said for salt in salts)


def test_rotation_keeps_what_was_encrypted_and_changes_what_will_be(owner: Owner) -> None:
    owner.ready()
    old = ClientKey.load(owner.vault / "master.key")
    before = files_in(owner.node)
    status, out, _ = owner.keys("rotate")
    new = ClientKey.load(owner.vault / "master.key")
    assert status == 0 and new != old
    assert new.fingerprint in out and f"{old.fingerprint} is retired" in out
    assert files_in(owner.node) == before
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0

    kept = owner.place / "kept"
    owner.node.rename(kept)
    assert owner.encrypt()[0] == 0
    for arm in ("per-client-private", "per-image-derived"):
        first, second = (
            np.load(folder / "shards" / owner.shard(arm).name / "leftImg8bit/train/aachen.npy")
            for folder in (kept, owner.node)
        )
        assert (first != second).any(axis=(-3, -2, -1)).all()
    for folder in (kept, owner.node):
        assert owner.call("verify", "--node", folder, "--vault", owner.vaults)[0] == 0


def test_encrypting_after_a_rotation_replaces_what_has_derived_keys(owner: Owner) -> None:
    owner.ready()
    arms = ("per-client-private", "per-image", "per-image-derived")
    before = {arm: (owner.shard(arm) / "manifest.json").read_text() for arm in arms}
    assert owner.keys("rotate")[0] == 0
    assert owner.encrypt()[0] == 0
    after = {arm: (owner.shard(arm) / "manifest.json").read_text() for arm in arms}
    assert [before[arm] == after[arm] for arm in arms] == [False, True, False]
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0


@pytest.mark.parametrize("moment", range(4))
def test_a_rotation_that_was_cut_short_loses_nothing(
    moment: int, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.ready()
    old = ClientKey.load(owner.vault / "master.key")
    replace, calls = Path.replace, 0

    def cut(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > moment:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        done = owner.keys("rotate")[0] == 0
    assert done == (moment == 3)  # two records aside, new key
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0
    assert not list(owner.vault.rglob(".*"))
    if not done:
        assert ClientKey.load(owner.vault / "master.key") == old
        assert owner.keys("rotate")[0] == 0
    fingerprints = [g.fingerprint for g in rotation.generations(Vault(owner.vault))]
    assert len(fingerprints) == 2 and fingerprints[1] == old.fingerprint
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0


def test_retiring_wants_the_word_and_says_what_is_lost(owner: Owner) -> None:
    owner.ready()
    fails(owner.keys("retire"), "no retired keys; add --all to destroy the master key too")
    assert owner.keys("rotate")[0] == 0
    old = rotation.generations(Vault(owner.vault))[1]
    before = files_in(owner.vault)
    for word in ((), ("--confirm", "yes")):
        fails(owner.keys("retire", *word), "2 shard(s) can never be decrypted again")
    assert files_in(owner.vault) == before

    status, out, _ = owner.keys("retire", "--confirm", "aachen")
    assert status == 0 and f"destroyed key {old.fingerprint}" in out
    for name in old.records:
        images = "6 training and 1 held-out images"
        assert f"can never be decrypted again: record {name}, {images}" in out
    assert list(files_in(owner.vault)) == ["floor.yaml", "handed_over.json", "master.key"]
    outcome = owner.keys(
        "decrypt", "--node", owner.node, "--arm", "per-image-derived", "--out", owner.place / "o"
    )
    fails(outcome, "no salts of record")
    fails(
        owner.call("verify", "--node", owner.node, "--vault", owner.vaults),
        "2 problem(s), the first:",
        status=1,
    )


def test_retiring_all_leaves_no_key_and_no_salt(owner: Owner) -> None:
    owner.ready()
    inode = (owner.vault / "master.key").stat().st_ino
    link = owner.place / "link"
    os.link(owner.vault / "master.key", link)  # what lies on the disk where the key lay
    assert owner.keys("retire", "--all", "--confirm", "aachen")[0] == 0
    assert list(files_in(owner.vault)) == ["floor.yaml", "handed_over.json"]  # no secret in them
    assert link.stat().st_ino == inode and set(link.read_bytes()) == {0}
    fails(owner.encrypt(), "no master key; make one")
    assert owner.keys("new")[0] == 0


def test_a_key_that_others_can_read_is_refused(owner: Owner) -> None:
    owner.ready()
    (owner.vault / "master.key").chmod(0o644)
    for outcome in (
        owner.keys("show"),
        owner.keys("rotate"),
        owner.keys("decrypt", "--node", owner.node, "--arm", "per-image-derived", "--out", "o"),
    ):
        fails(outcome, "is open to others")


def test_a_damaged_record_is_named(owner: Owner) -> None:
    owner.ready()
    (path, _) = sorted((owner.vault / "manifests").iterdir())
    path.write_text(path.read_text().replace("a", "b"))
    fails(owner.keys("show"), f"{path}: the salts of derived keys are damaged (its hash differs)")


def test_show_names_fingerprints_shards_and_arms(owner: Owner) -> None:
    owner.ready()
    key = open_vault(owner.vaults, "aachen").ensure_key()
    status, out, _ = owner.keys("show", "--node", owner.node)
    assert status == 0
    assert f"master key {key.fingerprint}: salts of 2 shard(s)" in out
    for arm in owner.policy.arms:
        assert f"arm {arm}: " in out and owner.shard(arm).name in out
    assert owner.call("show", "--node", owner.node, "--vault", owner.vaults)[1] == out
    fails(owner.call("show"), "nothing to show: expected --vault and --client, or --node")
