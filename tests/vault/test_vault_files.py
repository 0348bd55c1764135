"""The vault's files: their owner's alone, made once, whole or not at all."""

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
from PIL import Image
from small_vault import (
    ARMS,
    BLOCK,
    DATA,
    assignment,
    mode,
    opened,
    part,
    plain_views,
    record_of,
    salts,
    shards,
)

from clients.vault.assignment import Assignment
from clients.vault.keys.keyring import Vault
from clients.vault.shards import encrypting
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.crypto.ciphers.encryption import decrypt
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.data.shard_draft import ShardDraft
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError


def test_keys_and_salts_are_the_owners_alone(job: Assignment, folders: dict[str, Path]) -> None:
    assert folders
    assert mode(job.vault) == mode(job.vault / "manifests") == 0o700
    assert mode(job.vault / "master.key") == 0o600
    assert {mode(path) for path in (job.vault / "manifests").iterdir()} == {0o600}


def test_master_key_is_made_once(scenes: Path, tmp_path: Path) -> None:
    protections = {"per-client": ARMS["per-client"]}
    prepare_shards(assignment(scenes, tmp_path, protections=protections))
    before = (tmp_path / "aachen" / "master.key").read_bytes()
    prepare_shards(assignment(scenes, tmp_path, protections=protections, num_views=1))
    prepare_shards(assignment(scenes, tmp_path, "bochum", protections))
    assert (tmp_path / "aachen" / "master.key").read_bytes() == before
    assert (tmp_path / "bochum" / "master.key").read_bytes() != before


def test_of_two_at_once_the_second_waits_and_finds_the_shard(scenes: Path, tmp_path: Path) -> None:
    """Threads stand for processes: the lock is on an open file, and each opens its own."""
    job = assignment(scenes, tmp_path, protections={"per-client": ARMS["per-client"]})
    with ThreadPoolExecutor(2) as pool:
        with Vault(job.vault).lock():
            both = [pool.submit(shards, job) for _ in range(2)]
            assert not wait(both, timeout=1).done
            assert [path.name for path in job.vault.iterdir()] == [".lock"]
        first, second = (future.result(timeout=20) for future in both)
    assert first == second
    assert salts(job, first["per-client"]).keys() == {"client"}
    assert mode(job.vault / "master.key") == 0o600
    assert sorted(path.name for path in job.vault.iterdir()) == [
        "manifests",
        "master.key",
        "shards",
        "simulation.json",
    ]


def test_two_processes_prepare_one_shard(scenes: Path, tmp_path: Path) -> None:
    job = assignment(scenes, tmp_path)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(prepare_shards, [job, job])
    assert first == second
    key = ClientKey.load(job.vault / "master.key")
    shard = first["per-client"].shard
    salt = salts(job, shard)["client"]
    opened = decrypt(
        np.array(part(shard).images[0, 0]),
        key.client_subkey(salt),
        "shuffle",
        block_size=BLOCK,
        scope="common",
    )
    np.testing.assert_array_equal(opened, job.train[0].load()[0])


def test_a_shard_appears_after_its_salts(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = assignment(scenes, tmp_path, protections={"per-client": ARMS["per-client"]})
    move_in = Directory.move_in
    seen = []

    def watched(shards: Directory, draft: Directory, name: str) -> None:
        assert not (shards.path / name).exists()
        seen.append(record_of(job, draft.path / name).is_file())
        move_in(shards, draft, name)

    monkeypatch.setattr(Directory, "move_in", watched)
    prepare_shards(job)
    assert seen == [True]


def test_everything_of_the_vault_is_closed_to_others(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "aachen").mkdir(mode=0o755)
    before = os.umask(0o000)
    try:
        folders = shards(assignment(scenes, tmp_path))
    finally:
        os.umask(before)
    assert mode(tmp_path / "aachen") == 0o700
    for folder in folders.values():
        assert mode(folder) == mode(folder.parent) == 0o700
        inside = {(file.is_dir(), mode(file)) for file in folder.rglob("*")}
        assert inside == {(True, 0o700), (False, 0o600)}


def test_shard_names_no_file_of_the_owner(job: Assignment, folders: dict[str, Path]) -> None:
    for folder in folders.values():
        for file in folder.rglob("*"):
            assert not any(scene.stem in file.name for scene in job.train + job.heldout)
            content = file.read_bytes() if file.is_file() else b""
            assert not any(scene.stem.encode() in content for scene in job.train + job.heldout)


def states(folders: Mapping[str, Path]) -> dict[Path, tuple[int, int]]:
    files = [file for folder in folders.values() for file in folder.rglob("*.npy")]
    return {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


def test_equal_settings_find_the_shard_again(scenes: Path, tmp_path: Path) -> None:
    job = assignment(scenes, tmp_path)
    first = shards(job)
    before = states(first)
    assert shards(job) == first
    assert states(first) == before


def test_arms_that_protect_alike_share_a_shard(scenes: Path, tmp_path: Path) -> None:
    names = ("plain", "centralised", "local-only", "plain-frozen-embedding")
    folders = shards(assignment(scenes, tmp_path, protections={name: ARMS[name] for name in names}))
    assert len(set(folders.values())) == 1
    assert not (tmp_path / "aachen" / "master.key").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"block_size": 16},
        {"seed": 4},
        {"data": DATA.model_copy(update={"num_views": 3})},
        {"data": DATA.model_copy(update={"image_size": (64, 64)})},
        {"data": DATA.model_copy(update={"fit": "crop"})},
    ],
    ids=["block_size", "seed", "num_views", "image_size", "fit"],
)
def test_other_settings_make_another_shard(
    change: dict[str, object], job: Assignment, folders: dict[str, Path]
) -> None:
    other = shards(dataclasses.replace(job, **change))  # type: ignore[arg-type]
    assert not set(other.values()) & set(folders.values())


@pytest.mark.parametrize("kind", ["leftImg8bit", "gtFine"])
def test_changed_file_makes_another_shard(kind: str, scenes: Path, tmp_path: Path) -> None:
    root = small.tree_of_links(scenes, tmp_path / "tree")
    protections = {"per-client": ARMS["per-client"]}
    job = assignment(root, tmp_path / "vaults", protections=protections)
    first = shards(job)["per-client"]
    scene = job.train[0]
    path = scene.image_path if kind == "leftImg8bit" else scene.label_path
    picture = np.array(Image.open(path))
    path.unlink()
    Image.fromarray(picture[::-1]).save(path)
    second = shards(job)["per-client"]
    assert second != first
    before, after = part(first), part(second)
    changed = (before.labels != after.labels).any() if kind == "gtFine" else True
    assert changed


# Interruptions and broken images.


def test_interruption_leaves_no_half_shard(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = assignment(scenes, tmp_path)
    calls = 0

    def interrupted(image: np.ndarray, *_: object, **__: object) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise KeyboardInterrupt
        return image

    with monkeypatch.context() as patch:
        patch.setattr(encrypting, "encrypted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_shards(job)
    assert len(list((tmp_path / "aachen" / "drafts").iterdir())) == 5
    assert not (tmp_path / "aachen" / "shards").exists()
    assert calls == 6

    folders = shards(job)
    assert len(part(folders["per-image"]).images) == len(job.train)
    assert {path.name for path in (tmp_path / "aachen" / "shards").iterdir()} == {
        folder.name for folder in folders.values()
    }
    assert not (tmp_path / "aachen" / "drafts").exists()


def test_new_salts_never_stand_beside_an_old_shard(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = assignment(scenes, tmp_path, protections={"per-client": ARMS["per-client"]})
    folder = shards(job)["per-client"]
    record_of(job, folder).unlink()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardDraft, "finish", interrupted)  # salts are there, the shard is not
        with pytest.raises(KeyboardInterrupt):
            prepare_shards(job)
    assert shards(job)["per-client"] == folder
    key = ClientKey.load(job.vault / "master.key").client_subkey(salts(job, folder)["client"])
    np.testing.assert_array_equal(opened(part(folder).images, key), plain_views(job))


@pytest.mark.parametrize("heldout", [False, True])
def test_truncated_image_is_named(heldout: bool, scenes: Path, tmp_path: Path) -> None:
    root = small.tree_of_links(scenes, tmp_path / "tree")
    job = assignment(root, tmp_path / "vaults")
    broken = (job.heldout if heldout else job.train)[-1].image_path
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError) as caught:
        prepare_shards(job)
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)
    for name in ("shards", "drafts"):
        assert not (tmp_path / "vaults" / "aachen" / name).exists()


def test_a_shard_whose_salts_are_gone_is_made_again(scenes: Path, tmp_path: Path) -> None:
    """Its owner could not decrypt it any more, nor adapt an embedding to its key."""
    job = assignment(scenes, tmp_path, protections={"per-client": ARMS["per-client"]})
    folder = shards(job)["per-client"]
    record_of(job, folder).unlink()
    assert shards(job)["per-client"] == folder
    key = ClientKey.load(job.vault / "master.key").client_subkey(salts(job, folder)["client"])
    np.testing.assert_array_equal(opened(part(folder).images, key), plain_views(job))
