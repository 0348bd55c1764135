"""Files of before a participant was called a client: what an owner may have nowhere else is read as
before, what can be made again is refused in one line that says what to do."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict
from small_owner import Owner, fails

from clients.node.home import Settings
from clients.policy.node_policy import load_policy
from clients.vault.assignment import Assignment, shard_digest
from clients.vault.keys.backup import open_backup
from clients.vault.keys.passphrases import Passphrase
from clients.vault.node_folders.directory import parse_owner
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.loading import builtin_arms, validate
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.manifest import parse_manifest
from fl_ppseg.federation.message_content import Description
from fl_ppseg.federation.messages import MessageError, pack_description, unpack_description
from fl_ppseg.federation.results import parse_line
from fl_ppseg.initialise import main as initialise
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError

BACKUP = (
    "ZmxfcHBzZWcvdjEvdmF1bHQtYmFja3VwCvlYyQ6qylMkTihCHTD/eb7+93X/YS0BXi3PTbZn5tauvXHEqbTOxUnHQwwq4bwG"
    "nlUXTyrJXYdel/33ap5No7ML/A1I2drZfo+pWzxr+wJSefmKh9fG459lDRNzP3vh+BPWT6l2OJzzDMi290E/f+FkcN+S5V4e"
    "CBzxx4bLZKULYEpP4KpjdRzKutEBjHhZ7JMmJF2veZdQmdutX74B/8/Kc3xxw7ONbzV5jKjoY0RCvmPwIiB8uRcdoWoVjMao"
    "yc7DjH6fvVNNPBgsaqd5bkd+Khbw8KBRpkUYOqY5D7U3m7gmv/ZFWgY/"
)
"""Of the vault of `aachen` with the master key 00 01 ... 1f, under the passphrase `x`."""
MARKER = b'{"schema": 1, "city": "aachen"}'
DIGESTS = {
    "plain": "389f4048ced85dbee4e6901a38564310",
    "per-image": "988adb66d680215045af20b7e077e795",
    "per-client-private": "ae4a5aa1d37574db840a4f06cc9eba68",
}
RENAMED = "city is now called client: rename this key"


def manifest(**changes: object) -> bytes:
    """Of a shard that an earlier version encrypted: one plain image, none held out."""
    files = [
        f"{kind}/{part}/aachen.npy"
        for part in ("train", "val")
        for kind in ("leftImg8bit", "gtFine")
    ]
    values: dict[str, object] = {
        "schema": 3, "city": "aachen", "settings": "0" * 32, "block_size": 8, "num_images": 1,
        "num_views": 1, "heldout_sizes": [], "record": None, "ciphers": {}, "frames": False,
        "sha256": dict.fromkeys(files, "ab" * 32),
    }  # fmt: skip
    return json.dumps(values | changes).encode()


def test_a_backup_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_bytes(base64.b64decode(BACKUP))
    files = open_backup(path, "aachen", Passphrase("x", ())).files
    assert files["floor.yaml"] == "min_heldout: 1\n"
    found = ClientKey.parse(files["master.key"].encode(), "x")
    assert found.fingerprint == ClientKey(bytes(range(32))).fingerprint
    with pytest.raises(InputError, match="is the backup of aachen, not of ulm"):
        open_backup(path, "ulm", Passphrase("x", ()))


def test_markers_and_manifests_are_read() -> None:
    assert parse_owner(MARKER, "owner.json").client == "aachen"
    found = parse_manifest(manifest(), "manifest.json", finished=True)
    assert (found.schema, found.client) == (3, "aachen")
    for changes in ({"schema": 2}, {"schema": 5}):
        with pytest.raises(InputError, match=r"expected 4.*; encrypt the images again"):
            parse_manifest(manifest(**changes), "manifest.json", finished=True)
    with pytest.raises(InputError, match="city is not a field"):
        parse_manifest(manifest(client="aachen"), "manifest.json", finished=True)


def test_shards_keep_the_names_of_their_folders() -> None:
    """A private embedding that was trained lies in a folder named by its shard's name."""
    classes = load_class_table("cityscapes")
    stem = "aachen_000000_000019"
    scene = Scene("aachen", "train", stem, Path("i"), Path("l"), classes, "0" * 64)
    job = Assignment(Path("v"), "aachen", (scene,), (scene,), DataConfig(), 8, 0, {})
    arms = builtin_arms()
    assert {name: shard_digest(job, arms[name], None) for name in DIGESTS} == DIGESTS


def rewritten(path: Path, schema: int) -> None:
    """A file as earlier versions wrote it."""
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    values["city"] = values.pop("client")
    path.write_text(json.dumps(values | {"schema": schema}), encoding="utf-8")


def test_a_node_folder_is_verified_and_decrypted(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = Owner(scenes, tmp_path, capsys).ready()
    rewritten(owner.node / "owner.json", 1)
    for path in owner.node.glob("shards/*/manifest.json"):
        rewritten(path, 3)
    policy = owner.node / "policy.yaml"
    text = policy.read_text("utf-8")
    policy.write_text(text.replace("client: aachen", "city: aachen"), encoding="utf-8")
    fails(owner.decrypt("per-image-derived"), f"policy.yaml: NodePolicy: {RENAMED}")
    policy.write_text(text, encoding="utf-8")
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0
    status, _, error = owner.decrypt("per-image-derived")
    assert status == 0, error
    assert list((owner.place / "per-image-derived").rglob("*.png"))
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0


def test_policies_and_settings_of_nodes_say_which_key_to_rename(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("city: aachen\nrole: train\narms: {}\n", encoding="utf-8")
    policy.chmod(0o600)
    with pytest.raises(InputError, match=RENAMED):
        load_policy(policy)
    with pytest.raises(InputError, match=RENAMED):
        validate(Settings, {"city": "aachen", "app_home": "/srv/app"}, "node.yaml")


def test_results_are_refused_by_name() -> None:
    line = b'{"arm": "plain", "seed": 0, "round": 1, "city": "ulm", "role": "val"}'
    with pytest.raises(ValueError, match="of an earlier version: city is now called client"):
        parse_line(line, "results.jsonl, line 1")


def test_messages_are_refused_with_their_version() -> None:
    def records(settings: dict[str, Any]) -> RecordDict:
        content = pack_description(Description("run", "ulm", "val"))
        content["settings"] = ConfigRecord(settings)
        return content

    named = {"run_id": "run", "city": "ulm", "role": "val"}
    said = "expected a message of version 2, got {}; install the same version of fl_ppseg"
    for settings, got in (
        (named, "1"),
        (named | {"schema": 3}, "3"),
        (named | {"schema": "2"}, "'2'"),
    ):
        with pytest.raises(MessageError, match=said.format(got)):
            unpack_description(records(settings))


def test_options_say_what_they_are_called_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for old, new in (("--cities", "--train-clients"), ("--val-cities", "--val-clients")):
        for words in ([old, "aachen"], [f"{old}=aachen"]):
            assert run(initialise, ["--out", str(tmp_path / "run"), *words]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"error: {old} is now {new} (") and error.count("\n") == 1


def test_owners_may_go_on_saying_city(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clients.vault.command import main

    assert run(main, ["new", "--vault", str(tmp_path), "--city", "aachen"]) == 0
    assert (tmp_path / "aachen" / "master.key").is_file()
