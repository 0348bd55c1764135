"""The owner's private embedding: from public weights and the owner's key alone, kept at home."""

import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch

from clients.private_state import KEPT, load_private, save_private, versions
from clients.vault import Assignment, Prepared, prepare_shards
from fl_ppseg.adaptation import adapted_embedding
from fl_ppseg.classes import load_class_table
from fl_ppseg.config import ArmConfig, DataConfig, builtin_arms
from fl_ppseg.dataset import open_dataset
from fl_ppseg.errors import InputError
from fl_ppseg.keys import ClientKey
from fl_ppseg.manifest import read_manifest
from fl_ppseg.messages import Arrays
from fl_ppseg.pixels import to_input
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.shard import open_shard

SIZE = (32, 64)
PRIVATE = builtin_arms()["per-client-private"]
ARMS = {
    "plain": builtin_arms()["plain"],
    "frozen": PRIVATE,
    "trained": PRIVATE.model_copy(update={"private_rate": 0.1}),
    "random": PRIVATE.model_copy(update={"private_rate": 1.0, "private_start": "random"}),
}
Tensors = dict[str, torch.Tensor]


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


def embed(tensors: Tensors, images: np.ndarray) -> torch.Tensor:
    """(B, 3, H, W) uint8 -> (B, D, grid_h, grid_w), as a ViT's patch embedding does."""
    weight, bias = (tensors[name] for name in EMBEDDING_TENSORS)
    return torch.nn.functional.conv2d(to_input(torch.tensor(images)), weight, bias, stride=8)


def same(first: Tensors, second: Tensors) -> bool:
    return small.bits(first) == small.bits(second)


def test_it_reads_ciphertexts_as_the_public_one_reads_images(job: Assignment) -> None:
    prepared = prepare_shards(job)
    wanted = {name: torch.from_numpy(value) for name, value in job.public.items()}
    plain, hidden = (open_shard([prepared[arm].shard]).parts[0] for arm in ("plain", "frozen"))
    private = load_private(folder_of(prepared["frozen"]), 0)
    for one, other in (
        (plain.images[:, 0], hidden.images[:, 0]),
        (plain.heldout_images, hidden.heldout_images),
    ):
        torch.testing.assert_close(embed(private, other), embed(wanted, one), atol=1e-4, rtol=0)
        assert (embed(wanted, other) - embed(wanted, one)).abs().max() > 1
    assert prepared["plain"].private is None


def test_it_comes_from_public_weights_and_the_owners_key_alone(job: Assignment) -> None:
    """Whoever has the master key and the manifest makes the same bits."""
    shard, folder = prepare_shards(job)["frozen"]
    salts = json.loads(record_of(job, shard).read_text("utf-8"))["salts"]
    key = ClientKey.load(job.vault / "master.key").client_subkey(bytes.fromhex(salts["client"]))
    weights = {name: torch.from_numpy(value) for name, value in job.public.items()}
    assert folder is not None
    assert same(load_private(folder, 0), adapted_embedding(weights, "shuffle", "common", key))


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
    shard, folder = prepare_shards(job)["frozen"]
    if change == "key":  # the shard is encrypted again, under another salt
        record_of(job, shard).unlink()
    other = changed(job, public=public(1)) if change == "public" else job
    again = prepare_shards(other)["frozen"]
    assert again.shard == shard
    assert folder is not None and not same(
        load_private(folder_of(again), 0), load_private(folder, 0)
    )


def test_random_start_tells_nothing_and_is_for_those_who_train(job: Assignment) -> None:
    prepared = prepare_shards(job)
    adapted, drawn = (load_private(folder_of(prepared[arm]), 0) for arm in ("frozen", "random"))
    weight, bias = EMBEDDING_TENSORS
    columns = drawn[weight].flatten(1).T
    assert columns.std() == pytest.approx(float(adapted[weight].std()), rel=0.05)
    assert torch.equal(drawn[bias], adapted[bias])
    correlation = torch.corrcoef(torch.cat([columns, adapted[weight].flatten(1).T]))
    assert correlation[:192, 192:].abs().max() < 0.9  # adapted columns are the public ones: 1

    other = prepare_shards(changed(job, vault=job.vault.with_name("other")))
    assert not same(load_private(folder_of(other["random"]), 0), drawn)

    val = prepare_shards(changed(job, train=()))
    assert same(
        load_private(folder_of(val["random"]), 0), load_private(folder_of(val["frozen"]), 0)
    )


def test_random_start_is_drawn_once(job: Assignment) -> None:
    first = load_private(folder_of(prepare_shards(job)["random"]), 0)
    assert same(load_private(folder_of(prepare_shards(job)["random"]), 0), first)


def test_what_is_trained_belongs_to_one_run_and_arm(job: Assignment) -> None:
    """Frozen ones serve every run; trained ones never meet."""
    other_arm = changed(job, protections=ARMS | {"again": ARMS["trained"], "still": PRIVATE})
    here, there = prepare_shards(other_arm), prepare_shards(changed(job, run="other"))
    assert here["frozen"] == here["still"] == there["frozen"]
    assert len({here["trained"], here["again"], there["trained"]}) == 3


def test_versions_after_the_coordinators_round_are_forgotten(job: Assignment) -> None:
    """A run that is begun anew in the same folder, or went back to an older checkpoint."""
    folder = folder_of(prepare_shards(job)["trained"])
    start = load_private(folder, 0)
    for round_ in (1, 2, 3):
        save_private(folder, round_, {n: value + round_ for n, value in start.items()})
    prepare_shards(changed(job, rounds={"trained": 2}))
    assert versions(folder) == [0, 1, 2]
    prepare_shards(job)
    assert versions(folder) == [0]
    assert same(load_private(folder, 9), start)


@pytest.mark.parametrize(
    "change", [{"cipher": "ffx"}, {"block_scope": "per-block"}], ids=["ffx", "per-block"]
)
def test_what_cannot_be_adapted_is_one_line(change: dict[str, str], job: Assignment) -> None:
    arm: ArmConfig = PRIVATE.model_copy(update=change)
    with pytest.raises(InputError, match="adapted") as caught:
        prepare_shards(changed(job, protections={"odd": arm}))
    assert "\n" not in str(caught.value)


# Versions.


def tensors(value: float) -> Tensors:
    return {name: torch.full((2, 3), value) for name in EMBEDDING_TENSORS}


def test_the_newest_version_not_after_a_round(tmp_path: Path) -> None:
    for round_ in (0, 2, 5):
        save_private(tmp_path, round_, tensors(round_))
    found = [float(load_private(tmp_path, r)[EMBEDDING_TENSORS[0]][0, 0]) for r in range(8)]
    assert found == [0, 0, 2, 2, 2, 5, 5, 5]


def test_the_start_and_the_newest_versions_stay(tmp_path: Path) -> None:
    for round_ in range(12):
        save_private(tmp_path, round_, tensors(round_))
    assert KEPT == 3
    assert versions(tmp_path) == [0, 9, 10, 11]
    save_private(tmp_path, 10, tensors(10))
    assert versions(tmp_path) == [0, 9, 10]
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("content", [None, b"", b"no tensors", "others"])
def test_no_readable_version_is_one_line(content: Any, tmp_path: Path) -> None:
    if content == "others":
        save_private(tmp_path, 0, tensors(0))
        file = tmp_path / "round_0000.safetensors"
        file.write_bytes(file.read_bytes().replace(b"proj.bias", b"proj.boss"))
    elif content is not None:
        (tmp_path / "round_0000.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"private embedding|other tensors") as caught:
        load_private(tmp_path, 3)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
