"""The owner's policy: what the coordinator may ask for, and nothing that would weaken it."""

import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import fake_nodes
import must_fail
import numpy as np
import pytest
import yaml
from checkout import VECTORS
from safetensors.numpy import load_file

import fl_ppseg
from clients.policy.ledger import Limits
from clients.policy.node_policy import (
    NODES_VARIABLE,
    ArmPolicy,
    NodePolicy,
    RefusedError,
    find_policy,
    find_state,
    load_policy,
    policy_path,
    save_policy,
    state_path,
)
from clients.policy.owned_file import read_owned_bytes
from clients.policy.permission import MAX_WEIGHT, Permit, check_heldout, check_weights, permit
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.federation.message_content import Request
from fl_ppseg.system.errors import InputError

SHARDS = (Path("/vault/aachen/shards/secret-name"),)
PRIVATE = Path("/vault/aachen/private/secret-name")
KINDS = ("uploaded", "frozen", "adapted", "private", "invariant")
LIMITS = {"train": Limits(1, 4), "evaluate": Limits(1, 3)}


def arm_policy(embedding: Any = "uploaded", **changes: Any) -> ArmPolicy:
    """What an owner agreed to: four rounds, of which three are scored."""
    invariant = "values" if embedding == "invariant" else None
    values: dict[str, Any] = {
        "embedding": embedding,
        "shards": {0: SHARDS},
        "model": ModelConfig(invariant=invariant),
        "num_classes": 19,
        "training": TrainingConfig(),
        "num_rounds": 4,
        "evaluations": 3,
    }
    return ArmPolicy(**values | changes)


def policy(role: Any = "train", **changes: Any) -> NodePolicy:
    arms = {
        "per-image": arm_policy(),
        "kept": arm_policy("frozen", shards={0: SHARDS, 7: ()}),
    }
    return NodePolicy(**{"client": "aachen", "role": role, "arms": arms} | changes)


def policy_of(kind: Any) -> NodePolicy:
    """A node with one arm, whose embedding is treated so."""
    private = {0: PRIVATE} if kind == "private" else None
    return policy(arms={"arm": arm_policy(kind, private=private)})


def request(**changes: Any) -> Request:
    asked = {
        "task": "train", "round": 1, "arm": "per-image", "num_classes": 19, "num_rounds": 4,
    }  # fmt: skip
    return fake_nodes.request(**asked | changes)


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_what_was_agreed_is_permitted(task: str) -> None:
    wanted = Permit(SHARDS, private=None, private_rate=0.0, limits=LIMITS[task])
    assert permit(policy(), request(task=task)) == wanted
    assert permit(policy(), request(task=task, arm="kept", embedding="frozen")) == wanted


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize("asked", KINDS)
@pytest.mark.parametrize("kept", KINDS)
def test_another_treatment_of_the_embedding_is_refused(kept: str, asked: str, task: str) -> None:
    model = ModelConfig(invariant="values" if asked == "invariant" else None)
    wanted = request(arm="arm", embedding=asked, task=task, model=model)
    if asked == kept:
        private = PRIVATE if kept == "private" else None
        assert permit(policy_of(kept), wanted) == Permit(SHARDS, private, 0.0, LIMITS[task])
        return
    with pytest.raises(
        RefusedError, match=f"agreed to the embedding {kept}, got a request for {asked}$"
    ):
        permit(policy_of(kept), wanted)


def test_an_invariant_embedding_that_is_none_is_refused() -> None:
    """The coordinator's model settings say what the embedding reads."""
    with pytest.raises(RefusedError, match="agreed to another model"):
        permit(policy_of("invariant"), request(arm="arm", embedding="invariant"))


def test_private_folder_and_rate_are_the_policys(tmp_path: Path) -> None:
    folders = {0: PRIVATE, 3: PRIVATE / "3"}
    shards = dict.fromkeys(folders, SHARDS)
    arm = arm_policy("private", shards=shards, private=folders, private_rate=0.1)
    save_policy(policy(arms={"arm": arm}), tmp_path / "node.yaml")
    for seed, folder in folders.items():
        asked = request(arm="arm", embedding="private", seed=seed)
        found = permit(load_policy(tmp_path / "node.yaml"), asked)
        assert found == Permit(SHARDS, folder, 0.1, LIMITS["train"])


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ({"embedding": "private"}, "needs a private folder for each seed"),
        ({"embedding": "private", "private": {}}, "needs a private folder for each seed"),
        ({"embedding": "private", "private": {1: "/p"}}, "needs a private folder for each seed"),
        ({"embedding": "uploaded", "private": {0: "/p"}}, "only allowed with embedding private"),
        ({"embedding": "frozen", "private_rate": 0.1}, "only allowed with embedding private"),
        ({"embedding": "private", "private": {0: "/p"}, "private_rate": -1}, "greater than or"),
        ({"embedding": "invariant"}, "needs model.invariant"),
        ({"embedding": "mine"}, "'uploaded', 'frozen', 'adapted', 'private' or 'invariant'"),
    ],
)
def test_policy_that_contradicts_itself_is_one_line(
    arm: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    whole = arm_policy().model_dump(mode="json", exclude={"embedding", "private"})
    arms = {"arm": whole | {"shards": {0: ["/s"]}} | arm}
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump({"client": "aachen", "role": "train", "arms": arms}), "utf-8")
    with pytest.raises(InputError, match=reason) as caught:
        load_policy(path)
    assert "arms.arm" in str(caught.value) and "\n" not in str(caught.value)


def test_val_node_evaluates_and_never_trains() -> None:
    assert permit(policy("val"), request(task="evaluate")).shards == SHARDS
    with pytest.raises(RefusedError, match="this node only evaluates"):
        permit(policy("val"), request(task="train"))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"arm": "plain"}, "the owner has not agreed to arm plain"),
        ({"arm": ""}, "the owner has not agreed to arm"),
        ({"arm": "kept"}, "agreed to the embedding frozen, got a request for uploaded"),
        ({"embedding": "frozen"}, "agreed to the embedding uploaded, got a request for frozen"),
        ({"embedding": "adapted"}, "got a request for adapted"),
        ({"seed": 1}, "was prepared for this seed"),
        ({"seed": -1}, "was prepared for this seed"),
    ],
)
@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_refusals(asked: dict[str, Any], reason: str, task: str) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        permit(policy(), request(task=task, **asked))
    text = str(caught.value)
    assert text.startswith("refused: ")
    assert "vault" not in text and "secret" not in text and "\n" not in text


ASKED = {
    "one image a step": ({"training": TrainingConfig(batch_size=1)}, "other training settings"),
    "one step that counts": (
        {"training": TrainingConfig(poly_power=1e6)},
        "other training settings",
    ),
    "another optimiser": ({"training": TrainingConfig(optimizer="sgd")}, "other training settings"),
    "threads": ({"training": TrainingConfig(num_threads=1024)}, "other training settings"),
    "patches of a pixel": ({"model": ModelConfig(patch_size=1)}, "agreed to another model"),
    "wide and shallow": ({"model": ModelConfig(embed_dim=512, depth=1)}, "another model"),
    "deep": ({"model": ModelConfig(depth=64)}, "agreed to another model"),
    "batch statistics": ({"model": ModelConfig(norm="batch")}, "agreed to another model"),
    "another canonical form": ({"model": ModelConfig(invariant="pixels")}, "another model"),
    "200 classes": ({"num_classes": 200}, "agreed to 19 classes, got a request for 200"),
    "a class a pixel": ({"num_classes": 1024}, "agreed to 19 classes, got a request for 1024"),
    "many rounds": ({"num_rounds": 10**6, "round": 4}, "agreed to another number of rounds"),
    "a late round": ({"round": 10**6}, "to 4, got 1000000"),
    "a round before all": ({"round": -5}, "to 4, got -5"),
    "the round after the last": ({"round": 5}, "to 4, got 5"),
}
"""What a coordinator asked for that read label maps, or could have: in words, and how it ends."""


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize(("asked", "reason"), ASKED.values(), ids=ASKED)
def test_what_was_not_agreed_is_refused_in_training_and_evaluation(
    asked: dict[str, Any], reason: str, task: str, tmp_path: Path
) -> None:
    save_policy(policy(), tmp_path / "policy.yaml")
    own = load_policy(tmp_path / "policy.yaml")
    assert permit(own, request(task=task)).shards == SHARDS
    assert permit(own, request(task=task, round=4)).shards == SHARDS
    with pytest.raises(RefusedError, match=reason):
        permit(own, request(task=task, **asked))


def test_what_training_starts_from_is_scored_and_not_trained_on() -> None:
    assert permit(policy(), request(task="evaluate", round=0)).shards == SHARDS
    with pytest.raises(RefusedError, match="to 4, got 0"):
        permit(policy(), request(task="train", round=0))


def test_where_the_weights_come_from_is_no_part_of_the_model() -> None:
    """Two machines have the same file in different places."""
    own = policy(arms={"per-image": arm_policy(model=ModelConfig(weights="/mine.safetensors"))})
    for weights in (None, "shipped", "/theirs.safetensors"):
        assert permit(own, request(model=ModelConfig(weights=weights))).shards == SHARDS


def test_a_node_that_never_evaluates_trains() -> None:
    own = policy(evaluate="never")
    assert permit(own, request(task="train")).shards == SHARDS
    with pytest.raises(RefusedError, match="allows no evaluation"):
        permit(own, request(task="evaluate"))


def test_too_few_held_out_images_are_not_evaluated() -> None:
    check_heldout(policy(min_heldout=3), 3)
    with pytest.raises(
        RefusedError, match="at least 3 held-out images for an evaluation, and there are 2"
    ):
        check_heldout(policy(min_heldout=3), 2)


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize("run", ["", "b" * 97, "a" * 96])
def test_a_node_of_one_run_serves_no_other(run: str, task: str) -> None:
    own = policy(run="a" * 97)
    assert permit(own, request(task=task, run="a" * 97)).shards == SHARDS
    assert permit(policy(), request(task=task, run=run)).shards == SHARDS
    with pytest.raises(RefusedError, match="was prepared for another run") as caught:
        permit(own, request(task=task, run=run))
    assert len(str(caught.value)) < 170  # the coordinator cuts longer reasons


def test_limits_are_those_that_were_agreed() -> None:
    arm = arm_policy(num_rounds=10, evaluations=4, models=3, spare=2)
    own = policy(arms={"per-image": arm})
    asked = {task: permit(own, request(task=task, num_rounds=10)).limits for task in LIMITS}
    assert asked == {"train": Limits(3, 12), "evaluate": Limits(5, 14)}
    none = policy(arms={"per-image": arm_policy(evaluations=0, spare=2)})
    assert permit(none, request(task="evaluate")).limits == Limits(0, 0)


def test_policy_file_is_the_owners_alone_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "node.yaml"
    save_policy(policy(), path)
    assert load_policy(path) == policy()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_paths_in_the_policys_own_folder_move_with_it(tmp_path: Path) -> None:
    """Those elsewhere stay; a relative path never begins at the process's own folder."""
    home, away = tmp_path / "home", tmp_path / "away"
    arm = arm_policy(
        "private",
        shards={0: (home / "shards" / "a", *SHARDS)},
        training_shards={0: (home / "shards" / "b",)},
        private={0: home / "private" / "c"},
    )
    written = NodePolicy(client="a", role="train", arms={"arm": arm})
    save_policy(written, home / "policy.yaml")
    assert str(tmp_path) not in (home / "policy.yaml").read_text("utf-8")
    assert load_policy(home / "policy.yaml") == written
    home.rename(away)
    found = load_policy(away / "policy.yaml")
    assert found.arms["arm"].shards == {0: (away / "shards" / "a", *SHARDS)}
    assert found.arms["arm"].training_shards == {0: (away / "shards" / "b",)}
    assert found.arms["arm"].private == {0: away / "private" / "c"}


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_who_has_withdrawn_refuses_everything(task: str) -> None:
    gone = policy().model_copy(update={"withdrawn": "aachen has withdrawn"})
    policy().require_consent()
    for refuse in (gone.require_consent, lambda: permit(gone, request(task=task))):
        with pytest.raises(RefusedError, match=r"^refused: aachen has withdrawn$"):
            refuse()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("client: aachen\nrole: train\narms: {}\nkey: aa\n", "unknown key 'key'"),
        ("client: aachen\nrole: boss\narms: {}\n", "role: .*'train' or 'val'"),
        ("[1, 2]\n", "expected a mapping of keys, got list"),
        ("a: [\n", "not YAML"),
        ("client: aachen\nrole: val\n", "arms"),
    ],
)
def test_policy_of_another_form_is_one_line(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    with pytest.raises(InputError, match=reason) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_policy_that_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    save_policy(policy(), path)
    path.chmod(mode)
    with pytest.raises(
        InputError, match=f"others may write this policy .mode {mode:04o}"
    ) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)


def test_missing_policy_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_policy_is_found_by_the_node_or_by_the_simulation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(NODES_VARIABLE, "/nodes")
    assert find_policy({"policy": "/mine.yaml", "partition-id": 3}) == Path("/mine.yaml")
    assert find_policy({"partition-id": 3}) == policy_path(Path("/nodes"), 3)
    assert policy_path(Path("/nodes"), 3) != policy_path(Path("/nodes"), 13)
    assert find_state({"policy": "/mine.yaml", "state": "/mine"}) == Path("/mine")
    assert find_state({"partition-id": 3}) == state_path(Path("/nodes"), 3)
    assert state_path(Path("/nodes"), 3).parent == Path("/nodes/state")


def test_a_node_without_a_state_folder_is_told_how_to_name_it() -> None:
    with pytest.raises(InputError, match="no state folder: start it with --node-config 'policy="):
        find_state({"policy": "/mine.yaml"})


@pytest.mark.parametrize(("config", "folder"), [({}, "/nodes"), ({"partition-id": 0}, None)])
def test_node_without_policy_is_told_both_ways_out(
    config: dict[str, object], folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NODES_VARIABLE, raising=False)
    if folder:
        monkeypatch.setenv(NODES_VARIABLE, folder)
    for find in (find_policy, find_state):
        with pytest.raises(InputError) as caught:
            find(config)
        assert "--node-config 'policy=" in str(caught.value)
        assert f"--prepare) and set {NODES_VARIABLE}" in str(caught.value)


def test_a_policy_behind_a_link_is_refused(tmp_path: Path) -> None:
    save_policy(policy(), tmp_path / "real.yaml")
    (tmp_path / "policy.yaml").symlink_to(tmp_path / "real.yaml")
    with pytest.raises(InputError, match=r"policy\.yaml: is a link"):
        load_policy(tmp_path / "policy.yaml")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_policy_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(InputError, match="not a regular file"):
        load_policy(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_policy_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    save_policy(policy(), path)
    os.chown(path, 12345, -1)
    with pytest.raises(InputError, match="belongs to user 12345, not to root, you or the owner"):
        load_policy(path)
    os.chown(tmp_path, 12345, -1)  # whose folder it is may also write what lies there
    assert load_policy(path) == policy()


@must_fail.of("policy")
def test_a_policy_that_is_none_is_refused(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    save_policy(policy(), path)
    assert load_policy(path) == policy()
    path.write_bytes(vector.content)
    with pytest.raises(InputError) as caught:
        load_policy(path)
    assert vector.error in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


CONTROL = VECTORS / "control"


def asked_in(text: bytes | str) -> Request:
    """A request as the vectors write it: JSON of what a message carries, without weights."""
    values = json.loads(text)
    model = ModelConfig.model_validate(values.pop("model"))
    training = TrainingConfig.model_validate(values.pop("training"))
    return Request(**values, model=model, training=training)


@must_fail.of("request_against_policy")
def test_a_request_that_the_policy_of_the_vectors_refuses(
    vector: must_fail.Vector, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes((CONTROL / "policy.yaml").read_bytes())
    path.chmod(0o600)
    own = load_policy(path)
    good = asked_in((CONTROL / "request_against_policy.json").read_text("utf-8"))
    assert permit(own, good).shards == (tmp_path / "shards" / "a",)
    with pytest.raises(RefusedError) as caught:
        permit(own, asked_in(vector.content))
    assert vector.error in str(caught.value)
    assert str(caught.value).startswith("refused: ") and "shards" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        np.array([0.0, 1.01e6], np.float32),
        np.array([0.0, -1.01e6], np.float32),
        np.array(1e300),
        np.array([0, np.iinfo(np.int64).min]),
        np.array([0, 10**15], np.uint64),
        np.array([np.inf, 0.0], np.float16),
        np.array([0.0, np.nan, 1.0], np.float32),
    ],
)
def test_weights_beyond_the_bound_are_refused_of_whatever_type_they_are(value: Any) -> None:
    """An array of whole numbers is loaded into a weight as well."""
    with pytest.raises(RefusedError, match=r"^refused: expected .* in backbone\.pos_embed"):
        check_weights({"norm.weight": np.ones(3, np.float32), "backbone.pos_embed": value})


def test_weights_up_to_the_bound_and_counters_of_steps_are_taken() -> None:
    check_weights({})
    check_weights(
        {
            "empty": np.zeros((0, 3), np.float32),
            "norm.running_var": np.array([MAX_WEIGHT, 0.0], np.float32),
            "backbone.pos_embed": np.array([-MAX_WEIGHT]),
            "norm.num_batches_tracked": np.array(10**8),
        }
    )


def test_shipped_weights_are_far_below_the_bound() -> None:
    largest = max(
        float(np.abs(value.astype(float)).max())
        for path in Path(fl_ppseg.__file__).parent.glob("weights/*.safetensors")
        for value in load_file(path).values()
    )
    assert 10.0 < largest < 10.1


def test_a_small_file_takes_little_memory_whatever_it_may_hold(tmp_path: Path) -> None:
    """The bound on start weights is 2 GiB; nodes may have less."""
    path = tmp_path / "weights"
    path.write_bytes(b"0" * 3 * 2**20)
    tracemalloc.start()
    try:
        assert len(read_owned_bytes(path, 2**31, "file")) == 3 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
