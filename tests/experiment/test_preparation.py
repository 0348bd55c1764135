"""Before the first round: who holds what, initial weights, and finding it all again."""

import shutil
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch
from rich.console import Console

from clients.policy.node_policy import load_policy, policy_path, state_path
from clients.private_state import trained_folder, versions
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.loading import builtin_arms, load_config
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.adaptation import adapt, linear_form
from fl_ppseg.data.partition.record import Partition
from fl_ppseg.data.shard import open_shard
from fl_ppseg.experiment.preparation import Experiment, prepare
from fl_ppseg.experiment.simulation import simulate
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.setr.weights import save_weights
from fl_ppseg.system.errors import InputError

PRIVATE = builtin_arms()["per-client-private"].model_dump()
TRAINED = PRIVATE | {"private_rate": 0.1}
INVARIANT = builtin_arms()["per-image-invariant"].model_dump()
EMBEDDING = EMBEDDING_TENSORS[0]


def policies(experiment: Experiment) -> list[Any]:
    return [
        load_policy(policy_path(experiment.nodes, number)) for number in range(experiment.num_nodes)
    ]


def file_states(folder: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}


def test_a_node_a_client_and_its_own_shards_alone(scenes: Path, tmp_path: Path) -> None:
    arms = ["plain", "per-client", "per-image", "plain-frozen-embedding"]
    experiment = small.prepared(small.config(scenes, arms=arms), tmp_path)
    found = policies(experiment)
    clients = ["aachen", "bochum", "bremen", "lindau", "munster"]
    assert [(p.client, p.role) for p in found] == [
        (client, "train" if number < 3 else "val") for number, client in enumerate(clients)
    ]
    for policy in found:
        assert list(policy.arms) == arms
        for name, arm in policy.arms.items():
            ((seed, shards),) = arm.shards.items()
            assert seed == 0
            vault = tmp_path / "vaults" / policy.client / "shards"
            assert [path.parent for path in shards] == [vault]
            assert arm.embedding == ("frozen" if name == "plain-frozen-embedding" else "uploaded")
            manifest = open_shard(shards).parts[0].manifest
            assert (manifest.client, manifest.block_size) == (policy.client, 8)
        assert policy.arms["plain"].shards == policy.arms["plain-frozen-embedding"].shards
        assert policy.arms["plain"].shards != policy.arms["per-client"].shards


def test_heldout_images_are_never_trained_on(scenes: Path, tmp_path: Path) -> None:
    experiment = small.prepared(small.config(scenes, arms=["plain"]), tmp_path)
    for policy in policies(experiment):
        shard = open_shard(policy.arms["plain"].shards[0])
        trained = {image[0].tobytes() for image in shard.parts[0].images}
        heldout = {np.ascontiguousarray(image).tobytes() for image, _ in shard.heldout()}
        assert not trained & heldout
        assert len(heldout) == (1 if policy.role == "train" else 2)
        assert (len(trained) == 0) == (policy.role == "val")


def test_centralised_shards_lie_on_one_node(scenes: Path, tmp_path: Path) -> None:
    experiment = small.prepared(small.config(scenes, arms=["centralised", "plain"]), tmp_path)
    found = {p.client: p.arms["centralised"] for p in policies(experiment)}
    assert {client for client, arm in found.items() if arm.training_shards} == {"aachen"}
    (shards,) = found["aachen"].training_shards.values()
    assert [path.parents[1].name for path in shards] == ["aachen", "bochum", "bremen"]
    for client, arm in found.items():
        assert [path.parents[1].name for path in arm.shards[0]] == [client]


def test_private_embeddings_lie_in_their_owners_vaults(scenes: Path, tmp_path: Path) -> None:
    table = {"trained": TRAINED}
    arms = ["plain", "per-client-private", "trained"]
    settings = small.config(scenes, arms=arms, arm_table=table, seeds=[0, 3])
    experiment = small.prepared(settings, tmp_path)
    assert experiment.vault_dir == tmp_path / "vaults"
    for policy in policies(experiment):
        frozen, trained = policy.arms["per-client-private"], policy.arms["trained"]
        assert (frozen.private_rate, trained.private_rate) == (0.0, 0.1)
        assert frozen.shards == trained.shards
        folders = [*frozen.private.values(), *trained.private.values()]
        assert len(set(folders)) == 4
        assert {f.parent for f in folders} == {tmp_path / "vaults" / policy.client / "private"}
        assert policy.arms["plain"].private is None
    for arm in arms:  # the coordinator has the public one
        start = small.final(experiment.folder, arm)
        assert small.bits(start) == small.bits(small.final(experiment.folder, "plain"))


def test_shared_key_adapts_what_the_coordinator_publishes(scenes: Path, tmp_path: Path) -> None:
    arms = ["plain", "conventional-2", "domain-adaptation"]
    experiment = small.prepared(small.config(scenes, arms=arms), tmp_path)
    plain, encrypted, adapted = (small.final(experiment.folder, arm) for arm in arms)
    assert small.bits(plain) == small.bits(encrypted)
    assert {name for name in plain if (plain[name] != adapted[name]).any()} == {EMBEDDING}
    key = ensure_shared_subkey(experiment.vault_dir, builtin_arms()["domain-adaptation"])
    weight = adapt(torch.from_numpy(plain[EMBEDDING]), linear_form("shuffle", key, 8))
    np.testing.assert_array_equal(adapted[EMBEDDING], weight.numpy())


def test_invariant_arms_say_what_their_models_read(scenes: Path, tmp_path: Path) -> None:
    arms = {
        "plain": None,
        "per-image-invariant-shuffle": "values",
        "per-image-invariant-spatial": "pixels",
        "per-image-invariant-np": "magnitudes",
        "per-image-invariant": "pixel-magnitudes",
        "spatial-too": "pixels",
    }
    table = {"spatial-too": builtin_arms()["per-image-invariant-spatial"].model_dump()}
    settings = small.config(scenes, arms=[*arms], arm_table=table)
    experiment = small.prepared(settings, tmp_path)
    starts = {arm: experiment.folder.latest(arm, 0) for arm in arms}
    found = {arm: start.description.model.invariant for arm, start in starts.items() if start}
    assert found == arms
    bits = {arm: small.bits(start.arrays) for arm, start in starts.items() if start}
    assert bits["spatial-too"] == bits["per-image-invariant-spatial"]
    for policy in policies(experiment):
        assert policy.arms["per-image-invariant"].embedding == "invariant"


@pytest.mark.parametrize(
    ("arm", "model", "reason"),
    [
        ({"cipher": "ffx"}, {}, "arm odd: cipher 'ffx' does more than permute"),
        (INVARIANT | {"cipher": "ffx"}, {}, "arm odd: cipher ffx has no invariant embedding"),
        ({}, {"invariant": "values"}, "arm odd: .* model.invariant is values; leave it out"),
    ],
    ids=["not linear", "not invariant", "adapted and invariant"],
)
def test_embedding_that_cannot_be_is_refused_before_anything_is_made(
    arm: dict[str, Any], model: dict[str, Any], reason: str, scenes: Path, tmp_path: Path
) -> None:
    table = {"odd": PRIVATE | arm}
    with pytest.raises(InputError, match=reason) as caught:
        small.prepared(small.config(scenes, arms=["odd"], arm_table=table, model=model), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_begun_anew_forgets_what_its_nodes_trained(scenes: Path, tmp_path: Path) -> None:
    settings = small.config(scenes, arms=["trained"], arm_table={"trained": TRAINED})
    experiment = small.prepared(settings, tmp_path)
    small.federate(experiment)
    folders = [
        trained_folder(state_path(experiment.nodes, number), policy.arms["trained"].private[0])
        for number, policy in enumerate(policies(experiment))
    ]
    trained = [[1, 2], [1, 2], [1, 2], [], []]
    assert [versions(folder) for folder in folders] == trained
    small.prepared(settings, tmp_path)  # gone on with: nothing is forgotten
    assert [versions(folder) for folder in folders] == trained
    shutil.rmtree(tmp_path / "run")
    small.prepared(settings, tmp_path)
    assert [versions(folder) for folder in folders] == [[]] * 5


def test_round_zero_is_the_same_for_all_arms_and_says_what_it_is(
    scenes: Path, tmp_path: Path
) -> None:
    settings = small.config(scenes, arms=["plain", "per-image"], seeds=[0, 3])
    experiment = small.prepared(settings, tmp_path)
    starts = {(a, s): experiment.folder.latest(a, s) for a in settings.arms for s in (0, 3)}
    digests = Counter(small.bits(start.arrays) for start in starts.values() if start)
    assert sorted(digests.values()) == [2, 2]
    for (arm, seed), start in starts.items():
        assert start is not None and start.round == 0
        assert (start.description.arm, start.description.seed) == (arm, seed)
        assert start.description.patch_size == 8
        assert start.description.image_size == (32, 64)
        assert len(start.description.classes) == 19
    assert load_config(experiment.folder.config) == settings
    text = experiment.folder.partition.read_text("utf-8")
    assert Partition.from_json(text) == experiment.partition


def test_weights_of_a_file_are_the_start(scenes: Path, tmp_path: Path) -> None:
    network = small.model()
    for value in network.parameters():
        value.data.fill_(0.25)
    save_weights(network, tmp_path / "w.safetensors")
    model = {"weights": str(tmp_path / "w.safetensors")}
    experiment = small.prepared(small.config(scenes, arms=["plain"], model=model), tmp_path)
    for value in small.final(experiment.folder, "plain").values():
        assert (value == 0.25).all()


@pytest.mark.parametrize("training", ["federated", "local-only"])
def test_a_run_gone_on_with_keeps_its_embedding_whatever_becomes_of_the_weights_file(
    training: str, scenes: Path, tmp_path: Path
) -> None:
    file, network = tmp_path / "w.safetensors", small.model()
    save_weights(network, file)
    table = {"private": TRAINED | {"training": training}}
    model = {"weights": str(file)}
    settings = small.config(scenes, arms=["private"], arm_table=table, model=model)
    experiment = small.prepared(settings, tmp_path)
    small.federate(experiment)
    before = [policy.arms["private"].private for policy in policies(experiment)]
    for value in network.parameters():
        value.data.fill_(0.25)
    save_weights(network, file)
    again = small.prepared(settings, tmp_path)
    assert [policy.arms["private"].private for policy in policies(again)] == before


def test_prepared_again_nothing_is_made_again(scenes: Path, tmp_path: Path) -> None:
    settings = small.config(scenes, arms=["per-client", "per-image"])
    small.prepared(settings, tmp_path)
    shards = file_states(tmp_path / "vaults" / "aachen")
    run = file_states(tmp_path / "run")
    small.prepared(settings, tmp_path)
    assert file_states(tmp_path / "vaults" / "aachen") == shards
    assert file_states(tmp_path / "run") == run


def test_two_runs_of_one_vault_share_shards_and_keep_their_policies_apart(
    scenes: Path, tmp_path: Path
) -> None:
    settings = small.config(scenes, arms=["per-image"])
    first = small.prepared(settings, tmp_path)
    before = [p.arms for p in policies(first)]
    (tmp_path / "run").rename(tmp_path / "first")
    second = small.prepared(settings, tmp_path)
    assert [p.arms for p in policies(second)] == before


@pytest.mark.parametrize(
    ("run", "vault"), [("run", "run/keys"), ("vault/run", "vault"), ("same", "run/../same")]
)
def test_vault_and_run_apart_or_refused(run: str, vault: str, scenes: Path, tmp_path: Path) -> None:
    quiet = StepProgress(Console(), quiet=True)
    with pytest.raises(InputError, match="must not contain each other") as caught:
        prepare(small.config(scenes), RunFolder(tmp_path / run), tmp_path / vault, 1, quiet)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_vault_in_its_run_is_refused_before_anything_is_written(
    scenes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match="keys must be kept apart from what others see"):
        simulate(small.config(scenes), run, run / "keys", None, prepare_only=False, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_owners_folders_are_closed_to_others(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "vaults").mkdir(mode=0o755)
    experiment = small.prepared(small.config(scenes), tmp_path)
    vaults = tmp_path / "vaults"
    for folder in [vaults, vaults / ".nodes", experiment.nodes, *vaults.glob("[a-z]*")]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in experiment.nodes.glob("*.yaml"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_client_of_both_splits_is_refused(scenes: Path, tmp_path: Path) -> None:
    root = small.tree_of_links(scenes, tmp_path / "tree")
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind / "val" / "lindau").rename(root / kind / "val" / "aachen")
    with pytest.raises(InputError, match="aachen is under train and under val"):
        small.prepared(small.config(root), tmp_path)


def test_partition_of_other_data_is_refused(scenes: Path, tmp_path: Path) -> None:
    root = small.tree_of_links(scenes, tmp_path / "tree")
    settings = small.config(root, arms=["plain"])
    small.prepared(settings, tmp_path)
    for kind in ("leftImg8bit", "gtFine"):
        sorted((root / kind / "train" / "bremen").iterdir())[0].unlink()
    with pytest.raises(
        InputError, match=r"the partition names .*bremen.* which .* lacks"
    ) as caught:
        small.prepared(settings, tmp_path)
    assert "\n" not in str(caught.value)


def test_vault_processes_of_several_seeds_make_one_key(scenes: Path, tmp_path: Path) -> None:
    """Real processes, all at once: each of them may be the first to need the key of a client."""
    settings = small.config(scenes, arms=["per-client"], seeds=list(range(6)), clients=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "InlinePool", small.REAL_POOL)
        experiment = small.prepared(settings, tmp_path, num_workers=4)
    assert len(list((tmp_path / "vaults").glob("*/master.key"))) == 3
    (policy, *_) = policies(experiment)
    assert sorted(policy.arms["per-client"].shards) == list(range(6))


def test_procedural_scenes_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = {"num_train": 36, "num_val": 6, "scene_size": [32, 64], "num_views": 1}
    settings: Config = small.config(None, arms=["plain"], clients=2, data=data)
    small.prepared(settings, tmp_path / "a")
    before = file_states(tmp_path / "cache")
    assert len(before) == 2 * (36 + 6) + 1
    small.prepared(settings, tmp_path / "b")
    assert file_states(tmp_path / "cache") == before


@pytest.mark.parametrize(
    "data", [{"classes": "camvid"}, {"image_size": [64, 64], "scene_size": [32, 64]}]
)
def test_procedural_scenes_stand_in_for_no_other_images(data: Any, tmp_path: Path) -> None:
    settings = small.config(None, arms=["plain"], clients=2, data=data)
    with pytest.raises(InputError, match=r"procedural scenes have .*; give --data-root"):
        small.prepared(settings, tmp_path)
    assert not (tmp_path / "run").exists()
