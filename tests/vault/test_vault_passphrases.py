"""Passphrases: typed on any machine they are one, and files are read as they are."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_owner import Owner, fails

from clients.vault.keys import backup
from clients.vault.keys.backup import seal
from clients.vault.keys.keyring import Vault
from clients.vault.keys.passphrases import Passphrase, mapped, read_passphrase, require_strength
from fl_ppseg.system.errors import InputError

STRONG = "grün ist die Hoffnung 7"
DECOMPOSED = unicodedata.normalize("NFD", STRONG)


@pytest.fixture
def owner(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Owner:
    monkeypatch.setattr(backup, "SCRYPT", {"n": 2**4, "r": 8, "p": 1})  # quick
    return Owner(scenes, tmp_path, capsys)


def read(tmp_path: Path, content: bytes, *, seals: bool = True) -> Passphrase:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    path.chmod(0o600)
    return read_passphrase(path, seals=seals)


# RFC 8265, section 4.3, examples of passwords that are taken, and what they become.


@pytest.mark.parametrize(
    ("given_", "becomes"),
    [
        ("correct horse battery staple", "correct horse battery staple"),
        ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
        ("πßå", "πßå"),
        ("Jack of ♦s", "Jack of ♦s"),
        ("foo\u1680bar", "foo bar"),
        ("e\u0301", "\u00e9"),
        ("\uff21\u3000\u00a0", "\uff21  "),
    ],
)
def test_mapping_is_that_of_opaque_string(given_: str, becomes: str) -> None:
    assert mapped(given_) == becomes


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_mapping_twice_is_mapping_once_and_forms_are_one(text: str) -> None:
    assert mapped(mapped(text)) == mapped(text)
    assert len({mapped(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}) == 1


@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=126)))
def test_ascii_stays_as_it_is(text: str) -> None:
    """So backups of before open, and those of now in any implementation."""
    assert mapped(text) == text


def test_half_characters_are_refused() -> None:
    """What a terminal gives that is not set to UTF-8."""
    with pytest.raises(InputError, match="not UTF-8"):
        mapped("gr\udcfcn ist die Hoffnung")


# Files.


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"correct horse battery", "correct horse battery"),
        (b"correct horse battery\n", "correct horse battery"),
        (b"correct horse battery\r\n", "correct horse battery"),
        (b" correct horse battery \n", " correct horse battery "),
        (b"correct horse\x0bbattery\n", "correct horse\x0bbattery"),
        (b"correct horse\x0c\x1c\x1d\x1ebattery", "correct horse\x0c\x1c\x1d\x1ebattery"),
        ("correct horse\u2028battery\u0085".encode(), "correct horse\u2028battery\u0085"),
        ("u\u0308correct horse".encode(), "\u00fccorrect horse"),
    ],
)  # fmt: skip
def test_a_file_is_read_exactly(content: bytes, text: str, tmp_path: Path) -> None:
    assert read(tmp_path, content).text == text


def test_a_byte_order_mark_does_not_count_and_is_said(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    marked, target = owner.place / "marked", owner.place / "sealed"
    marked.write_bytes(b"\xef\xbb\xbf" + owner.passphrase.read_bytes())
    marked.chmod(0o600)
    status, _, error = owner.keys("backup", "--to", target, "--passphrase-file", marked)
    assert status == 0
    assert error == f"{marked}: the byte order mark (U+FEFF) at its start is ignored\n"
    owner.vaults = owner.place / "elsewhere"
    options = ("--from", target, "--passphrase-file", owner.passphrase)
    assert owner.keys("restore", *options)[0] == 0


def test_what_is_typed_on_another_machine_opens_it(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owner.keys("new")[0] == 0
    forms = [unicodedata.normalize(form, STRONG) for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    for number, (one, other) in enumerate((forms, forms[::-1])):
        target = owner.place / f"sealed {number}"
        monkeypatch.setattr("getpass.getpass", lambda _, one=one: one)
        assert owner.keys("backup", "--to", target)[0] == 0
        monkeypatch.setattr("getpass.getpass", lambda _, other=other: other)
        kept, owner.vaults = owner.vaults, owner.place / f"elsewhere {number}"
        status, _, error = owner.keys("restore", "--from", target)
        assert (status, error) == (0, "")
        owner.vaults = kept


@pytest.mark.parametrize(
    ("content", "earlier"),
    [
        (DECOMPOSED.encode() + b"\n", DECOMPOSED),
        (b"correct horse\x0bbattery\n", "correct horse"),
        ("correct horse\u2028battery".encode(), "correct horse"),
        (b"\xef\xbb\xbfcorrect horse\n", "\ufeffcorrect horse"),
        (b"correct horse staple\nthe next line does not count\n", "correct horse staple"),
        (b"aaaaaaaaaaaa\n", "aaaaaaaaaaaa"),
        ("a\u00a0blank of another kind".encode(), "a\u00a0blank of another kind"),
    ],
)  # fmt: skip
def test_backups_of_earlier_versions_open_with_the_file_that_sealed_them(
    content: bytes, earlier: str, owner: Owner
) -> None:
    """They took what `splitlines` calls the first line, and mapped nothing."""
    assert owner.keys("new")[0] == 0
    key = (owner.vault / "master.key").read_text()
    text = f'{{"city": "aachen", "files": {{"master.key": {key!r}}}}}'.replace("'", '"')
    sealed = owner.place / "sealed"
    sealed.write_bytes(seal(text.encode(), earlier))
    owner.passphrase.write_bytes(content)
    owner.vaults = owner.place / "elsewhere"
    status, out, error = owner.keys(
        "restore", "--from", sealed, "--passphrase-file", owner.passphrase
    )
    assert status == 0 and "1 files restored" in out
    is_other = read_passphrase(owner.passphrase, seals=False).text != earlier
    assert ("make a new backup" in error) == is_other


def test_files_of_others_and_open_ones_are_refused(owner: Owner) -> None:
    assert owner.keys("new")[0] == 0
    options = ("backup", "--to", owner.place / "b", "--passphrase-file", owner.passphrase)
    owner.passphrase.chmod(0o640)
    fails(owner.keys(*options), "open to others; run chmod 600 on it")
    owner.passphrase.unlink()
    fails(owner.keys(*options), f"{owner.passphrase}: cannot be read (No such file or directory)")
    owner.passphrase.mkdir(mode=0o700)
    fails(owner.keys(*options), "cannot be read (Is a directory)")
    assert not (owner.place / "b").exists()


# Strength.


@pytest.mark.parametrize(
    "text",
    [
        "correct horse battery staple",
        STRONG,
        "kR7#xQ2!mZ9w",
        "8f3a1c9e7b2d",
        "北京欢迎你们来看看我们的城市",
    ],
)
def test_passphrases_that_are_strong_enough(text: str) -> None:
    require_strength(text)


@given(st.binary(min_size=18, max_size=18))
def test_what_a_program_draws_is_strong_enough(drawn: bytes) -> None:
    """Hypothesis also draws zeros, which nobody's generator does."""
    text = drawn.hex()
    if len(set(text)) >= 8:
        require_strength(text)


def test_no_text_of_a_passphrase_is_shown(tmp_path: Path) -> None:
    found = read(tmp_path, STRONG.encode())
    assert "Hoffnung" not in f"{found} {found!r} {[found]}"
    assert "Hoffnung" not in repr(backup.Backup({"master.key": "Hoffnung"}, False))


def test_a_vault_is_not_needed_to_refuse_a_passphrase(owner: Owner) -> None:
    Vault(owner.vault).ensure_key()
    owner.passphrase.write_text("aaaaaaaaaaaa")
    outcome = owner.keys("backup", "--to", owner.place / "b", "--passphrase-file", owner.passphrase)
    fails(outcome, "1 different characters in a simple order")
    assert "aaaa" not in outcome[2]
