"""The owner's policy: what the coordinator may ask for, and nothing that would weaken it."""

import stat
from pathlib import Path
from typing import Any

import fake_nodes
import pytest
import yaml

from clients.policy import (
    NODES_VARIABLE,
    ArmPolicy,
    NodePolicy,
    Permit,
    RefusedError,
    find_policy,
    load_policy,
    permit,
    policy_path,
    save_policy,
)
from fl_ppseg.config import ModelConfig, TrainingConfig
from fl_ppseg.errors import InputError
from fl_ppseg.messages import Request

SHARDS = (Path("/vault/aachen/shards/secret-name"),)
PRIVATE = Path("/vault/aachen/private/secret-name")
KINDS = ("uploaded", "frozen", "adapted", "private", "invariant")


def policy(role: Any = "train") -> NodePolicy:
    return NodePolicy(
        city="aachen",
        role=role,
        arms={
            "per-image": ArmPolicy(embedding="uploaded", shards={0: SHARDS}),
            "kept": ArmPolicy(embedding="frozen", shards={0: SHARDS, 7: ()}),
        },
    )


def policy_of(kind: Any) -> NodePolicy:
    """A node with one arm, whose embedding is treated so."""
    private = {0: PRIVATE} if kind == "private" else None
    arm = ArmPolicy(embedding=kind, shards={0: SHARDS}, private=private)
    return NodePolicy(city="aachen", role="train", arms={"arm": arm})


def request(**changes: Any) -> Request:
    asked = {"task": "train", "round": 1, "arm": "per-image", "num_classes": 19}
    return fake_nodes.request(**asked | changes)


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_what_was_agreed_is_permitted(task: str) -> None:
    wanted = Permit(SHARDS, private=None, private_rate=0.0)
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
        assert permit(policy_of(kept), wanted) == Permit(SHARDS, private, 0.0)
        return
    with pytest.raises(RefusedError, match=f"keeps the embedding {kept}, asked was {asked}$"):
        permit(policy_of(kept), wanted)


def test_an_invariant_embedding_that_is_none_is_refused() -> None:
    """The coordinator's model settings say what the embedding reads."""
    with pytest.raises(RefusedError, match="the embedding asked for is not invariant"):
        permit(policy_of("invariant"), request(arm="arm", embedding="invariant"))


def test_private_folder_and_rate_are_the_policys(tmp_path: Path) -> None:
    folders = {0: PRIVATE, 3: PRIVATE / "3"}
    shards = dict.fromkeys(folders, SHARDS)
    arm = ArmPolicy(embedding="private", shards=shards, private=folders, private_rate=0.1)
    node = NodePolicy(city="aachen", role="train", arms={"arm": arm})
    save_policy(node, tmp_path / "node.yaml")
    for seed, folder in folders.items():
        asked = request(arm="arm", embedding="private", seed=seed)
        assert permit(load_policy(tmp_path / "node.yaml"), asked) == Permit(SHARDS, folder, 0.1)


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ({"embedding": "private"}, "wants a private folder for each seed"),
        ({"embedding": "private", "private": {}}, "wants a private folder for each seed"),
        ({"embedding": "private", "private": {1: "/p"}}, "wants a private folder for each seed"),
        ({"embedding": "uploaded", "private": {0: "/p"}}, "belong to embedding private"),
        ({"embedding": "frozen", "private_rate": 0.1}, "belong to embedding private"),
        ({"embedding": "private", "private": {0: "/p"}, "private_rate": -1}, "greater than or"),
        ({"embedding": "mine"}, "'uploaded', 'frozen', 'adapted', 'private' or 'invariant'"),
    ],
)
def test_policy_that_contradicts_itself_is_one_line(
    arm: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    arms = {"arm": {"shards": {0: ["/s"]}} | arm}
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump({"city": "aachen", "role": "train", "arms": arms}), "utf-8")
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
        ({"arm": "kept"}, "the owner keeps the embedding frozen, asked was uploaded"),
        ({"embedding": "frozen"}, "the owner keeps the embedding uploaded, asked was frozen"),
        ({"embedding": "adapted"}, "asked was adapted"),
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


def test_other_settings_of_the_training_than_agreed_are_refused(tmp_path: Path) -> None:
    """One image a step, or a schedule of which one step counts, would single an image out."""
    arm = ArmPolicy(embedding="uploaded", shards={0: SHARDS}, training=TrainingConfig())
    save_policy(NodePolicy(city="aachen", role="train", arms={"per-image": arm}), tmp_path / "p")
    own = load_policy(tmp_path / "p")
    assert permit(own, request()).shards == SHARDS
    singled: list[dict[str, Any]] = [{"batch_size": 1}, {"poly_power": 1e6}, {"optimizer": "sgd"}]
    for settings in singled:
        asked = TrainingConfig.model_validate(settings)
        with pytest.raises(RefusedError, match="refused: the owner has agreed to other settings"):
            permit(own, request(training=asked))
        assert permit(own, request(training=asked, task="evaluate")).shards == SHARDS


def test_another_number_of_rounds_than_agreed_is_refused(tmp_path: Path) -> None:
    arm = ArmPolicy(embedding="uploaded", shards={0: SHARDS}, num_rounds=4)
    path = tmp_path / "policy.yaml"
    save_policy(NodePolicy(city="aachen", role="train", arms={"per-image": arm}), path)
    own = load_policy(path)
    assert permit(own, request(round=4, num_rounds=4)).shards == SHARDS
    with pytest.raises(RefusedError, match="refused: the owner has agreed to another number of"):
        permit(own, request(round=4, num_rounds=1_000_000))
    assert permit(own, request(num_rounds=9, task="evaluate")).shards == SHARDS


@pytest.mark.parametrize("round", [-1, 0, 5])
def test_rounds_that_are_none_are_refused(round: int) -> None:
    with pytest.raises(RefusedError, match=f"refused: there is no round {round} of 4"):
        permit(policy(), request(round=round, num_rounds=4))


def test_policy_file_is_the_owners_alone_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "node.yaml"
    save_policy(policy(), path)
    assert load_policy(path) == policy()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_paths_in_the_policys_own_folder_move_with_it(tmp_path: Path) -> None:
    """Those elsewhere stay; a relative path never begins at the process's own folder."""
    home, away = tmp_path / "home", tmp_path / "away"
    arm = ArmPolicy(
        embedding="private",
        shards={0: (home / "shards" / "a", *SHARDS)},
        training_shards={0: (home / "shards" / "b",)},
        private={0: home / "private" / "c"},
    )
    written = NodePolicy(city="a", role="train", log=home / "node.log", arms={"arm": arm})
    save_policy(written, home / "policy.yaml")
    assert str(tmp_path) not in (home / "policy.yaml").read_text("utf-8")
    assert load_policy(home / "policy.yaml") == written
    home.rename(away)
    found = load_policy(away / "policy.yaml")
    assert found.log == away / "node.log"
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
        ("city: aachen\nrole: train\narms: {}\nkey: aa\n", "unknown key 'key'"),
        ("city: aachen\nrole: boss\narms: {}\n", "role: .*'train' or 'val'"),
        ("[1, 2]\n", "wanted a mapping of keys, got list"),
        ("a: [\n", "not YAML"),
        ("city: aachen\nrole: val\n", "arms"),
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


@pytest.mark.parametrize(("config", "folder"), [({}, "/nodes"), ({"partition-id": 0}, None)])
def test_node_without_policy_is_told_both_ways_out(
    config: dict[str, object], folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NODES_VARIABLE, raising=False)
    if folder:
        monkeypatch.setenv(NODES_VARIABLE, folder)
    with pytest.raises(InputError) as caught:
        find_policy(config)
    assert "--node-config 'policy=" in str(caught.value)
    assert f"--prepare) and set {NODES_VARIABLE}" in str(caught.value)
