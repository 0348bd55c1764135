"""What an owner agrees to: in its own words, above its own floor, whoever sent the config."""

import sys
from pathlib import Path
from typing import Any

import must_fail
import pytest
import yaml
from small_owner import ASKED, DERIVED, Owner, fails, files_in

from clients.vault.consent import agreement
from clients.vault.consent.agreement import agreement_hash, confirm, is_packaged
from clients.vault.consent.floor import Floor, check_floor, default_text, make_floor, read_floor
from clients.vault.consent.terms import terms_of
from clients.vault.layout import FLOOR
from fl_ppseg.config.loading import arms_of, builtin_arms, configs_dir, load_config
from fl_ppseg.system.errors import InputError

EVIL: dict[str, Any] = {
    "note": "ours; a patch embedding whose output is the same under every key",
    "key_mode": "per-image",
    "cipher": "restricted-shuffle",
    "block_scope": "common",
    "key_lifetime": "disposable",
}
"""What a coordinator sent under the name of an arm that owners trust."""


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    owner = Owner(scenes, tmp_path, capsys)
    assert owner.keys("new")[0] == 0
    return owner


def once(owner: Owner, *options: object) -> tuple[int, str, str]:
    """`encrypt` without anybody who agrees."""
    return owner.keys("encrypt", *owner.encrypt_options(), *options)


# Names.


def test_a_config_that_redefines_an_arm_of_the_package_is_refused(owner: Owner) -> None:
    """A trusted name stood for SSIM 0.62, not 0.06, and every check of the owner's was good."""
    name = "per-image-invariant"
    owner.configure(arms=[name], arm_table={name: EVIL})
    fails(once(owner), f"arm_table.{name}: redefines an arm of fl_ppseg")
    owner.configure(arms=["per-image"], arm_table={name: EVIL})  # not even beside others
    fails(once(owner), f"arm_table.{name}: redefines an arm of fl_ppseg")
    assert not owner.node.exists()


def test_a_config_may_repeat_an_arm_of_the_package_as_it_is(owner: Owner) -> None:
    own = builtin_arms()["per-image"].model_dump(mode="json")
    owner.configure(arms=["per-image"], arm_table={"per-image": own})
    assert owner.encrypt()[0] == 0


# Words.


def test_what_is_agreed_to_is_said_in_words(owner: Owner) -> None:
    owner.configure(
        training={"batch_size": 3, "local_epochs": 2, "optimizer": "sgd"},
        federation={"num_rounds": 12, "last_rounds": 1, "evaluate_every": 5},
    )
    _, out, _ = once(owner)
    for line in (
        "What aachen (train) agrees to:",
        "6 to train on, 1 held out, at 32x64 pixels (resize), 2 view(s) each",
        "labels: stored on the node unencrypted",
        "arm per-client-private (of fl_ppseg), federated:",
        "encrypted with shuffle, all blocks of an image alike; one key of yours for all images, ",
        "private: adapted to your key and reveals it, never leaves the node",
        "arm per-image (of fl_ppseg), federated:",
        "one key per image, deleted at once: nobody can decrypt",
        "uploaded: trained on the node, and leaves it with each update",
        "arm per-image-derived (of the config's own), federated:",
        "model, 19 classes: backbone vit, patch_size 8, embed_dim 32, depth 2, num_heads 2",
        "optimizer sgd, ",
        "batch_size 3, local_epochs 2",
        "12 round(s); what leaves the node in each: all weights except the patch embedding's",
        "evaluated at the start and after 3 round(s), one model each; what leaves the node each ",
        "the counts over all 1 held-out",
        "they do not leave it, but updates and counts reveal something about them",
        "3 more question(s) of each kind and seed",
        "3 arm(s) and 1 seed(s) make at most 45 updates and 21 counts",
        "start weights: drawn from the seed",
        "weights: refused if one lies further from the start than ",
        "further than that per round from those that the node accepted before; the node keeps",
        "no client trains on more than 30 images); statistics of batch normalisation: up to 1e+06",
        "can train weights for that which lie as near to the start as honest ones",
        "your floor: own_arms True",
    ):
        assert line in out, line
    assert "WARNING: a step has 96 tokens" not in out


LABELS = "per-image-invariant-labels"


def test_labels_that_move_with_the_pixels_are_agreed_to_as_such(owner: Owner) -> None:
    owner.configure(arms=[LABELS])
    _, out, _ = once(owner)
    told = f"labels for {LABELS}: stored in the order of the encrypted pixels, which tells what "
    assert told in out and "labels: stored on the node unencrypted" not in out
    assert "pixel_head True" in out


def test_a_node_never_gets_label_maps_in_two_orders(owner: Owner) -> None:
    owner.configure(arms=["per-image-invariant", LABELS])
    told = f"arm {LABELS} encrypts label maps that arm per-image-invariant stores as they are"
    fails(once(owner), told)
    assert not owner.node.exists()


def test_nor_by_a_later_call(owner: Owner) -> None:
    """Arms of earlier calls stay in the node folder."""
    owner.configure(arms=[LABELS])
    assert owner.encrypt()[0] == 0
    owner.configure(arms=["per-image-invariant"])
    told = f"holds label maps of arm {LABELS} in another order"
    fails(once(owner), told)
    assert list(owner.policy.arms) == [LABELS]
    owner.configure(arms=["per-image-invariant-spatial-labels"])
    assert owner.encrypt()[0] == 0
    assert len(owner.policy.arms) == 2


def test_a_model_wider_than_a_step_has_tokens_is_warned_of(owner: Owner) -> None:
    owner.configure(model={"patch_size": 8, "embed_dim": 128, "weights": None})
    assert "WARNING: a step has 64 tokens and the model is 128 wide" in once(owner)[1]


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"batch_size": 3}},
        {"training": {"batch_size": 2, "learning_rate": 0.1}},
        {"federation": {"num_rounds": 3, "last_rounds": 1}},
        {"federation": {"num_rounds": 2, "last_rounds": 1, "evaluate_every": 9}},
        {"model": {"patch_size": 8, "embed_dim": 64, "weights": None}},
        {"data": {"image_size": [32, 64], "num_views": 1}},
        {"seeds": [1]},
        {"arms": ["per-image"]},
        {"arm_table": {"per-image-derived": DERIVED | {"block_scope": "per-block"}}},
    ],
)
def test_whatever_is_asked_otherwise_is_another_agreement(
    change: dict[str, Any], owner: Owner
) -> None:
    before = owner.agreement()
    owner.configure(**change)
    fails(once(owner, *before), "it is another agreement now")
    assert owner.agreement() != before
    assert not owner.node.exists()


def test_the_owners_floor_is_a_part_of_what_is_agreed_to(owner: Owner) -> None:
    before = owner.agreement()
    owner.lower_floor(max_rounds=9)
    assert owner.agreement() != before


def test_the_same_config_elsewhere_is_the_same_agreement(owner: Owner) -> None:
    before = owner.agreement()
    owner.config = owner.config.rename(owner.place / "other.yaml")
    assert owner.agreement() == before and before


# Agreeing.


def test_nobody_at_a_terminal_has_to_give_the_hash(owner: Owner) -> None:
    status, out, error = once(owner)
    fails((status, out, error), "nobody has agreed to this yet; read the agreement above, then add")
    found = ASKED.search(error)
    assert found is not None and not owner.node.exists()
    shown = out[out.index("What aachen") :].rstrip("\n")
    assert found[0] == f"--agree {agreement_hash(shown)}"
    assert once(owner, *found[0].split())[0] == 0
    fails(once(owner), "nobody has agreed")  # nor the next time


@must_fail.of("agree")
def test_another_hash_is_no_agreement(vector: must_fail.Vector) -> None:
    """`<hash>` in a vector stands for the right one."""
    text = "What aachen agrees to"
    right = agreement_hash(text)
    confirm(text, right, is_asked=True)
    forms = {"<hash>": right, "<HASH>": right.upper(), "<hash[:20]>": right[:20]}
    given = vector.content.decode("utf-8")
    for form, value in (forms | {"<hash[:-1]>": right[:-1]}).items():
        given = given.replace(form, value)
    with pytest.raises(InputError) as caught:
        confirm(text, given, is_asked=True)
    assert vector.error in str(caught.value) and str(caught.value).isprintable()


def test_another_hash_encrypts_nothing(owner: Owner) -> None:
    fails(once(owner, "--agree", "0" * 40), "it is another agreement now")
    assert not owner.node.exists()


@pytest.mark.parametrize(("answer", "status"), [("yes", 0), ("YES \n", 0), ("", 2), ("y", 2)])
def test_at_a_terminal_there_is_a_question(
    answer: str, status: int, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(agreement, "input", lambda _: answer, raising=False)
    outcome = once(owner, "--arms", "per-image")
    assert outcome[0] == status
    assert owner.node.exists() == (status == 0)
    if status:
        fails(outcome, "not agreed to: nothing was encrypted")


def test_a_config_of_the_package_is_shown_and_asks_nobody(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(owner.place)
    owner.config = Path("quick")
    status, out, error = once(owner, "--arms", "per-image", "--dry-run")
    assert status == 0, error
    assert "What aachen (train) agrees to:" in out
    assert is_packaged("quick") and is_packaged("default")
    assert not is_packaged(str(configs_dir() / "quick.yaml")) and not is_packaged("config.yaml")
    (owner.place / "quick").write_text("name: of the coordinator\n")
    assert not is_packaged("quick")


# The floor.


BELOW: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another cipher": (
        {"arms": ["mine"], "arm_table": {"mine": EVIL}},
        {},
        "cipher restricted-shuffle, but your floor has ciphers: shuffle, shuffle+negative-",
    ),
    "own arms": ({}, {"own_arms": False}, "is defined by the config, but your floor has own_arms"),
    "key mode": ({}, {"key_modes": ["per-image"]}, "key_mode per-client, but your floor has"),
    "scope": ({}, {"block_scopes": ["per-block"]}, "block_scope common, but your floor has block"),
    "lifetime": ({}, {"key_lifetimes": ["disposable"]}, "key_lifetime derived, but your floor"),
    "embedding": ({}, {"embeddings": ["invariant"]}, "embedding private, but your floor has emb"),
    "patch": ({}, {"min_patch_size": 16}, "patch_size 8, but your floor has min_patch_size: 16"),
    "batch": (
        {"training": {"batch_size": 1}},
        {},
        "batch_size 1, but your floor has min_batch_size: 2",
    ),
    "share of a pass": (
        {"training": {"pass_fraction": 0.01}},
        {},
        "pass_fraction 0.01, but your floor has min_pass_fraction: 1.0",
    ),
    "rounds": (
        {"federation": {"num_rounds": 10_000, "last_rounds": 1, "evaluate_every": 10_000}},
        {},
        "num_rounds 10000, but your floor has max_rounds: 2000",
    ),
    "evaluations": ({}, {"max_evaluations": 0}, "evaluations 2, but your floor has max_evalua"),
}


@pytest.mark.parametrize(("changes", "floor", "reason"), BELOW.values(), ids=BELOW)
def test_a_config_below_the_floor_is_refused_and_names_field_floor_and_file(
    changes: dict[str, Any], floor: dict[str, Any], reason: str, owner: Owner
) -> None:
    path = owner.lower_floor(**floor)
    owner.configure(
        **{"federation": {"num_rounds": 2, "last_rounds": 1, "evaluate_every": 9}} | changes
    )
    outcome = owner.encrypt()
    fails(outcome, reason)
    assert str(path) in outcome[2] and outcome[2].startswith("error: arm ")
    assert not owner.node.exists() and "manifests" not in {p.name for p in owner.vault.iterdir()}


def test_the_floor_enters_the_policy_and_what_is_stricter_there_stays(owner: Owner) -> None:
    owner.lower_floor(min_heldout=5)
    assert owner.encrypt()[0] == 0
    assert (owner.policy.min_heldout, owner.policy.evaluate) == (5, "agreed")
    owner.lower_floor(evaluate="never")
    status, out, _ = owner.encrypt()
    assert status == 0 and "never evaluated on the held-out images, because of your floor" in out
    assert (owner.policy.min_heldout, owner.policy.evaluate) == (5, "never")
    owner.lower_floor()
    assert owner.encrypt()[0] == 0
    assert (owner.policy.min_heldout, owner.policy.evaluate) == (5, "never")


@pytest.mark.parametrize(
    ("floor", "reason"),
    [
        ({"evaluate": "never"}, "your floor has evaluate: never"),
        ({"min_heldout": 3}, "2 held-out images, but your floor has min_heldout: 3"),
    ],
)
def test_a_val_client_that_could_answer_nothing_is_refused(
    floor: dict[str, Any], reason: str, owner: Owner
) -> None:
    assert owner.keys("new", client="lindau")[0] == 0
    path = owner.lower_floor("lindau", **floor)
    outcome = owner.encrypt("--split", "val", client="lindau")
    fails(outcome, reason)
    assert str(path) in outcome[2]


def test_a_new_vault_has_a_floor_with_each_field_explained(owner: Owner) -> None:
    assert owner.call("new", "--vault", owner.vaults, "--client", "bremen")[0] == 0
    path = owner.vaults / "bremen" / FLOOR
    assert read_floor(path.parent) == Floor()
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text("utf-8")
    for name, field in Floor.model_fields.items():
        assert f"\n# {' '.join(str(field.description).split())}\n{name}: " in text
    assert make_floor(path.parent) is None
    path.write_text("min_heldout: 9\n")
    status, out, _ = owner.keys("floor", client="bremen")
    assert status == 0 and "min_heldout: 9" in out and "made" not in out


def test_without_a_floor_nothing_is_encrypted_until_there_is_one(owner: Owner) -> None:
    (owner.vault / FLOOR).unlink()
    fails(owner.encrypt(), f"{owner.vault / FLOOR}: missing")
    status, out, _ = owner.keys("floor")
    assert status == 0 and "written, with the defaults" in out
    assert (owner.vault / FLOOR).read_text("utf-8") == default_text()


def test_a_floor_behind_a_link_or_open_to_others_is_refused(owner: Owner) -> None:
    path = owner.vault / FLOOR
    path.chmod(0o666)
    fails(owner.encrypt(), "others may write this floor (mode 0666)")
    path.chmod(0o600)
    path.rename(owner.place / "elsewhere")
    path.symlink_to(owner.place / "elsewhere")
    fails(owner.encrypt(), "is a link; expected a regular file, so put the floor itself there")


def test_every_config_of_the_package_is_above_the_default_floor() -> None:
    """As far as an owner can hand over its arms at all."""
    floor = Floor()
    for path in configs_dir().glob("*.yaml"):
        if path.stem == "arms":
            continue
        config = load_config(path.stem)
        for name, arm in arms_of(config).items():
            if arm.key_mode == "shared" or arm.training == "centralised":
                continue
            terms = terms_of(config, name, arm, 19, config.model.patch_size or 16, "train", 1)
            try:
                check_floor(floor, path, name, arm, terms, "train")
            except InputError as error:
                pytest.fail(f"{path.stem}: {error}")


@must_fail.of("floor")
def test_a_floor_of_another_form_is_refused(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / FLOOR
    path.write_bytes(default_text().encode("utf-8"))
    assert read_floor(tmp_path) == Floor()
    path.write_bytes(vector.content)
    with pytest.raises(InputError) as caught:
        read_floor(tmp_path)
    assert vector.error in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_refusals_leave_no_trace(owner: Owner) -> None:
    before = files_in(owner.place)
    owner.agreement()
    once(owner, "--agree", "0" * 40)
    assert files_in(owner.place) == before


def test_the_default_floor_is_yaml_of_every_field() -> None:
    assert yaml.safe_load(default_text()) == Floor().model_dump(mode="json")
