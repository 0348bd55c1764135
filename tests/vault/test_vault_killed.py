"""kill -9 before every change that a verb for keys makes to the disk: all can be finished.

And a disk that is full at any of them.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from killed_at_events import FullDisk, killed_at
from small_owner import Owner, fails, files_in

from clients.vault.command import main
from clients.vault.keys import backup, rotation
from clients.vault.keys.keyring import Vault
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.system.command_line import run

MOST_EVENTS = 120
"""More than any verb has; a test that comes so far would never end."""


@pytest.fixture(params=["nameless", "named"])
def owner(
    request: pytest.FixtureRequest,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Owner:
    """Where the system knows files without a name, and where it does not."""
    monkeypatch.setattr(backup, "SCRYPT", {"n": 2**4, "r": 8, "p": 1})  # quick
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without a name")
    return Owner(scenes, tmp_path, capsys).ready()


def argv(owner: Owner, verb: str, *options: object) -> list[str]:
    return [verb, "--vault", str(owner.vaults), "--client", "aachen", *map(str, options)]


def kills(owner: Owner, verb: str, *options: object) -> Iterator[int]:
    """Number of the event at which the verb was just killed, each time in a vault as it was."""
    before = owner.place / "before"
    shutil.copytree(owner.vaults, before)
    for number in range(1, MOST_EVENTS):
        shutil.rmtree(owner.vaults)
        shutil.copytree(before, owner.vaults)
        if not killed_at(number, lambda: run(main, argv(owner, verb, *options))):
            assert number > 5, "the verb did hardly anything"
            return
        yield number
    pytest.fail("never done")


def secrets(owner: Owner) -> list[bytes]:
    """Every master key that there is, in hex."""
    found = owner.vaults.rglob("*.key")
    return [line for path in found for line in path.read_bytes().split(b"\n")[1:2] if line]


def backed_up(owner: Owner, name: str) -> None:
    """A backup goes on and brings all back, and nothing that was half written is left."""
    sealed = owner.place / name
    options = ("--passphrase-file", owner.passphrase)
    status, _, error = owner.keys("backup", "--to", sealed, *options)
    assert status == 0, error
    assert not list(owner.vault.rglob(".*"))
    place = owner.vaults
    owner.vaults = owner.place / f"{name} elsewhere"
    status, _, error = owner.keys("restore", "--from", sealed, *options)
    assert status == 0, error
    found = files_in(owner.vaults / "aachen")
    owner.vaults = place
    ours = files_in(owner.vault)
    skipped = ("next.key", "destroyed.key")
    assert found == {name: text for name, text in ours.items() if Path(name).name not in skipped}


def kept(owner: Owner) -> dict[str, bytes]:
    """Files of the vault but for those without a secret: they stay."""
    found = files_in(owner.vault).items()
    return {name: text for name, text in found if name not in ("floor.yaml", "handed_over.json")}


def is_good(owner: Owner) -> None:
    status, out, error = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    assert status == 0, error
    assert out.count("samples decrypt") == 2


def test_rotate(owner: Owner) -> None:
    old = ClientKey.load(owner.vault / "master.key")
    records = {path.name for path in owner.vault.rglob("manifests/*.json")}
    for number in kills(owner, "rotate"):
        is_good(owner)
        backed_up(owner, f"backup {number}")
        was_done = ClientKey.load(owner.vault / "master.key") != old
        assert owner.keys("rotate")[0] == 0
        fingerprints = [each.fingerprint for each in rotation.generations(Vault(owner.vault))]
        assert old.fingerprint in fingerprints[1:]
        assert len(set(fingerprints)) == len(fingerprints) == 2 + was_done
        assert {path.name for path in owner.vault.glob("retired/*/manifests/*.json")} == records
        assert not list(owner.vault.rglob(".*")) and not (owner.vault / "next.key").exists()
        is_good(owner)


def test_a_rotation_that_was_cut_short_keeps_its_new_key_and_guards_the_old_one(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ClientKey.load(owner.vault / "master.key")
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "sync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert owner.keys("rotate")[0] == 1
    new = ClientKey.load(owner.vault / "next.key")
    assert ClientKey.load(owner.vault / "retired" / old.fingerprint / "master.key") == old
    before = files_in(owner.vault)
    fails(owner.keys("retire", "--confirm", "aachen"), "a rotation was interrupted")
    assert files_in(owner.vault) == before
    assert owner.keys("rotate")[0] == 0
    assert ClientKey.load(owner.vault / "master.key") == new
    assert owner.keys("retire", "--confirm", "aachen")[0] == 0
    assert list(kept(owner)) == ["master.key"]


def test_retire(owner: Owner) -> None:
    assert owner.keys("rotate")[0] == 0
    assert owner.encrypt()[0] == 0
    assert owner.keys("rotate")[0] == 0  # two retired keys
    key = (owner.vault / "master.key").read_bytes()
    for number in kills(owner, "retire", "--confirm", "aachen"):
        status, out, error = owner.keys("backup", "--to", owner.place / f"b{number}",
                                        "--passphrase-file", owner.passphrase)  # fmt: skip
        assert status == 0, error
        assert owner.keys("show")[0] == 0
        status, out, error = owner.keys("retire", "--confirm", "aachen")
        if status:
            assert "no retired key" in error
        else:
            assert "destroyed key" in out
        assert kept(owner) == {"master.key": key}
        assert [path.name for path in owner.vault.glob("retired/*")] == []


def test_retire_all(owner: Owner) -> None:
    assert owner.keys("rotate")[0] == 0
    before = set(secrets(owner))
    assert len(before) == 2
    for _ in kills(owner, "retire", "--all", "--confirm", "aachen"):
        status, _, error = owner.keys("retire", "--all", "--confirm", "aachen")
        assert status == 0 or "no retired key" in error, error
        assert kept(owner) == {}
        assert owner.keys("new")[0] == 0
        assert not before & set(secrets(owner))


def test_new_and_restore_wait_for_a_retirement_that_was_cut_short(owner: Owner) -> None:
    sealed, options = owner.place / "sealed", ("--passphrase-file", owner.passphrase)
    assert owner.keys("backup", "--to", sealed, *options)[0] == 0
    (owner.vault / "master.key").rename(owner.vault / "destroyed.key")
    for outcome in (
        owner.keys("new"),
        owner.keys("backup", "--to", owner.place / "more", *options),
        owner.keys("restore", "--from", sealed, *options),
        owner.keys("rotate"),
    ):
        fails(outcome, "the destruction of its keys was interrupted; finish it with `retire --all`")
    assert owner.keys("retire", "--all", "--confirm", "aachen")[0] == 0
    assert owner.keys("restore", "--from", sealed, *options)[0] == 0
    is_good(owner)


def zeroed(folder: Path) -> None:
    """What a version before this one left when it was killed."""
    (folder / "master.key").write_bytes(bytes(len((folder / "master.key").read_bytes())))


def unlinked(folder: Path) -> None:
    (folder / "master.key").unlink()


def damaged(folder: Path) -> None:
    (folder / "master.key").write_bytes(b"x")


def opened(folder: Path) -> None:
    (folder / "master.key").chmod(0o644)


def without_records(folder: Path) -> None:
    unlinked(folder)
    shutil.rmtree(folder / "manifests")


@pytest.mark.parametrize("accident", [zeroed, unlinked, damaged, opened, without_records])
def test_keys_that_are_damaged_or_half_destroyed_go_with_the_others(
    accident: Callable[[Path], None], owner: Owner
) -> None:
    for _ in range(2):
        assert owner.keys("rotate")[0] == 0
    first, _ = sorted((owner.vault / "retired").iterdir())
    accident(first)
    status, out, error = owner.keys("retire", "--confirm", "aachen")
    assert status == 0, error
    assert out.count("destroyed key") == 2 and first.name in out
    assert list(kept(owner)) == ["master.key"]
    accident(owner.vault)
    fails(owner.keys("retire"), "no retired key")
    status = owner.keys("retire", "--all", "--confirm", "aachen")[0]
    assert status == (2 if accident in (unlinked, without_records) else 0)
    assert kept(owner) == {}


def test_backup(owner: Owner) -> None:
    assert owner.keys("rotate")[0] == 0
    target, options = owner.place / "to", ("--passphrase-file", owner.passphrase)
    target.mkdir()
    before = files_in(owner.vault)
    for number in kills(owner, "backup", "--to", target / "sealed", *options):
        (owner.vault / ".lock").unlink(missing_ok=True)
        assert files_in(owner.vault) == before
        for path in target.iterdir():
            is_whole = path.name == "sealed"
            assert is_whole or path.name.startswith(".")
            place, owner.vaults = owner.vaults, owner.place / f"from {number} {path.name}"
            status = owner.keys("restore", "--from", path, *options)[0]
            assert status == 0 or not is_whole
            owner.vaults = place
            path.unlink()
        backed_up(owner, f"again {number}")


def test_restore(owner: Owner) -> None:
    assert owner.keys("rotate")[0] == 0
    sealed, options = owner.place / "sealed", ("--passphrase-file", owner.passphrase)
    assert owner.keys("backup", "--to", sealed, *options)[0] == 0
    before = files_in(owner.vault)
    shutil.rmtree(owner.vaults)
    owner.vaults.mkdir(mode=0o700)
    for _ in kills(owner, "restore", "--from", sealed, *options):
        status, _, error = owner.keys("restore", "--from", sealed, *options)
        assert status == 0 or "holds a master key" in error, error
        assert owner.keys("show")[0] == 0
        found = {name: text for name, text in files_in(owner.vault).items() if name != ".lock"}
        assert {k: v for k, v in found.items() if not Path(k).name.startswith(".")} == before
        assert owner.keys("rotate")[0] == 0  # takes the lock
        assert not list(owner.vault.rglob(".*"))


def test_new(owner: Owner) -> None:
    shutil.rmtree(owner.vaults)
    owner.vaults.mkdir(mode=0o700)
    for _ in kills(owner, "new"):
        status, _, error = owner.keys("new")
        assert status == 0 or "exists and is never overwritten" in error, error
        ClientKey.load(owner.vault / "master.key")
        assert list(kept(owner)) in (["master.key"], [".lock", "master.key"])


VERBS = {
    "new": ["new"],
    "rotate": ["rotate"],
    "retire": ["retire", "--confirm", "aachen"],
    "retire all": ["retire", "--all", "--confirm", "aachen"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_is_full_at_any_moment_is_one_line_and_the_verb_goes_on(
    verb: str, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    if verb == "new":
        shutil.rmtree(owner.vault)
    elif verb == "retire":
        assert owner.keys("rotate")[0] == 0
    before = owner.place / "before"
    shutil.copytree(owner.vaults, before)
    for number in range(1, MOST_EVENTS):
        shutil.rmtree(owner.vaults)
        shutil.copytree(before, owner.vaults)
        disk = FullDisk(number)
        with monkeypatch.context() as patch:
            for name in ("fsync", "link", "mkdir", "rename", "replace", "write"):
                patch.setattr(os, name, disk.full(getattr(os, name)))
            outcome = owner.keys(*VERBS[verb])
        if not disk.was_met:
            assert outcome[0] == 0 and number > 4
            return
        fails(outcome, "no space left on the disk", status=1) if outcome[0] == 1 else fails(
            outcome, "No space left on device; free some space"
        )
        if (owner.vault / "master.key").exists():
            backed_up(owner, f"backup {number}")
        status, _, error = owner.keys(*VERBS[verb])
        assert status == 0 or "no retired key" in error or "never overwritten" in error, error
        assert not list(owner.vault.rglob(".*"))
    pytest.fail("never done")
