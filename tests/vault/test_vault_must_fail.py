"""Everything that the vault reads is refused in one line where it is not what it should be."""

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from must_fail import Vector, of
from pydantic import TypeAdapter
from small_owner import PASSPHRASE, Owner, fails

from clients.node.command import main as node
from clients.vault.keys import backup
from clients.vault.keys.backup import HEADER, open_backup, restore, seal
from clients.vault.keys.keyring import Vault
from clients.vault.keys.passphrases import Passphrase, read_passphrase, require_strength
from clients.vault.keys.record import Record, parse_record, read_record
from fl_ppseg.config.client_names import deployed_name, folder_name
from fl_ppseg.config.names import ClientName
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.deployment.clients import Clients
from fl_ppseg.federation.message_fields import ClientWord
from fl_ppseg.initialise import main as initialise
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError
from strategies.coordinator.command import main as coordinator

SECRET = bytes(range(100, 132))


def refusal(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message and message.isprintable() and len(message) < 1000
    assert SECRET.hex()[:20] not in message
    return message


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "SCRYPT", {"n": 2**4, "r": 8, "p": 1})


def file_of(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


# Key files.


@of("key_file")
def test_key_file(vector: Vector, tmp_path: Path) -> None:
    path = file_of(tmp_path, vector.content)
    with pytest.raises(InputError) as caught:
        ClientKey.load(path)
    assert vector.error in refusal(caught.value)


def key_text(tmp_path: Path) -> str:
    path = tmp_path / "key"
    ClientKey.from_bytes(SECRET).save(path)
    return path.read_text("ascii")


def test_key_file_that_is_one(tmp_path: Path) -> None:
    path = file_of(tmp_path, key_text(tmp_path).encode())
    assert ClientKey.load(path) == ClientKey.from_bytes(SECRET)


# Records.

RECORD = Record(
    "shuffle",
    "per-block",
    ["train/aachen/a", "train/mu\u0308nchen, alt/b 1"],
    [],
    {"train/train/aachen/a/0": "00" * 16, "train/train/mu\u0308nchen, alt/b 1/0": "01" * 16},
    {"train/train/aachen/a/0": "ab" * 32},
)


@of("record")
def test_record(vector: Vector) -> None:
    with pytest.raises((ValueError, InputError)) as caught:
        parse_record(vector.content)
    message = refusal(caught.value)
    assert vector.error in message
    assert "0102" not in message and "00" * 8 not in message  # no salt


def test_records_that_are_some() -> None:
    assert parse_record(RECORD.to_json().encode()) == RECORD
    client = {"cipher": "negative-positive", "block_scope": "common", "train": [],
              "heldout": ["val/bonn/\udcff"], "salts": {"client": "00" * 16},
              "samples": {"heldout/val/bonn/\udcff/0": "00" * 32}}  # fmt: skip
    assert parse_record(json.dumps(client).encode()).label_ids == []  # of before they were kept


def test_a_record_of_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{RECORD.name}.json"
    path.write_text(RECORD.to_json())
    assert read_record(path) == RECORD
    with pytest.raises(InputError, match="its hash differs"):
        read_record(path.rename(tmp_path / f"{'a' * 32}.json"))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/docker/daemon", "", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "\n"]
)
def test_a_name_that_is_no_records_reaches_no_file(name: str, tmp_path: Path) -> None:
    """Names of records come from shards, which others write."""
    vault = Vault(tmp_path / "vault")
    for place in (vault.folder / "x.json", tmp_path / "x.json"):
        place.write_text("{}")
    for call in (vault.find, vault.drop_record):
        with pytest.raises(InputError, match="is not the name of a record"):
            call(name)
    assert not vault.has_record(name)
    assert (tmp_path / "x.json").exists()


# Backups: what is sealed, and what is in it.


@of("backup")
def test_backup(vector: Vector, tmp_path: Path, quick: None) -> None:
    is_sealed = vector.name.startswith("sealed: ")  # the others are what is in it
    content = vector.content if is_sealed else seal(vector.content, PASSPHRASE)
    path = file_of(tmp_path, content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        open_backup(path, "aachen", Passphrase(PASSPHRASE, ()))
    assert vector.error in refusal(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_backup_that_is_one(tmp_path: Path, quick: None) -> None:
    """All that a vault has, a retired key that is damaged and other areas' files included."""
    text, retired = key_text(tmp_path), f"retired/{'0' * 16}"
    record = f"manifests/{RECORD.name}.json"
    files = {
        "master.key": text, record: RECORD.to_json(), f"{retired}/master.key": "damaged",
        f"{retired}/{record}": "damaged", "handed_over.json": "{}", "floor.yaml": "",
    }  # fmt: skip
    path = file_of(
        tmp_path, seal(json.dumps({"schema": 2, "client": "aachen", "files": files}).encode(), "x")
    )
    vault = Vault(tmp_path / "v")
    restore(vault, open_backup(path, "aachen", Passphrase("x", ())))
    found = {
        p.relative_to(vault.folder).as_posix(): p.read_text() for p in vault.folder.rglob("*.*")
    }
    assert found == files
    assert {p.stat().st_mode & 0o777 for p in vault.folder.rglob("*.*")} == {0o600}


def test_a_backup_of_more_than_a_gigabyte_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr(backup, "MAX_BACKUP_BYTES", 1000)
    path = file_of(tmp_path, HEADER + bytes(2000))
    with pytest.raises(InputError, match="expected at most 1000 bytes"):
        open_backup(path, "aachen", Passphrase("x", ()))


# Passphrases.


@of("passphrase_file")
def test_passphrase_file(vector: Vector, tmp_path: Path) -> None:
    path = file_of(tmp_path, vector.content)
    with pytest.raises(InputError) as caught:
        require_strength(read_passphrase(path, seals=True).text)
    assert vector.error in refusal(caught.value)
    said = vector.content.decode("utf-8", "replace").strip()[:9]
    assert len(said) < 4 or said not in str(caught.value)


# Names of clients.


@of("client_name")
def test_client_name(vector: Vector, owner: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    """One rule, at every door: the vault, the node, the coordinator, the run folder."""
    name = vector.content.decode("utf-8", "surrogatepass")
    with pytest.raises(InputError) as caught:
        deployed_name(name)
    assert vector.error in refusal(caught.value)
    if "\0" in name:
        return  # no argument of a command holds it
    option = f"--client={name}"
    place = owner.place / "place"
    fails(owner.call("new", "--vault", owner.vaults, option), vector.error)
    fails(
        owner.call("encrypt", "--vault", owner.vaults, option, *owner.encrypt_options()),
        vector.error,
    )
    if "," not in name and name == name.strip():  # a list of names, blanks around them
        init = ["--out", str(place), "--val-clients", "bonn", f"--train-clients={name}"]
        assert run(initialise, init) == 2
        assert vector.error in capsys.readouterr().err
    assert run(node, ["init", "--home", str(place), option]) == 2
    assert vector.error in capsys.readouterr().err
    enrol = ["enrol", "--home", str(place), "--public", str(owner.passphrase), "--", name]
    assert run(coordinator, enrol) == 2
    assert not owner.vaults.exists() and not owner.node.exists() and not place.exists()


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(scenes, tmp_path, capsys)


@pytest.mark.parametrize("name", ["aachen", "A", "9", "st.gallen", "new_york-2", "a" * 63])
def test_client_names_that_are_some(name: str) -> None:
    assert deployed_name(name) == folder_name(name) == name


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True))
def test_what_can_be_deployed_goes_through_trees_vaults_shards_and_messages(name: str) -> None:
    assert deployed_name(name) == folder_name(name) == ClientWord().check("client", name)
    assert TypeAdapter(ClientName).validate_python(name) == name
    assert Clients(train=(name,), val=(f"{name[:40]}-val",)).train == (name,)


@given(st.text(max_size=120))
@example(" ")
@example("x" * 101)
@example("\u5317" * 84)
def test_what_a_folder_can_be_called_is_one_rule(name: str) -> None:
    """Found out before the work, not by the first message or shard of that name."""
    doors = (
        folder_name,
        TypeAdapter(ClientName).validate_python,
        partial(ClientWord().check, "client"),
    )
    taken = []
    for door in doors:
        try:
            taken.append(door(name) == name)
        except (InputError, ValueError):
            taken.append(False)
    assert len(set(taken)) == 1


def test_a_name_that_can_be_deployed_is_suggested() -> None:
    with pytest.raises(
        InputError, match=r"choose another \(for example munchen\), and name the client"
    ):
        deployed_name("mu\u0308nchen")
    with pytest.raises(InputError, match=r"for example new-york"):
        deployed_name("new york")
    with pytest.raises(InputError, match=r"choose another, and name"):
        deployed_name("\u5317\u4eac")


@pytest.mark.parametrize(
    "name", ["münchen", "mu\u0308nchen", "new york", "\u5317\u4eac", "x" * 100]
)
def test_a_simulation_takes_any_visible_folder(name: str) -> None:
    assert folder_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", ".shared", "a/b", "a\n", "a\0", "\ud800", "x" * 101, "\u5317" * 84]
)
def test_a_folder_that_leads_elsewhere_is_no_client(name: str) -> None:
    with pytest.raises(InputError, match="is not the name of a folder") as caught:
        folder_name(name)
    assert str(caught.value).isprintable()


def test_a_vault_of_earlier_with_another_name_stays_of_use(owner: Owner, quick: None) -> None:
    """Its owner can still back it up, rotate and retire it."""
    Vault(owner.vaults / "münchen").ensure_key()
    options = ("--passphrase-file", owner.passphrase)
    for verb, *more in (
        ["show"],
        ["backup", "--to", owner.place / "b", *options],
        ["rotate"],
        ["retire", "--all", "--confirm", "münchen"],
        ["restore", "--from", owner.place / "b", *options],
    ):
        status, _, error = owner.keys(verb, *more, client="münchen")
        assert status == 0, error
