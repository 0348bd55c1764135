"""What was encrypted by an earlier version of a cipher is refused in words, wherever it is read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import small_vault
from descriptions import described

from clients.vault.assignment import Assignment
from clients.vault.keys.keyring import Vault
from clients.vault.keys.record import CLIENT, Record
from clients.vault.shards.recovery import decrypt_shard, wrong_samples
from fl_ppseg.audit.procedure import Effort, audit
from fl_ppseg.audit.vault_search import search_run
from fl_ppseg.config.cipher_versions import VERSIONS, as_recorded, check_versions, versions_of
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.data.shard import open_shard
from fl_ppseg.evaluate import main as evaluate
from fl_ppseg.experiment.resuming import check_resumed
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.checkpoints import protection_of
from fl_ppseg.federation.description import Description
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError

ARMS = builtin_arms()
OLD = "encrypted by version 1 of negative-positive, this program has version 2"
PRODUCT = "shuffle-spatial+negative-positive"
PROTECTIONS = {
    "per-image": ARMS["per-image-invariant"].model_copy(update={"key_lifetime": "derived"}),
    "per-client": ARMS["per-client"].model_copy(update={"cipher": "negative-positive"}),
    "shuffle": ARMS["per-client"],
}


def test_versions_are_those_of_the_factors() -> None:
    assert versions_of(PRODUCT) == {"shuffle-spatial": 1, "negative-positive": 2}
    assert versions_of(None) == {}
    assert as_recorded(PRODUCT, {}) == {"shuffle-spatial": 1, "negative-positive": 1}


def test_only_the_programs_own_versions_are_taken() -> None:
    check_versions(VERSIONS, "x")
    for found, said in (
        ({"shuffle": 1, "negative-positive": 1}, OLD),
        ({"negative-positive": 3}, "version 3 of negative-positive, this program has version 2"),
        ({"rot13": 1}, "version 1 of rot13, this program has no such cipher"),
    ):
        with pytest.raises(InputError, match=f"^x: encrypted by .*{said[-30:]}; encrypt again$"):
            check_versions(found, "x")


# Shards and records.


@pytest.fixture
def owner(scenes: Path, tmp_path: Path) -> tuple[Assignment, dict[str, Path]]:
    """What an owner encrypted with derived keys, by arm, and its folders."""
    job = small_vault.assignment(scenes, tmp_path / "vaults", protections=PROTECTIONS)
    return job, small_vault.shards(job)


def edited(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes one out."""
    values = json.loads(path.read_text("utf-8")) | changes
    kept = {name: value for name, value in values.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def with_old_record(job: Assignment, folder: Path) -> None:
    """Name, in place of a shard's record, the same as it was before versions were written down."""
    path = small_vault.record_of(job, folder)
    values = json.loads(path.read_text("utf-8"))
    del values["ciphers"]
    text = json.dumps(values)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    path.with_name(f"{name}.json").write_text(text, encoding="utf-8")
    edited(folder / "manifest.json", record=name)


@pytest.mark.parametrize("arm", PROTECTIONS)
def test_what_this_version_encrypted_decrypts(
    arm: str, owner: tuple[Assignment, dict[str, Path]]
) -> None:
    job, folders = owner
    vault, plain = Vault(job.vault), small_vault.plain_views(job)
    found = [view.image for view in decrypt_shard(vault, folders[arm]) if view.part == "train"]
    assert np.array_equal(np.array(found).reshape(plain.shape), plain)
    assert wrong_samples(vault, folders[arm]) == []
    manifest = open_shard([folders[arm]]).parts[0].manifest
    assert manifest.ciphers == versions_of(PROTECTIONS[arm].cipher)


@pytest.mark.parametrize("arm", ["per-image", "per-client"])
def test_a_shard_of_an_earlier_version_is_neither_trained_on_nor_decrypted(
    arm: str, owner: tuple[Assignment, dict[str, Path]]
) -> None:
    job, folders = owner
    path = folders[arm] / "manifest.json"
    versions = json.loads(path.read_text("utf-8"))["ciphers"]
    for changes, said in (
        ({"ciphers": versions | {"negative-positive": 1}}, OLD),
        ({"schema": 2, "ciphers": None}, "a shard of version 2, expected 4 .*negative-positive"),
    ):
        edited(path, **changes)
        for read in (lambda: open_shard([folders[arm]]), lambda: decrypt_all(job, folders[arm])):
            with pytest.raises(InputError, match=f"manifest.json: {said}.*; encrypt"):
                read()


@pytest.mark.parametrize("arm", ["per-image", "per-client"])
def test_a_record_of_an_earlier_version_gives_no_key(
    arm: str, owner: tuple[Assignment, dict[str, Path]]
) -> None:
    job, folders = owner
    with_old_record(job, folders[arm])
    with pytest.raises(InputError, match=f"{OLD}; encrypt again"):
        decrypt_all(job, folders[arm])


def test_a_record_of_an_unchanged_cipher_still_decrypts(
    owner: tuple[Assignment, dict[str, Path]],
) -> None:
    job, folders = owner
    with_old_record(job, folders["shuffle"])
    assert wrong_samples(Vault(job.vault), folders["shuffle"]) == []


def test_shards_of_an_earlier_version_are_encrypted_again(
    owner: tuple[Assignment, dict[str, Path]],
) -> None:
    job, folders = owner
    edited(folders["per-image"] / "manifest.json", schema=2, ciphers=None)
    assert small_vault.shards(job) == folders
    assert wrong_samples(Vault(job.vault), folders["per-image"]) == []


def test_the_audit_looks_for_no_key_under_another_version(tmp_path: Path) -> None:
    """It would look for another permutation, and call a run clean."""
    vault = Vault(tmp_path / "vaults" / "aachen")
    record = Record(
        "shuffle+negative-positive", "common", ["train/aachen/a"], [], {CLIENT: "00" * 16},
        {"train/train/aachen/a/0": "ab" * 32},
    )  # fmt: skip
    vault.save_record(record)
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=OLD):
        search_run(tmp_path / "run", tmp_path / "vaults", 8)


def test_no_key_comes_out_of_a_record_of_another_version() -> None:
    record = Record("negative-positive", "common", [], [], {CLIENT: "00" * 16}, {})
    with pytest.raises(InputError, match=f"images of a client: {OLD}"):
        record.subkey(ClientKey.generate(), "train", "", 0)


def decrypt_all(job: Assignment, folder: Path) -> list[object]:
    return list(decrypt_shard(Vault(job.vault), folder))


# Checkpoints.


def checkpoint(arm: str, ciphers: Mapping[str, int] | None) -> Checkpoint:
    return Checkpoint(
        1, {}, {}, described(arm, **({} if ciphers is None else {"ciphers": ciphers}))
    )


def without_ciphers(about: Description) -> Description:
    """As an earlier version wrote it."""
    values = about.to_values()
    del values["ciphers"]
    return Description.model_validate(values)


@pytest.mark.parametrize("arm", ARMS)
def test_weights_that_read_ciphertexts_of_an_earlier_version_are_refused(arm: str) -> None:
    protection = ARMS[arm]
    inverts = "negative-positive" in (protection.cipher or "").split("+")
    assert protection_of(checkpoint(arm, versions_of(protection.cipher))) == protection
    if inverts and protection.embedding != "invariant":
        with pytest.raises(InputError, match=f"arm {arm} was trained on: {OLD}; train again"):
            protection_of(checkpoint(arm, None))
    else:  # an invariant embedding reads the same of both versions
        assert protection_of(checkpoint(arm, None)) == protection


@pytest.fixture
def trained(scenes: Path, tmp_path: Path) -> tuple[RunFolder, Any]:
    """A run of a shared key, whose checkpoints name no versions."""
    settings = small.config(scenes, arms=["access-control-np"])
    folder = small.prepared(settings, tmp_path).folder
    found = folder.latest("access-control-np", 0)
    assert found is not None and found.description.ciphers == {"negative-positive": 2}
    folder.save(replace(found, round=1, description=without_ciphers(found.description)), keep=1)
    return folder, settings


def test_a_run_of_an_earlier_version_does_not_go_on(trained: tuple[RunFolder, Any]) -> None:
    folder, settings = trained
    with pytest.raises(InputError, match=f"{OLD}; train again"):
        check_resumed(settings, folder)


def test_a_query_meets_no_weights_of_an_earlier_version(
    trained: tuple[RunFolder, Any], scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data-root", str(scenes), "--key", "wrong", "--quiet"]
    assert run(evaluate, [str(trained[0].path), *options]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{OLD}; train again" in said


def test_an_audit_says_nothing_of_a_run_of_an_earlier_version(scenes: Path, tmp_path: Path) -> None:
    """Of no arm: it would attack what the new version encrypts, and vouch for the old one."""
    settings = small.config(scenes, arms=["per-image-invariant"])
    folder = small.prepared(settings, tmp_path).folder
    found = folder.latest("per-image-invariant", 0)
    assert found is not None
    folder.save(replace(found, round=1, description=without_ciphers(found.description)), keep=1)
    with pytest.raises(InputError, match=f"arm per-image-invariant was trained on: {OLD}"):
        audit(settings, folder.path, tmp_path / "audit", Effort.quick())
    assert not (tmp_path / "audit").exists()
