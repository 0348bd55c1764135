"""One key for all owners, as the papers' methods have it, and what arms need no key at all."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_vault import (
    ARMS,
    assignment,
    mode,
    opened,
    part,
    shards,
)

from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.system.errors import InputError


def test_shared_key_is_one_for_all_owners_and_arms_but_those_that_publish_it(
    scenes: Path, tmp_path: Path
) -> None:
    names = ("plain", "conventional-2", "access-control-shf", "domain-adaptation")
    protections = {name: ARMS[name] for name in names}
    jobs = [assignment(scenes, tmp_path, client, protections) for client in ("aachen", "bochum")]
    found = [shards(job) for job in jobs]
    keys = {name: ensure_shared_subkey(tmp_path, ARMS[name]) for name in names[1:]}
    hidden, _, published = keys.values()
    assert keys["access-control-shf"] == hidden != published
    for folders in found:
        assert folders["conventional-2"] == folders["access-control-shf"]
        assert folders["conventional-2"] != folders["domain-adaptation"]
        for name, key in keys.items():
            images = part(folders[name]).images
            np.testing.assert_array_equal(opened(images, key), part(folders["plain"]).images)
    assert hidden != ensure_shared_subkey(tmp_path / "other", ARMS["conventional-2"])
    assert not list(tmp_path.glob("[a-z]*/master.key"))
    files = [path for path in (tmp_path / ".shared").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"master.key", "salt.json", "salt-published.json"}
    assert {mode(path) for path in files} == {0o600}
    assert mode(tmp_path / ".shared") == 0o700


@pytest.mark.parametrize("arm", ["conventional-2", "per-client"])
def test_a_lost_master_key_is_never_replaced_in_silence(
    arm: str, scenes: Path, tmp_path: Path
) -> None:
    job = assignment(scenes, tmp_path, protections={arm: ARMS[arm]})
    folder = shards(job)[arm]
    place = tmp_path / (".shared" if arm == "conventional-2" else "aachen")
    (place / "master.key").unlink()
    (folder / "manifest.json").unlink()  # to be encrypted again
    with pytest.raises(
        InputError, match=r"missing, but .* restore its backup, or remove"
    ) as caught:
        shards(job)
    assert "\n" not in str(caught.value)
    assert not (place / "master.key").exists()


def test_shards_of_a_removed_shared_key_are_made_again(scenes: Path, tmp_path: Path) -> None:
    protections = {name: ARMS[name] for name in ("plain", "conventional-2")}
    job = assignment(scenes, tmp_path, protections=protections)
    shards(job)
    shutil.rmtree(tmp_path / ".shared")
    folders = shards(job)
    images = part(folders["conventional-2"]).images
    plain = part(folders["plain"]).images
    key = ensure_shared_subkey(tmp_path, ARMS["conventional-2"])
    np.testing.assert_array_equal(opened(images, key), plain)


def test_owners_at_once_make_one_shared_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        arms = [ARMS["conventional-2"]] * 8
        found = {key.fingerprint for key in pool.map(ensure_shared_subkey, [tmp_path] * 8, arms)}
    assert len(found) == 1


def test_an_arm_that_encrypts_queries_alone_trains_on_the_plain_shard(
    scenes: Path, tmp_path: Path
) -> None:
    names = ("plain", "conventional-1")
    folders = shards(assignment(scenes, tmp_path, protections={n: ARMS[n] for n in names}))
    assert folders["plain"] == folders["conventional-1"]
    assert not (tmp_path / ".shared").exists()
