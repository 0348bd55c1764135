"""The owner's private embedding: from public weights and the owner's key alone, kept at home."""

import dataclasses
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch

from clients.private_state import (
    KEPT,
    load_private,
    load_start,
    packed,
    remove_trained,
    save_start,
    save_trained,
    set_aside_after,
    versions,
)
from clients.vault.assignment import Assignment, Prepared
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.manifest import read_manifest
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.shard import open_shard
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError

SIZE = (32, 64)
PRIVATE = builtin_arms()["per-client-private"]
ARMS = {
    "plain": builtin_arms()["plain"],
    "frozen": PRIVATE,
    "trained": PRIVATE.model_copy(update={"private_rate": 0.1}),
    "random": PRIVATE.model_copy(update={"private_rate": 1.0, "private_start": "random"}),
}


def public(seed: int = 0) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    state = small.model().state_dict()
    return {
        name: torch.randn(state[name].shape, generator=generator).numpy()
        for name in EMBEDDING_TENSORS
    }


@pytest.fixture
def job(scenes: Path, tmp_path: Path) -> Assignment:
    found = open_dataset(scenes, load_class_table("cityscapes")).split("train")["aachen"]
    data = DataConfig(image_size=SIZE, num_views=1)
    place = tmp_path / "vaults" / "aachen"
    return Assignment(
        place, "aachen", found[:3], found[-1:], data, 8, seed=3, protections=ARMS,
        public=public(), run="run",
    )  # fmt: skip


def changed(job: Assignment, **changes: Any) -> Assignment:
    return dataclasses.replace(job, **changes)


def folder_of(prepared: Prepared) -> Path:
    assert prepared.private is not None
    return prepared.private


def record_of(job: Assignment, shard: Path) -> Path:
    """The owner's file with the salts of a shard."""
    manifest = read_manifest(shard)
    assert manifest is not None
    return job.vault / "manifests" / f"{manifest.record}.json"


def embed(tensors: Mapping[str, Any], images: np.ndarray) -> torch.Tensor:
    """(B, 3, H, W) uint8 -> (B, D, grid_h, grid_w), as a ViT's patch embedding does."""
    weight, bias = (torch.as_tensor(tensors[name]) for name in EMBEDDING_TENSORS)
    return torch.nn.functional.conv2d(to_input(torch.tensor(images)), weight, bias, stride=8)


def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return small.bits(first) == small.bits(second)


def test_it_reads_ciphertexts_as_the_public_one_reads_images(job: Assignment) -> None:
    prepared = prepare_shards(job)
    wanted = {name: torch.from_numpy(value) for name, value in job.public.items()}
    plain, hidden = (open_shard([prepared[arm].shard]).parts[0] for arm in ("plain", "frozen"))
    private = load_start(folder_of(prepared["frozen"]))
    for one, other in (
        (plain.images[:, 0], hidden.images[:, 0]),
        (plain.heldout_images, hidden.heldout_images),
    ):
        torch.testing.assert_close(embed(private, other), embed(wanted, one), atol=1e-4, rtol=0)
        assert (embed(wanted, other) - embed(wanted, one)).abs().max() > 1
    assert prepared["plain"].private is None


def test_it_comes_from_public_weights_and_the_owners_key_alone(job: Assignment) -> None:
    """Whoever has the master key and the manifest makes the same bits."""
    shard, folder, _ = prepare_shards(job)["frozen"]
    salts = json.loads(record_of(job, shard).read_text("utf-8"))["salts"]
    key = ClientKey.load(job.vault / "master.key").client_subkey(bytes.fromhex(salts["client"]))
    weights = {name: torch.from_numpy(value) for name, value in job.public.items()}
    assert folder is not None
    assert same(load_start(folder), adapted_embedding(weights, "shuffle", "common", key))


def test_files_are_the_owners_alone(job: Assignment) -> None:
    folder = folder_of(prepare_shards(job)["frozen"])
    assert folder.parent == job.vault / "private"
    for closed in (folder.parent, folder):
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert file.name == "round_0000.safetensors"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_found_again_and_made_again_where_it_is_gone_or_damaged(job: Assignment) -> None:
    first = prepare_shards(job)
    folder = folder_of(first["frozen"])
    file = folder / "round_0000.safetensors"
    before, state = file.read_bytes(), file.stat()
    assert prepare_shards(job) == first
    assert file.stat().st_mtime_ns == state.st_mtime_ns
    file.write_bytes(before[:50])
    assert prepare_shards(job) == first
    assert file.read_bytes() == before
    file.unlink()
    folder.rmdir()
    shard = (first["frozen"].shard / "manifest.json").stat().st_mtime_ns
    assert prepare_shards(job) == first
    assert file.read_bytes() == before
    assert (first["frozen"].shard / "manifest.json").stat().st_mtime_ns == shard


@pytest.mark.parametrize("change", ["public", "key"])
def test_another_public_embedding_or_key_makes_another(change: str, job: Assignment) -> None:
    shard, folder, _ = prepare_shards(job)["frozen"]
    if change == "key":  # the shard is encrypted again, under another salt
        record_of(job, shard).unlink()
    other = changed(job, public=public(1)) if change == "public" else job
    again = prepare_shards(other)["frozen"]
    assert again.shard == shard
    assert folder is not None and not same(load_start(folder_of(again)), load_start(folder))


def test_random_start_tells_nothing_and_is_for_those_who_train(job: Assignment) -> None:
    prepared = prepare_shards(job)
    adapted, drawn = (load_start(folder_of(prepared[arm])) for arm in ("frozen", "random"))
    weight, bias = EMBEDDING_TENSORS
    columns, read = (each[weight].reshape(len(each[weight]), -1).T for each in (drawn, adapted))
    assert columns.std() == pytest.approx(float(adapted[weight].std()), rel=0.05)
    assert np.array_equal(drawn[bias], adapted[bias])
    correlation = np.corrcoef(np.concatenate([columns, read]))
    assert np.abs(correlation[:192, 192:]).max() < 0.9  # adapted columns are the public ones: 1

    other = prepare_shards(changed(job, vault=job.vault.with_name("other")))
    assert not same(load_start(folder_of(other["random"])), drawn)

    val = prepare_shards(changed(job, train=()))
    assert same(load_start(folder_of(val["random"])), load_start(folder_of(val["frozen"])))


def test_random_start_is_drawn_once(job: Assignment) -> None:
    first = load_start(folder_of(prepare_shards(job)["random"]))
    assert same(load_start(folder_of(prepare_shards(job)["random"])), first)


def test_what_is_trained_belongs_to_one_run_and_arm(job: Assignment) -> None:
    """Frozen ones serve every run; trained ones never meet."""
    other_arm = changed(job, protections=ARMS | {"again": ARMS["trained"], "still": PRIVATE})
    here, there = prepare_shards(other_arm), prepare_shards(changed(job, run="other"))
    assert here["frozen"] == here["still"] == there["frozen"]
    assert len({here["trained"], here["again"], there["trained"]}) == 3


@pytest.mark.parametrize(
    "change", [{"cipher": "ffx"}, {"block_scope": "per-block"}], ids=["ffx", "per-block"]
)
def test_what_cannot_be_adapted_is_one_line(change: dict[str, str], job: Assignment) -> None:
    arm: ArmConfig = PRIVATE.model_copy(update=change)
    with pytest.raises(InputError, match="adapted") as caught:
        prepare_shards(changed(job, protections={"odd": arm}))
    assert "\n" not in str(caught.value)


# Versions.


def tensors(value: float) -> Arrays:
    return {name: np.full((2, 3), value, np.float32) for name in EMBEDDING_TENSORS}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The owner's folder, with the version of round 0, and the app's."""
    start, trained = tmp_path / "owner", tmp_path / "state" / "private" / ("a" * 32)
    save_start(start, tensors(0))
    return start, trained


def value(places: tuple[Path, Path], round_: int) -> float:
    return float(load_private(*places, round_)[EMBEDDING_TENSORS[0]][0, 0])


def test_the_newest_version_not_after_a_round(places: tuple[Path, Path]) -> None:
    for round_ in (2, 5):
        save_trained(places[1], round_, tensors(round_))
    assert [value(places, r) for r in range(8)] == [0, 0, 2, 2, 2, 5, 5, 5]


def test_the_newest_versions_stay_and_the_owners_folder_is_only_read(
    places: tuple[Path, Path],
) -> None:
    start, trained = places
    before = {path: path.stat() for path in (start, *start.iterdir())}
    for round_ in range(1, 12):
        save_trained(trained, round_, tensors(round_))
    assert KEPT == 3
    assert versions(trained) == [9, 10, 11]
    assert {path: path.stat() for path in (start, *start.iterdir())} == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in trained.iterdir()} == {0o600}
    assert stat.S_IMODE(trained.stat().st_mode) == 0o700


def test_what_was_trained_is_set_aside_and_never_erased(places: tuple[Path, Path]) -> None:
    """A coordinator that asks for an earlier round again cannot take later ones away."""
    _, trained = places
    for round_ in (1, 2, 3):
        save_trained(trained, round_, tensors(round_))
    before = {path.read_bytes() for path in trained.iterdir()}
    save_trained(trained, 1, tensors(1))  # the same once more: nothing happens
    assert versions(trained) == [1, 2, 3]
    save_trained(trained, 2, tensors(20))  # another training: it counts from here on
    assert [value(places, r) for r in (1, 2, 3)] == [1, 20, 20]
    save_trained(trained, 1, tensors(10))
    assert [value(places, r) for r in (1, 2, 3)] == [10, 10, 10]
    left = {path.read_bytes() for path in trained.rglob("*.safetensors")}
    assert before < left and packed(2, tensors(20)) in left
    set_aside_after(trained, 0)
    assert versions(trained) == [] and value(places, 3) == 0
    assert {path.read_bytes() for path in trained.rglob("*.safetensors")} == left


def test_a_withdrawal_removes_what_was_trained_and_nothing_else(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    save_trained(places[1], 1, tensors(1))
    state = tmp_path / "state"
    (state / "ledger.jsonl").write_text("kept")
    (state / "private" / "a name of another form").mkdir()
    (state / "private" / ("b" * 32)).symlink_to(places[0])
    with pytest.raises(OSError, match="symbolic link"):
        remove_trained(state)
    (state / "private" / ("b" * 32)).unlink()
    remove_trained(state)
    assert [path.name for path in (state / "private").iterdir()] == ["a name of another form"]
    assert (state / "ledger.jsonl").exists() and value(places, 1) == 0


@pytest.mark.parametrize("content", [None, b"", b"no tensors", "others"])
def test_no_readable_version_is_one_line(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "round_0000.safetensors"
    if content == "others":
        file.write_bytes(packed(0, tensors(0)).replace(b"proj.bias", b"proj.boss"))
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"private embedding|tensors of a patch embedding only"
    ) as caught:
        load_start(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_flipped_byte_of_a_version_is_noticed(places: tuple[Path, Path]) -> None:
    """In its numbers, its shapes or its hash."""
    _, trained = places
    save_trained(trained, 1, tensors(1.5))
    (file,) = trained.iterdir()
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError):
            load_private(*places, 1)
    file.write_bytes(whole)
    assert value(places, 1) == 1.5


def test_a_version_under_the_name_of_another_round_is_noticed(places: tuple[Path, Path]) -> None:
    _, trained = places
    save_trained(trained, 1, tensors(1))
    (trained / "round_0001.safetensors").rename(trained / "round_0002.safetensors")
    with pytest.raises(InputError, match="damaged private embedding"):
        load_private(*places, 2)
