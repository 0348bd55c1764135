"""The vault's shards: what they hold, who can decrypt them, what they are scored on."""

import dataclasses
from pathlib import Path
from typing import Any

import cipher_specification
import numpy as np
import pytest
import torch
from PIL import Image
from small_vault import (
    ARMS,
    BLOCK,
    PROTECTIONS,
    SIZE,
    assignment,
    blocks,
    part,
    plain_views,
    salts,
    shards,
)

from clients.vault.assignment import Assignment
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.crypto.ciphers.encryption import decrypt
from fl_ppseg.crypto.keys import ClientKey, Part, SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.shard import Shard
from fl_ppseg.data.shard_draft import ShardDraft
from fl_ppseg.learning.evaluation import confusion_counts, score

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
    """A client whose blocks hold each value once, so that permutations can be read off."""
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

    def subkey(part: Part, scene: Scene, view: int) -> SubKey:
        if arm == "per-client":
            return key.client_subkey(kept["client"])
        salt = kept[f"{part}/{scene.scene_id}/{view}"]
        return key.view_subkey(part=part, city=scene.city, file=scene.stem, view=view, salt=salt)

    def opened(image: np.ndarray, key: SubKey) -> np.ndarray:
        return decrypt(np.array(image), key, "shuffle", block_size=BLOCK, scope="common")

    for number, scene in enumerate(job.train):
        for view in range(2):
            found = opened(shard.images[number, view], subkey("train", scene, view))
            np.testing.assert_array_equal(found, plain.images[number, view])
    for number, scene in enumerate(job.heldout):
        found = opened(shard.heldout_images[number], subkey("heldout", scene, 0))
        np.testing.assert_array_equal(found, plain.heldout_images[number])


def test_keys_of_a_shard_are_those_of_the_document(scenes: Path, tmp_path: Path) -> None:
    """A key file, a record and the specification are enough: part, not the tree's split."""
    protections = {arm: PROTECTIONS[arm] for arm in ("plain", "per-image-derived")}
    job = assignment(scenes, tmp_path, protections=protections)
    folders = shards(job)
    secret = bytes.fromhex((job.vault / "master.key").read_text("ascii").split("\n")[1])
    kept = salts(job, folders["per-image-derived"])
    shard, plain = part(folders["per-image-derived"]), part(folders["plain"])

    def opened(image: np.ndarray, part: str, scene: Scene, view: int) -> np.ndarray:
        salt = kept[f"{part}/{scene.scene_id}/{view}"]
        key = cipher_specification.view_subkey(secret, part, scene.city, scene.stem, view, salt)
        subkey = SubKey.from_bytes(key)
        return decrypt(np.array(image), subkey, "shuffle", block_size=BLOCK, scope="common")

    scene, held = job.train[0], job.heldout[0]
    assert scene.split == held.split == "train"
    np.testing.assert_array_equal(opened(shard.images[0, 1], "train", scene, 1), plain.images[0, 1])
    found = opened(shard.heldout_images[0], "heldout", held, 0)
    np.testing.assert_array_equal(found, plain.heldout_images[0])


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


def test_keys_do_not_come_from_the_seed(scenes: Path, tmp_path: Path) -> None:
    """Two owners with equal images and seeds: everything is equal but what keys decide."""
    first, second = (shards(assignment(scenes, tmp_path / v)) for v in "ab")
    for arm in PROTECTIONS:
        assert first[arm].name == second[arm].name
        same = np.array_equal(part(first[arm]).images, part(second[arm]).images)
        assert same == (arm == "plain")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["aachen"]


# Scoring.


@pytest.mark.parametrize(("policy", "size"), [("crop", SIZE), ("resize", (16, 40))])
def test_heldout_labels_are_those_of_what_the_model_sees(
    policy: str, size: tuple[int, int], scenes: Path, tmp_path: Path
) -> None:
    """Whole label maps: windows slide over the whole image, or it is resized."""
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
    assert image.shape == (3, *size)
    assert labels.shape == SIZE
    if policy == "crop":
        np.testing.assert_array_equal(image, whole)
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
