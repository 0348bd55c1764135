"""Backups: all keys and salts in one file, for whoever has the passphrase."""

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from small_owner import PASSPHRASE, Owner, fails, files_in

from clients.vault.keys import backup
from clients.vault.keys.backup import seal, unseal


@pytest.fixture
def owner(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Owner:
    monkeypatch.setattr(backup, "SCRYPT", {"n": 2**8, "r": 8, "p": 1})  # quick
    return Owner(scenes, tmp_path, capsys)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_backup_and_restore_bring_every_key_and_salt_back(owner: Owner) -> None:
    owner.ready()
    assert owner.keys("rotate")[0] == 0
    assert owner.encrypt()[0] == 0
    before, sealed = files_in(owner.vault), owner.place / "backup"
    assert len(before) == 2 + 2 * 2 + 2  # keys, each with records of two arms; floor, handed over
    options = ("--passphrase-file", owner.passphrase)
    status, out, _ = owner.keys("backup", "--to", sealed, *options)
    assert status == 0 and "8 files" in out
    assert mode(sealed) == 0o600
    assert not any(content in sealed.read_bytes() for content in before.values())

    owner.vaults = owner.place / "another disk"
    status, out, _ = owner.keys("restore", "--from", sealed, *options)
    assert status == 0 and "8 files restored" in out
    restored = owner.vaults / "aachen"
    assert files_in(restored) == before
    assert {mode(path) for path in restored.rglob("*") if path.is_file()} == {0o600}
    assert {mode(path) for path in (restored, *restored.rglob("*")) if path.is_dir()} == {0o700}
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0


def test_neither_backup_nor_restore_overwrites(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    sealed, options = owner.place / "backup", ("--passphrase-file", owner.passphrase)
    assert owner.keys("backup", "--to", sealed, *options)[0] == 0
    before = files_in(owner.place)
    fails(owner.keys("backup", "--to", sealed, *options), "exists and is never overwritten")
    fails(owner.keys("restore", "--from", sealed, *options), "holds a master key")
    assert files_in(owner.place) == before


def test_a_restore_that_was_cut_short_can_be_repeated(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master key comes last: without it the vault is none yet."""
    owner.ready()
    before, sealed = files_in(owner.vault), owner.place / "backup"
    options = ("--passphrase-file", owner.passphrase)
    assert owner.keys("backup", "--to", sealed, *options)[0] == 0
    owner.vaults = owner.place / "another disk"
    put = backup._put

    def power_cut(path: Path, content: bytes) -> None:
        if path.name == "master.key" and path.parent.name == "aachen":
            raise KeyboardInterrupt
        put(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_put", power_cut)
        assert owner.keys("restore", "--from", sealed, *options)[0] == 1
    assert len(files_in(owner.vaults)) == len(before) - 1
    assert owner.keys("restore", "--from", sealed, *options)[0] == 0
    assert files_in(owner.vaults / "aachen") == before


def test_wrong_passphrases_and_damaged_backups_are_one_line(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    sealed, other = owner.place / "backup", owner.place / "other"
    options = ("--passphrase-file", owner.passphrase)
    assert owner.keys("backup", "--to", sealed, *options)[0] == 0
    owner.vaults = owner.place / "another disk"

    other.write_text("another passphrase\n")
    fails(owner.keys("restore", "--from", sealed, "--passphrase-file", other), "open to others")
    other.chmod(0o600)
    fails(owner.keys("restore", "--from", sealed, "--passphrase-file", other), "wrong passphrase")
    fails(
        owner.keys("restore", "--from", sealed, *options, client="bochum"), "is the backup of aac"
    )
    fails(owner.keys("restore", "--from", owner.place / "none", *options), "cannot be read")
    fails(owner.keys("restore", "--from", owner.config, *options), "not a backup of a vault")
    content = sealed.read_bytes()
    for place in (len(backup.HEADER), len(content) // 2, len(content) - 1):
        sealed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        fails(owner.keys("restore", "--from", sealed, *options), "wrong passphrase, or a damaged")
    sealed.write_bytes(content[:40])
    fails(owner.keys("restore", "--from", sealed, *options), "not a backup of a vault")
    assert not owner.vaults.exists()


def test_a_passphrase_is_asked_for_twice_and_never_an_argument(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owner.keys("new")[0] == 0
    answers = iter([PASSPHRASE, PASSPHRASE + "x", PASSPHRASE, PASSPHRASE, PASSPHRASE])
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    fails(owner.keys("backup", "--to", owner.place / "b"), "the two passphrases differ")
    assert owner.keys("backup", "--to", owner.place / "b")[0] == 0
    owner.vaults = owner.place / "another disk"
    assert owner.keys("restore", "--from", owner.place / "b")[0] == 0
    fails(owner.keys("backup", "--to", owner.place / "c", "--passphrase", "x"), "unrecognized")


def test_sealing_is_the_published_construction() -> None:
    """Opened here with hashlib's scrypt, another implementation than the one that sealed."""
    sealed = seal(b"content", PASSPHRASE)
    header, rest = sealed[: len(backup.HEADER)], sealed[len(backup.HEADER) :]
    assert header == b"fl_ppseg/v1/vault-backup\n"
    salt, nonce, box = rest[:16], rest[16:28], rest[28:]
    key = hashlib.scrypt(PASSPHRASE.encode(), salt=salt, n=2**17, r=8, p=1, dklen=32, maxmem=2**28)
    assert ChaCha20Poly1305(key).decrypt(nonce, box, header + salt) == b"content"
    assert unseal(sealed, PASSPHRASE) == b"content"
    assert seal(b"content", PASSPHRASE)[: len(header) + 28] != sealed[: len(header) + 28]
