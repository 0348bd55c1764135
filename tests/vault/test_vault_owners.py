"""Whose a vault and its keys are: another user's are refused, and nobody else's mode helps.

As games who may write where the vault lies, and root or the owner who trusts the name.
"""

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest
from small_owner import Owner, fails, files_in

from clients.vault.commands import keys
from clients.vault.keys import backup
from clients.vault.keys.keyring import Vault
from clients.vault.keys.record import Record
from fl_ppseg.crypto.keys import ClientKey

GAMES = 65534
RECORD = Record(
    "shuffle", "common", ["train/aachen/a"], [], {"client": "00" * 16},
    {"train/train/aachen/a/0": "00" * 32},
)  # fmt: skip
NEED_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.fixture
def owner(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Owner:
    monkeypatch.setattr(backup, "SCRYPT", {"n": 2**4, "r": 8, "p": 1})  # quick
    return Owner(scenes, tmp_path, capsys)


def planted(owner: Owner) -> ClientKey:
    """A vault of games in the place of the owner's, with a key that games know."""
    assert owner.keys("new")[0] == 0
    shutil.rmtree(owner.vault)
    key = Vault(owner.vault).ensure_key()
    for path in (owner.vault, *owner.vault.rglob("*")):
        os.chown(path, GAMES, GAMES)
    return key


@NEED_ROOT
@pytest.mark.parametrize("verb", ["new", "encrypt", "rotate", "backup", "retire", "restore"])
def test_a_vault_of_another_user_is_refused_in_a_line(verb: str, owner: Owner) -> None:
    planted(owner)
    sealed = owner.place / "sealed"
    options = {
        "encrypt": owner.encrypt_options(),
        "backup": ["--to", sealed, "--passphrase-file", owner.passphrase],
        "restore": ["--from", sealed, "--passphrase-file", owner.passphrase],
        "retire": ["--all", "--confirm", "aachen"],
    }
    if verb == "restore":
        other = Owner(owner.root, owner.place, owner._capsys)
        other.vaults = owner.place / "mine"
        assert other.keys("new")[0] == 0
        assert other.keys("backup", *options["backup"])[0] == 0
        (owner.vault / "master.key").unlink()
    before = files_in(owner.vault)
    fails(owner.keys(verb, *options.get(verb, [])), f"{owner.vault}: belongs to nobody")
    assert files_in(owner.vault) == before and not owner.node.exists()


@NEED_ROOT
def test_a_key_of_another_user_in_ones_own_vault_is_refused(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    os.chown(owner.vault / "master.key", GAMES, GAMES)
    for verb in ("show", "rotate"):
        fails(owner.keys(verb), "belongs to another user (uid 65534")
    fails(owner.encrypt("--arms", "per-client-private"), "belongs to another user (uid 65534")


@NEED_ROOT
def test_a_link_of_another_user_leads_to_no_vault(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    owner.vaults.chmod(0o1777)  # as /tmp: others may add names
    link = owner.vaults / "bochum"
    link.symlink_to(owner.vault)
    os.chown(link, GAMES, GAMES, follow_symlinks=False)
    fails(owner.keys("show", client="bochum"), "is a link of nobody")


def test_a_folder_of_vaults_that_others_may_write_is_refused(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    owner.vaults.chmod(0o777)
    fails(owner.keys("rotate"), f"{owner.vaults}: anybody may write there (mode 0777)")
    owner.vaults.chmod(0o755)
    assert owner.keys("rotate")[0] == 0


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_whatever_the_umask_all_is_its_owners_alone(umask: int, owner: Owner) -> None:
    owner.vaults = owner.place / "deep" / "er" / "vaults"
    owner.vault = owner.vaults / "aachen"
    sealed = owner.place / "there" / "sealed"
    sealed.parent.mkdir()
    options = ("--passphrase-file", owner.passphrase)
    before = os.umask(umask)
    try:
        assert owner.keys("new")[0] == 0
        assert owner.keys("rotate")[0] == 0
        Vault(owner.vault).save_record(RECORD)
        assert owner.keys("rotate")[0] == 0
        assert owner.keys("backup", "--to", sealed, *options)[0] == 0
        owner.vaults = owner.place / "another" / "vaults"
        assert owner.keys("restore", "--from", sealed, *options)[0] == 0
    finally:
        assert os.umask(before) == umask  # a command leaves it as it was
    for root in (owner.place / "deep", owner.place / "another"):
        for path in (root, *root.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o600 if path.is_file() else 0o700), path
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600


def test_a_key_that_new_printed_is_never_overwritten_by_a_restore(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`new` in the tenths of a second in which the backup's passphrase is turned into a key."""
    sealed, options = owner.place / "sealed", ("--passphrase-file", owner.passphrase)
    assert owner.keys("new")[0] == 0
    assert owner.keys("backup", "--to", sealed, *options)[0] == 0
    shutil.rmtree(owner.vault)
    opened, fresh = keys.open_backup, list[ClientKey]()

    def slowly(*arguments: object) -> backup.Backup:
        found = opened(*arguments)  # type: ignore[arg-type]
        fresh.append(Vault(owner.vault).ensure_key())
        return found

    monkeypatch.setattr(keys, "open_backup", slowly)
    fails(owner.keys("restore", "--from", sealed, *options), "keys are never overwritten")
    assert ClientKey.load(owner.vault / "master.key") == fresh[0]


def test_restore_waits_for_the_vaults_lock(owner: Owner) -> None:
    sealed, options = owner.place / "sealed", ("--passphrase-file", owner.passphrase)
    assert owner.keys("new")[0] == 0
    assert owner.keys("backup", "--to", sealed, *options)[0] == 0
    shutil.rmtree(owner.vault)
    vault = Vault(owner.vault)
    outcome = list[tuple[int, str, str]]()
    work = threading.Thread(
        target=lambda: outcome.append(owner.keys("restore", "--from", sealed, *options))
    )
    with vault.lock():
        work.start()
        work.join(1.0)
        assert work.is_alive() and not vault.has_key
        key = vault.ensure_key()
    work.join()
    assert outcome[0][0] == 2 and ClientKey.load(vault.key_path) == key


def test_a_damaged_retired_key_is_backed_up_as_it_is_and_said(owner: Owner) -> None:
    options = ("--passphrase-file", owner.passphrase)
    assert owner.keys("new")[0] == 0
    assert owner.keys("rotate")[0] == 0
    (retired,) = (owner.vault / "retired").iterdir()
    (retired / "master.key").write_text("damaged")
    status, out, error = owner.keys("backup", "--to", owner.place / "b", *options)
    assert status == 0 and f"{len(files_in(owner.vault))} files" in out
    assert error.startswith(f"WARNING: backed up unchanged: key file {retired}/master.key: ")
    assert "expected 105 bytes, got 7" in error
    (owner.vault / "master.key").write_text("damaged")
    fails(owner.keys("backup", "--to", owner.place / "c", *options), "bytes, got 7")
    assert not (owner.place / "c").exists()
