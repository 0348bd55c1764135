"""`python -m clients.vault follow`: views ahead of a node, never more than its owner agreed to."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_federation as small
from deployed import Background, command
from fake_nodes import request
from flwr.app import Context, Message, MessageType, RecordDict
from must_fail import Vector, of
from small_owner import Owner, fails, files_in

from clients import handlers
from clients.client_app import app
from clients.policy.fresh_views import ASKED
from clients.policy.ledger import make_ledger
from clients.vault.export import preflight, rounds
from clients.vault.export.rounds import parse_asked
from fl_ppseg.config.loading import load_config
from fl_ppseg.data.manifest import round_digest
from fl_ppseg.data.shard import open_shard
from fl_ppseg.data.shard_draft import ShardDraft
from fl_ppseg.federation.messages import pack_request
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError

NUM_ROUNDS, EPOCHS = 3, 2
DATA = small.SETTINGS["data"] | {"fresh_views": True}
ARMS = ("per-client-private", "per-image", "per-image-derived")


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    owner = Owner(scenes, tmp_path, capsys)
    owner.configure(
        data=DATA,
        training={"batch_size": 2, "local_epochs": EPOCHS},
        federation={"num_rounds": NUM_ROUNDS},
    )
    return owner.ready()


@pytest.fixture
def asked(owner: Owner) -> Path:
    return owner.place / ASKED


def options(owner: Owner, asked: Path) -> list[str]:
    named = {"--data-root": owner.root, "--config": owner.config, "--out": owner.node}
    return [*(str(word) for pair in named.items() for word in pair), "--asked", str(asked)]


def follow(owner: Owner, asked: Path, *more: str) -> tuple[int, str, str]:
    return owner.keys("follow", *options(owner, asked), "--once", *more)


def ask(owner: Owner, asked: Path, arm: str, round: int) -> tuple[int, str, str]:
    """Look once, after the node has asked for a round."""
    asked.write_text(json.dumps({"shard": owner.shard(arm).name, "round": round}))
    outcome = follow(owner, asked)
    assert outcome[0] == 0, outcome
    return outcome


def there(owner: Owner) -> set[tuple[str, int]]:
    """Arm and round of all views in the node folder."""
    names = {
        round_digest(owner.shard(arm).name, round): (arm, round)
        for arm in ARMS
        for round in range(1, NUM_ROUNDS + 1)
    }
    return {names[path.name] for path in (owner.node / "rounds").iterdir()}


def round_of(owner: Owner, arm: str, round: int) -> Path:
    return owner.node / "rounds" / round_digest(owner.shard(arm).name, round)


def test_an_owner_agrees_to_the_number_of_views_and_gives_out_none_yet(owner: Owner) -> None:
    status, out, _ = owner.keys("encrypt", *owner.encrypt_options(), "--dry-run")
    assert status == 0
    assert "2 new view(s) of each training image in every round" in out
    line = "the node gets at most 3 x 2 = 6 views of each image and seed over the run"
    line += ", about one of four the image itself"
    assert f"{line}, all under your one key" in out
    assert f"{line}, each under a key of its own" in out
    assert out.count("WARNING: many views of an image, lined up, show far more") == len(ARMS)
    for arm in ARMS:
        part = open_shard([owner.shard(arm)]).parts[0]
        assert (part.images.size, part.manifest.num_images, part.manifest.num_heldout) == (0, 6, 1)
        assert owner.policy.arms[arm].rounds == owner.node / "rounds"
    assert not list((owner.node / "rounds").iterdir())


def test_it_keeps_the_round_that_was_asked_for_and_the_next(owner: Owner, asked: Path) -> None:
    status, out, _ = follow(owner, asked)
    assert status == 0
    assert "round 1 of per-client-private, seed 0: made in" in out
    assert there(owner) == {("per-client-private", 1), ("per-client-private", 2)}
    first = files_in(round_of(owner, "per-client-private", 1))
    ask(owner, asked, "per-client-private", 3)
    assert there(owner) == {("per-client-private", 3), ("per-image", 1)}
    ask(owner, asked, "per-client-private", 1)
    assert files_in(round_of(owner, "per-client-private", 1)) == first
    ask(owner, asked, "per-image-derived", NUM_ROUNDS)
    assert there(owner) == {("per-image-derived", NUM_ROUNDS)}
    status, out, error = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    assert status == 0, error
    assert f"good: rounds/{round_of(owner, 'per-image-derived', 3).name}" in out


def test_no_image_gets_more_ciphertexts_than_were_agreed_to(owner: Owner, asked: Path) -> None:
    ask(owner, asked, "per-image", 1)
    kept = files_in(round_of(owner, "per-image", 1))
    ask(owner, asked, "per-image", 1)
    assert files_in(round_of(owner, "per-image", 1)) == kept
    ask(owner, asked, "per-image-derived", 1)
    status, out, _ = ask(owner, asked, "per-image", 1)
    assert status == 0
    assert "! round 1 of per-image, seed 0: its views were handed over before" in out
    assert there(owner) == set()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"shard": "x", "round": 1}', '{"shard": "SHARD", "round": 0}'],
)
def test_what_no_owner_agreed_to_moves_nothing(owner: Owner, asked: Path, content: str) -> None:
    shard = owner.shard("per-image").name
    for text in (content.replace("SHARD", shard), json.dumps({"shard": shard, "round": 4})):
        asked.write_text(text)
        assert follow(owner, asked)[0] == 0
        assert there(owner) == {("per-client-private", 1), ("per-client-private", 2)}


@pytest.mark.parametrize("now", ["absent", "cut", "another arm", "a round beyond"])
def test_rounds_in_use_stay_whatever_is_asked_meanwhile(
    now: str, owner: Owner, asked: Path
) -> None:
    """Those of disposable keys could not be made again."""
    own, in_use = ("--arms", "per-image"), {("per-image", 2), ("per-image", 3)}
    shard = owner.shard("per-image").name
    text = json.dumps({"shard": shard, "round": 2})
    asked.write_text(text)
    assert follow(owner, asked, *own)[0] == 0
    assert there(owner) == in_use
    match now:
        case "absent":
            asked.unlink()
        case "cut":
            asked.write_text(text[:20])
        case "another arm":
            other = owner.shard("per-client-private").name
            asked.write_text(json.dumps({"shard": other, "round": 1}))
        case _:
            asked.write_text(json.dumps({"shard": shard, "round": 4}))
    assert follow(owner, asked, *own)[:2] == (0, "")
    assert there(owner) == in_use
    asked.write_text(text)
    assert follow(owner, asked, *own)[:2] == (0, "")
    assert there(owner) == in_use


@of("asked")
def test_what_a_node_asks_for_has_one_form(vector: Vector) -> None:
    with pytest.raises(InputError, match=re.escape(vector.error)):
        parse_asked(vector.content, "asked.json")


def test_a_file_that_is_none_is_refused(owner: Owner, asked: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("{}")
    asked.symlink_to(tmp_path / "elsewhere")
    fails(follow(owner, asked, "--quiet"), "cannot be read")
    asked.unlink()
    os.mkfifo(asked)
    fails(follow(owner, asked, "--quiet"), "not a regular file")


def test_another_config_than_was_agreed_to_is_refused(owner: Owner, asked: Path) -> None:
    changes: dict[str, Any] = {"data": DATA, "federation": {"num_rounds": 9}}
    owner.configure(**changes, training={"batch_size": 2, "local_epochs": 3})
    fails(follow(owner, asked, "--quiet"), "was not agreed to with this config and these images")
    owner.configure()
    fails(follow(owner, asked, "--quiet"), "data.fresh_views is not set")


def test_arms_that_would_need_other_ciphertexts_of_the_same_views(owner: Owner) -> None:
    arms = ["per-image-per-block", "per-image-invariant-shuffle"]
    owner.configure(data=DATA, arms=arms, arm_table={})
    fails(owner.encrypt(), "store images alike under disposable keys")


def test_withdrawal_removes_them_and_no_more_are_made(owner: Owner, asked: Path) -> None:
    assert follow(owner, asked)[0] == 0
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0
    assert not list((owner.node / "rounds").iterdir())
    fails(follow(owner, asked, "--quiet"), "was not agreed to")


def test_a_call_that_was_killed_behind_a_round_leaves_no_second_ciphertext(
    owner: Owner, asked: Path
) -> None:
    ask(owner, asked, "per-image", 1)
    left = owner.vault / "drafts" / round_of(owner, "per-image", 1).name
    left.mkdir(parents=True)
    follow(owner, asked)
    assert not left.exists()


def test_a_full_disk_is_one_line_and_loses_no_round(
    owner: Owner, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        fails(follow(owner, asked, "--quiet"), "not enough space on the disk", status=1)
    assert follow(owner, asked)[0] == 0
    assert len(there(owner)) == 2


def test_encrypting_again_keeps_the_views_of_rounds(owner: Owner, asked: Path) -> None:
    ask(owner, asked, "per-image", 1)
    kept = files_in(owner.node / "rounds")
    assert owner.encrypt()[0] == 0
    assert files_in(owner.node / "rounds") == kept


def test_rounds_under_an_earlier_key_are_made_again(owner: Owner, asked: Path) -> None:
    arm = "per-client-private"
    ask(owner, asked, arm, 1)
    before = files_in(round_of(owner, arm, 1))
    assert owner.keys("rotate")[0] == 0
    fails(follow(owner, asked, "--quiet"), "its salts do not belong to the current master key")
    assert owner.encrypt()[0] == 0
    problems = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    assert problems[0] != 0
    assert "its salts are not those of the shard that was made ahead" in "".join(problems[1:])
    out = follow(owner, asked)[1]
    assert f"round 1 of {arm}, seed 0: made in" in out
    assert f"round 2 of {arm}, seed 0: made in" in out
    record = open_shard([owner.shard(arm)]).parts[0].manifest.record
    assert open_shard([round_of(owner, arm, 1)]).parts[0].manifest.record == record
    again = files_in(round_of(owner, arm, 1))
    (images,) = (name for name in before if "leftImg8bit/train" in str(name))
    assert again[images] != before[images]
    status, _, error = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    assert status == 0, error


def test_damaged_rounds_are_made_again_or_said_to_be_lost(owner: Owner, asked: Path) -> None:
    for arm, line in (
        ("per-client-private", "round 1 of per-client-private, seed 0: made in"),
        ("per-image", "! round 1 of per-image, seed 0: its views were handed over before"),
    ):
        ask(owner, asked, arm, 1)
        whole = files_in(round_of(owner, arm, 1))
        (round_of(owner, arm, 1) / "manifest.json").unlink()
        status, out, _ = follow(owner, asked)
        assert status == 0
        assert line in out
        assert (files_in(round_of(owner, arm, 1)) == whole) == (arm == "per-client-private")


def killed(*_: object) -> None:
    """In place of a step that a killed call does not come to."""
    raise KeyboardInterrupt


def test_a_round_that_cannot_be_moved_is_moved_later(
    owner: Owner, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = round_of(owner, "per-image", 1).name
    draft = owner.vault / "drafts" / name

    def full(folder: Directory, source: Directory, name: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.path / name))

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "move_in", full)
        asked.write_text(json.dumps({"shard": owner.shard("per-image").name, "round": 1}))
        fails(follow(owner, asked, "--quiet"), "no space left on the disk", status=1)
    made = files_in(draft / name)
    assert owner.encrypt()[0] == 0  # removes the drafts that nobody will resume
    assert "round 1 of per-image, seed 0: made in" in follow(owner, asked)[1]
    assert there(owner) == {("per-image", 1), ("per-image", 2)}
    assert files_in(round_of(owner, "per-image", 1)) == made
    assert not (owner.vault / "drafts").exists()


def test_a_call_that_was_killed_behind_a_move_makes_no_second_ciphertext(
    owner: Owner, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.write_text(json.dumps({"shard": owner.shard("per-image").name, "round": 1}))
    with monkeypatch.context() as patch:
        patch.setattr(ShardDraft, "discard", killed)
        assert follow(owner, asked)[0] == 1  # interrupted
    assert (owner.vault / "drafts" / round_of(owner, "per-image", 1).name).exists()
    ask(owner, asked, "per-image-derived", 1)
    assert not (owner.vault / "drafts").exists()
    assert "! round 1 of per-image, seed 0: its views were" in ask(owner, asked, "per-image", 1)[1]
    assert there(owner) == {("per-image", 2)}


def test_a_running_call_gives_no_more_than_a_newer_agreement_allows(
    owner: Owner, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def agree_to_one(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt
        training = {"batch_size": 2, "local_epochs": EPOCHS}
        owner.configure(data=DATA, training=training, federation={"num_rounds": 1})
        vault = owner.keys("encrypt", *owner.encrypt_options(), *owner.agreement())
        assert vault[0] == 0, vault
        asked.write_text(json.dumps({"shard": owner.shard("per-image").name, "round": 1}))

    monkeypatch.setattr(rounds.time, "sleep", agree_to_one)
    owner.keys("follow", *options(owner, asked))
    assert len(looks) == 2
    assert {arm.num_rounds for arm in owner.policy.arms.values()} == {1}
    assert there(owner) == {("per-image", 1)}


def test_two_calls_for_arms_of_their_own_leave_each_other_s_views(
    owner: Owner, asked: Path
) -> None:
    assert follow(owner, asked, "--arms", "per-image")[0] == 0
    kept = files_in(round_of(owner, "per-image", 1))
    assert follow(owner, asked, "--arms", "per-image-derived")[0] == 0
    assert there(owner) == {(arm, n) for arm in ("per-image", "per-image-derived") for n in (1, 2)}
    assert follow(owner, asked, "--arms", "per-image")[1] == ""
    assert files_in(round_of(owner, "per-image", 1)) == kept


def test_rounds_that_no_later_run_gets_are_named_before_consent(owner: Owner, asked: Path) -> None:
    line = "WARNING: arm per-image, seed 0: the views of 2 of 3 rounds were handed over before"
    dry = ("encrypt", *owner.encrypt_options(), "--dry-run")
    ask(owner, asked, "per-image", 1)
    assert "handed over before" not in owner.keys(*dry)[1]  # they are there
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0
    out = owner.keys(*dry)[1]
    assert line in out
    assert out.count("handed over before") == 1


def test_a_node_trains_on_views_that_are_made_while_it_runs(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = owner.place / "state"
    state.mkdir()
    make_ledger(state)
    node_config = {"policy": str(owner.node / "policy.yaml"), "state": str(state)}
    InProcessGrid(app, 1)  # a run, without which there are no messages
    context = Context(1, 2, node_config, RecordDict(), {})  # type: ignore[arg-type]
    settings = load_config(owner.config)

    def train(round: int) -> Message:
        asked = request(
            task="train",
            round=round,
            num_rounds=NUM_ROUNDS,
            arm="per-client-private",
            embedding="private",
            num_classes=small.NUM_CLASSES,
            model=settings.model,
            training=settings.training,
            arrays=small.arrays_of(small.model()),
        )
        return app(Message(pack_request(asked), 2, MessageType.TRAIN), context)

    named = ("--vault", owner.vaults, "--client", "aachen", *options(owner, state / ASKED))
    vault = Background(command("clients.vault", "follow", *named), owner.place)
    try:
        for round in (1, 2):
            assert not train(round).has_error()
        vault.wait_for("round 3 of per-client-private, seed 0: made in")
        assert there(owner) == {("per-client-private", 2), ("per-client-private", 3)}
    finally:
        vault.process.kill()
        vault.process.wait(60)
    shutil.rmtree(round_of(owner, "per-client-private", 3))
    monkeypatch.setattr(handlers, "PATIENCE", 0.2)
    reply = train(3)
    assert reply.has_error()
    assert reply.error.reason == (
        "refused: the owner's vault gave no whole views of round 3 in 0 s; see that "
        "`python -m clients.vault follow` runs"
    )
