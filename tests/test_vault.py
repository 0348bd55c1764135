"""The vault: shards that only their owner can read, made once, whole or not at all."""

import dataclasses
import json
import os
import shutil
import stat
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch
from PIL import Image

from clients.vault import Assignment, Vault, prepare_shards, sealing, shared_subkey
from fl_ppseg.blocks import to_blocks
from fl_ppseg.ciphers import decrypt
from fl_ppseg.classes import load_class_table
from fl_ppseg.config import ArmConfig, DataConfig, builtin_arms
from fl_ppseg.dataset import Scene, open_dataset
from fl_ppseg.errors import InputError
from fl_ppseg.evaluation import confusion_counts, score
from fl_ppseg.keys import ClientKey, SubKey
from fl_ppseg.shard import Shard, ShardPart, open_shard
from fl_ppseg.shard_draft import ShardDraft
from fl_ppseg.views import views

BLOCK = 8
SIZE = (32, 64)
DATA = DataConfig(image_size=SIZE, num_views=2)
ARMS = builtin_arms()
PROTECTIONS = {name: ARMS[name] for name in ("plain", "per-client", "per-image")} | {
    "per-image-per-block": ARMS["per-image-per-block"],
    "per-image-derived": ARMS["per-image"].model_copy(update={"key_lifetime": "derived"}),
}


def assignment(
    root: Path,
    vault: Path,
    city: str = "aachen",
    protections: Mapping[str, ArmConfig] = PROTECTIONS,
    **data: object,
) -> Assignment:
    scenes = open_dataset(root, load_class_table("cityscapes")).split("train")[city]
    return Assignment(
        vault / city,
        city,
        scenes[:-1],
        scenes[-1:],
        DATA.model_copy(update=data),
        BLOCK,
        seed=3,
        protections=protections,
    )


def part(folder: Path) -> ShardPart:
    return open_shard([folder]).parts[0]


def plain_views(job: Assignment) -> np.ndarray:
    """(num_images, num_views, 3, H, W), as an owner who repeats the views has them."""
    size, number = job.data.image_size, job.data.num_views
    made = [
        [image for image, _ in views(*s.load(), size, job.data.fit, number, job.seed, s.scene_id)]
        for s in job.train
    ]
    return np.array(made)


def blocks(images: np.ndarray) -> np.ndarray:
    """(..., 3, H, W) -> (..., num_blocks, L)."""
    flat = images.reshape(-1, *images.shape[-3:])
    return np.stack([to_blocks(image, BLOCK) for image in flat])


@pytest.fixture(scope="module")
def job(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    return assignment(scenes, tmp_path_factory.mktemp("vaults"))


def shards(job: Assignment) -> dict[str, Path]:
    """Folder of the shard of each arm."""
    return {arm: prepared.shard for arm, prepared in prepare_shards(job).items()}


@pytest.fixture(scope="module")
def folders(job: Assignment) -> dict[str, Path]:
    return shards(job)


def record_of(job: Assignment, folder: Path) -> Path:
    """The owner's file with the salts of a shard."""
    return job.vault / "manifests" / f"{part(folder).manifest.record}.json"


def salts(job: Assignment, folder: Path) -> dict[str, bytes]:
    kept = json.loads(record_of(job, folder).read_text("utf-8"))["salts"]
    return {name: bytes.fromhex(salt) for name, salt in kept.items()}


# What a shard holds.


def test_every_arm_has_a_shard_of_its_own(job: Assignment, folders: dict[str, Path]) -> None:
    assert len(set(folders.values())) == len(PROTECTIONS)
    shards = [part(folder) for folder in folders.values()]
    for shard in shards:
        assert shard.images.shape == (len(job.train), 2, 3, *SIZE)
        assert shard.heldout_images.shape == (1, 3, *SIZE)
        np.testing.assert_array_equal(shard.labels, shards[0].labels)
        np.testing.assert_array_equal(shard.heldout_labels, shards[0].heldout_labels)


def test_plain_shard_holds_the_views_as_they_are(job: Assignment, folders: dict[str, Path]) -> None:
    shard = part(folders["plain"])
    np.testing.assert_array_equal(shard.images, plain_views(job))
    for number, scene in enumerate(job.train):
        image, labels = scene.load()
        np.testing.assert_array_equal(shard.images[number, 0], image)
        np.testing.assert_array_equal(shard.labels[number, 0], labels)
    ((image, labels),) = Shard([shard]).heldout()
    np.testing.assert_array_equal(image, job.heldout[0].load()[0])
    np.testing.assert_array_equal(labels, job.heldout[0].load()[1])


@pytest.mark.parametrize("arm", sorted(set(PROTECTIONS) - {"plain"}))
def test_encrypted_blocks_hold_the_same_values_in_another_order(
    arm: str, folders: dict[str, Path]
) -> None:
    plain, shard = part(folders["plain"]), part(folders[arm])
    for before, after in (
        (plain.images, shard.images),
        (plain.heldout_images, shard.heldout_images),
    ):
        assert (before != after).any(axis=(-3, -2, -1)).all()
        np.testing.assert_array_equal(np.sort(blocks(before)), np.sort(blocks(after)))


def orders(plain: np.ndarray, encrypted: np.ndarray) -> list[set[bytes]]:
    """For each image, the permutations that explain its blocks; needs blocks of distinct values."""
    pairs = zip(blocks(plain), blocks(encrypted), strict=True)
    return [
        {np.argsort(b)[np.argsort(np.argsort(a))].tobytes() for b, a in zip(*pair, strict=True)}
        for pair in pairs
    ]


@pytest.fixture(scope="module")
def distinct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A city whose blocks hold each value once, so that permutations can be read off."""
    root = tmp_path_factory.mktemp("distinct")
    rng = np.random.default_rng(0)
    for number in range(4):
        values = rng.permuted(np.tile(np.arange(192, dtype=np.uint8), (32, 1)), axis=1)
        image = values.reshape(4, 8, 3, 8, 8).transpose(0, 3, 1, 4, 2).reshape(32, 64, 3)
        for kind, name, picture in (
            ("leftImg8bit", "leftImg8bit", image),
            ("gtFine", "gtFine_labelIds", np.full(SIZE, 7, np.uint8)),
        ):
            path = root / kind / "train" / "aachen" / f"aachen_{number}_{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return root


def test_number_of_permutations_is_what_the_arm_promises(distinct: Path, tmp_path: Path) -> None:
    folders = shards(assignment(distinct, tmp_path, num_views=1))
    plain = part(folders["plain"]).images[:, 0]
    found = {arm: orders(plain, part(f).images[:, 0]) for arm, f in folders.items()}
    assert [len(image) for image in found["plain"]] == [1, 1, 1]
    assert [len(image) for image in found["per-client"]] == [1, 1, 1]
    assert len(set.union(*found["per-client"])) == 1
    for arm in ("per-image", "per-image-derived"):
        assert [len(image) for image in found[arm]] == [1, 1, 1]
        assert len(set.union(*found[arm])) == 3
    assert len(set.union(*found["per-image-per-block"])) == 3 * 32


def test_two_clients_with_the_same_images_differ(distinct: Path, tmp_path: Path) -> None:
    protections = {"per-client": ARMS["per-client"]}
    first, second = (
        part(shards(assignment(distinct, tmp_path / v, protections=protections))["per-client"])
        for v in ("a", "b")
    )
    assert first.manifest.settings == second.manifest.settings
    assert first.manifest.record != second.manifest.record
    assert (first.images != second.images).any(axis=(-3, -2, -1)).all()


# The owner's right, and its limit.


@pytest.mark.parametrize("arm", ["per-client", "per-image-derived"])
def test_owner_decrypts_derived_images_exactly(
    arm: str, job: Assignment, folders: dict[str, Path]
) -> None:
    key = ClientKey.load(job.vault / "master.key")
    kept = salts(job, folders[arm])
    shard, plain = part(folders[arm]), part(folders["plain"])

    def subkey(split: str, scene: Scene, view: int) -> SubKey:
        if arm == "per-client":
            return key.client_subkey(kept["client"])
        salt = kept[f"{split}/{scene.scene_id}/{view}"]
        return key.view_subkey(split=split, city=scene.city, file=scene.stem, view=view, salt=salt)

    def opened(image: np.ndarray, key: SubKey) -> np.ndarray:
        return decrypt(np.array(image), key, "shuffle", block_size=BLOCK, scope="common")

    for number, scene in enumerate(job.train):
        for view in range(2):
            found = opened(shard.images[number, view], subkey("train", scene, view))
            np.testing.assert_array_equal(found, plain.images[number, view])
    for number, scene in enumerate(job.heldout):
        found = opened(shard.heldout_images[number], subkey("heldout", scene, 0))
        np.testing.assert_array_equal(found, plain.heldout_images[number])


def test_derived_keys_have_a_salt_a_view(job: Assignment, folders: dict[str, Path]) -> None:
    assert len(salts(job, folders["per-client"])) == 1
    kept = salts(job, folders["per-image-derived"])
    assert len(set(kept.values())) == len(kept) == 2 * len(job.train) + len(job.heldout)


def test_disposable_and_plain_leave_nothing_to_decrypt_with(
    job: Assignment, folders: dict[str, Path]
) -> None:
    records = {path.stem for path in (job.vault / "manifests").iterdir()}
    derived = ("per-client", "per-image-derived")
    assert records == {part(folders[arm]).manifest.record for arm in derived}
    assert {part(folders[arm]).manifest.record for arm in PROTECTIONS if arm not in derived} == {
        None
    }


def test_disposable_keys_alone_make_no_salts(scenes: Path, tmp_path: Path) -> None:
    protections = {name: ARMS[name] for name in ("plain", "per-image", "per-image-per-block")}
    prepare_shards(assignment(scenes, tmp_path, protections=protections))
    assert not (tmp_path / "aachen" / "manifests").exists()


# Files.


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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
    rename = Path.rename
    seen = []

    def watched(path: Path, target: Path) -> Path:
        seen.append(record_of(job, path).is_file())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
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
        assert mode(folder) == 0o700
        assert {mode(file) for file in folder.rglob("*") if file.is_file()} == {0o600}


# Scoring.


@pytest.mark.parametrize(("policy", "size"), [("crop", (16, 40)), ("resize", SIZE)])
def test_heldout_labels_are_those_of_what_the_model_sees(
    policy: str, size: tuple[int, int], scenes: Path, tmp_path: Path
) -> None:
    """A model that knows the labels of each pixel it sees has a perfect score."""
    job = assignment(
        scenes,
        tmp_path,
        protections={"plain": ARMS["plain"]},
        image_size=(16, 40),
        fit=policy,
        num_views=1,
    )
    ((image, labels),) = Shard([part(shards(job)["plain"])]).heldout()
    whole, truth = job.heldout[0].load()
    assert image.shape == (3, 16, 40)
    assert labels.shape == size
    if policy == "crop":
        window = np.s_[..., 8:24, 12:52]
        np.testing.assert_array_equal(image, whole[window])
        truth = truth[window]
    known = torch.from_numpy(truth.astype(np.int64))
    scores = score(confusion_counts(known, torch.from_numpy(labels.copy()), 19))
    assert (scores.aAcc, scores.mIoU) == (100, 100)


def test_heldout_images_are_not_held_all_at_once(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = assignment(scenes, tmp_path, protections={"plain": ARMS["plain"]})
    job = dataclasses.replace(found, train=(), heldout=found.train)
    events = []
    load, write = Scene.load, ShardDraft.put

    def loading(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        events.append("load")
        return load(scene)

    def writing(draft: ShardDraft, *arguments: Any) -> None:
        events.append("write")
        write(draft, *arguments)

    monkeypatch.setattr(Scene, "load", loading)
    monkeypatch.setattr(ShardDraft, "put", writing)
    prepare_shards(job)
    assert events == ["load", "write"] * len(job.heldout)


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
        patch.setattr(sealing, "encrypt", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_shards(job)
    places = {path.name for path in (tmp_path / "aachen" / "shards").iterdir()}
    assert all(name.startswith(".") and name.endswith(".draft") for name in places)
    assert calls == 6

    folders = shards(job)
    assert len(part(folders["per-image"]).images) == len(job.train)
    assert {path.name for path in (tmp_path / "aachen" / "shards").iterdir()} == {
        folder.name for folder in folders.values()
    }


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
    place = tmp_path / "vaults" / "aachen" / "shards"
    assert not place.exists() or list(place.iterdir()) == []


def test_keys_do_not_come_from_the_seed(scenes: Path, tmp_path: Path) -> None:
    """Two owners with equal images and seeds: everything is equal but what keys decide."""
    first, second = (shards(assignment(scenes, tmp_path / v)) for v in "ab")
    for arm in PROTECTIONS:
        assert first[arm].name == second[arm].name
        same = np.array_equal(part(first[arm]).images, part(second[arm]).images)
        assert same == (arm == "plain")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["aachen"]


# One key for all.


def opened(images: np.ndarray, key: SubKey) -> np.ndarray:
    """(..., 3, H, W) ciphertexts of a `common` shuffle -> plain images."""
    flat = np.array(images).reshape(-1, *images.shape[-3:])
    plain = [decrypt(image, key, "shuffle", block_size=BLOCK, scope="common") for image in flat]
    return np.stack(plain).reshape(images.shape)


def test_shared_key_is_one_for_all_owners_and_arms_but_those_that_publish_it(
    scenes: Path, tmp_path: Path
) -> None:
    names = ("plain", "conventional-2", "access-control-shf", "domain-adaptation")
    protections = {name: ARMS[name] for name in names}
    jobs = [assignment(scenes, tmp_path, city, protections) for city in ("aachen", "bochum")]
    found = [shards(job) for job in jobs]
    keys = {name: shared_subkey(tmp_path, ARMS[name]) for name in names[1:]}
    hidden, _, published = keys.values()
    assert keys["access-control-shf"] == hidden != published
    for folders in found:
        assert folders["conventional-2"] == folders["access-control-shf"]
        assert folders["conventional-2"] != folders["domain-adaptation"]
        for name, key in keys.items():
            images = part(folders[name]).images
            np.testing.assert_array_equal(opened(images, key), part(folders["plain"]).images)
    assert hidden != shared_subkey(tmp_path / "other", ARMS["conventional-2"])
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
    with pytest.raises(InputError, match=r"gone, but .* restore its backup, or remove") as caught:
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
    key = shared_subkey(tmp_path, ARMS["conventional-2"])
    np.testing.assert_array_equal(opened(images, key), plain)


def test_owners_at_once_make_one_shared_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        arms = [ARMS["conventional-2"]] * 8
        found = {key.fingerprint for key in pool.map(shared_subkey, [tmp_path] * 8, arms)}
    assert len(found) == 1


def test_an_arm_that_encrypts_queries_alone_trains_on_the_plain_shard(
    scenes: Path, tmp_path: Path
) -> None:
    names = ("plain", "conventional-1")
    folders = shards(assignment(scenes, tmp_path, protections={n: ARMS[n] for n in names}))
    assert folders["plain"] == folders["conventional-1"]
    assert not (tmp_path / ".shared").exists()


def test_a_shard_whose_salts_are_gone_is_made_again(scenes: Path, tmp_path: Path) -> None:
    """Its owner could not decrypt it any more, nor adapt an embedding to its key."""
    job = assignment(scenes, tmp_path, protections={"per-client": ARMS["per-client"]})
    folder = shards(job)["per-client"]
    record_of(job, folder).unlink()
    assert shards(job)["per-client"] == folder
    key = ClientKey.load(job.vault / "master.key").client_subkey(salts(job, folder)["client"])
    np.testing.assert_array_equal(opened(part(folder).images, key), plain_views(job))
