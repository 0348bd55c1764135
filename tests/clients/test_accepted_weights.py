"""Weights that honest training does not lead to from those accepted before are refused."""

from pathlib import Path
from typing import Any

import fake_nodes
import numpy as np
import pytest
import small_federation as small
from flwr.app import Message, MessageType
from test_policy import arm_policy

from clients import handlers
from clients.accepted_weights import ACCEPTED, KEPT, accepted_folder, check_change, keep
from clients.client_app import app
from clients.policy.ledger import (
    LEDGER,
    MAX_REFUSALS,
    Question,
    make_ledger,
    read_ledger,
    record_refusal,
    was_granted,
)
from clients.policy.node_policy import (
    NODES_VARIABLE,
    ArmPolicy,
    RefusedError,
    load_policy,
    policy_path,
    save_policy,
    state_path,
)
from clients.policy.start_weights import write_start
from clients.policy.trust_region import change_between, project_onto_region, rounds_before
from clients.residuals import RESIDUALS, save_residual
from fl_ppseg.audit.attacks.imprinting import imprinted
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import REFUSED, pack_request
from fl_ppseg.federation.run_identity import read_identity
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.system.errors import InputError

START = {
    "layer.weight": np.array([[0.5, -2.0], [0.0, 1.0]], np.float32),
    "norm.running_mean": np.zeros(2, np.float32),
}
CHANGE = 0.25
TOLERANCE = 1e-4 + 1e-3 * 2
QUESTION = Question("run", "plain", 0, 3, "train", "0" * 64)


class Node:
    """What a node does with the weights of a request, without images."""

    def __init__(self, place: Path, **changes: Any) -> None:
        start = {0: write_start(place, START)}
        self.arm = arm_policy(start=start, max_change=CHANGE, **changes)
        folder = accepted_folder(place, self.arm, QUESTION)
        assert folder is not None
        self.folder = folder

    def asks(self, after: int, moved: float, task: Any = "evaluate") -> str:
        """Weights said to be of a round, one of them moved from 0; returns why they are refused."""
        weight = START["layer.weight"].copy()
        weight[1, 0] = moved
        arrays = {**START, "layer.weight": weight}
        number = after + (task == "train")
        asked = fake_nodes.request(task=task, round=number, num_rounds=50, arrays=arrays)
        assert rounds_before(asked) == after
        try:
            if check_change(self.folder, self.arm, asked):
                keep(self.folder, self.arm, asked)
        except RefusedError as error:
            return str(error)
        return ""

    def kept(self) -> list[str]:
        return sorted(path.stem for path in self.folder.iterdir())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("task", ["train", "evaluate"])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_weights_move_up_to_the_bound_of_the_rounds_between(
    node: Node, task: str, rounds: int
) -> None:
    assert node.asks(4, 0.9) == ""
    most = rounds * CHANGE + TOLERANCE
    told = node.asks(4 + rounds, 0.9 - 1.001 * most, task)
    assert told.startswith("refused: weights in layer.weight lie ") and "\n" not in told
    assert f"at most {most:.3g} in {rounds} round(s)" in told
    assert node.kept() == ["round_0004"]  # what is refused is not kept
    assert node.asks(4 + rounds, 0.9 - 0.999 * most, task) == ""


def test_the_region_alone_would_take_what_the_change_refuses(node: Node) -> None:
    """Both ends lie within 20 rounds of the start, but 10 rounds' worth apart."""
    assert node.asks(20, 20 * CHANGE) == ""
    assert "training reaches at most" in node.asks(21, 10 * CHANGE)


def test_the_same_weights_may_be_asked_about_in_both_tasks(node: Node) -> None:
    for task in ("evaluate", "train", "train", "evaluate"):
        assert node.asks(3, 0.5, task) == ""
    assert node.kept() == ["round_0003"]
    assert node.asks(3, 0.5 + 2 * TOLERANCE) != ""


def test_small_steps_do_not_add_up_within_a_round(node: Node) -> None:
    for share in (0, 0.9, 0.9):
        assert node.asks(3, 0.5 + share * TOLERANCE) == ""
    assert node.asks(3, 0.5 + 1.8 * TOLERANCE) != ""


def test_only_the_newest_versions_are_kept(node: Node) -> None:
    for after in range(10):
        assert node.asks(after, after * CHANGE) == ""
    assert node.kept() == [f"round_{n:04d}" for n in range(10 - KEPT, 10)]


def test_rounds_in_which_a_node_was_not_asked_forget_nothing(node: Node) -> None:
    """A version before the newest is left for a coordinator that lost what this node saw last."""
    for after, moved in ((9, 1.0), (19, 2.0)):
        assert node.asks(after, moved) == ""
    assert len(node.kept()) == 2
    assert node.asks(19, 2.5) == "", "of round 9 it is within reach"


def test_a_coordinator_that_lost_a_checkpoint_goes_on_from_the_version_before(node: Node) -> None:
    for after in range(6):
        assert node.asks(after, after * CHANGE) == ""
    assert node.asks(4, 2 * CHANGE) == ""  # of round 3, moved the other way
    assert node.kept() == ["round_0003", "round_0004"]  # later versions came from another round 4
    assert node.asks(5, 1 * CHANGE) == ""
    assert node.asks(4, 3 * CHANGE) == ""  # and once more


def test_nobody_goes_back_behind_all_versions(node: Node) -> None:
    """Else the start, or an early round, would make the bound that of the region again."""
    for after in range(3, 10):
        assert node.asks(after, after * CHANGE) == ""
    told = node.asks(6, 6 * CHANGE)
    assert told == (
        "refused: expected weights of round 7 or later, since this node accepted those; got "
        "other weights than before of round 6"
    )


def test_rounding_never_refuses_what_lies_at_the_bound(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    for trial in range(50):
        node = Node(tmp_path / str(trial))
        place = drawn.uniform(-3, 3) * CHANGE
        assert node.asks(3, place) == ""
        assert node.asks(4, place + (-1) ** trial * (CHANGE + 0.9999 * TOLERANCE)) == ""


def test_a_fixed_target_that_is_moved_into_the_region_stays_within_the_change(
    tmp_path: Path,
) -> None:
    """What the bound does not stop: the way towards one target, as fast as training may go."""
    node = Node(tmp_path)
    for after in range(12):
        target = {"layer.weight": np.full((2, 2), 1e6, np.float32)}
        near = project_onto_region(target, {"layer.weight": START["layer.weight"]},
                                   after * CHANGE, node.arm.training)  # fmt: skip
        assert node.asks(after, float(near["layer.weight"][1, 0])) == ""


def test_where_there_is_no_bound_nothing_is_kept(tmp_path: Path) -> None:
    assert accepted_folder(tmp_path, arm_policy(), QUESTION) is None
    start = {0: write_start(tmp_path, START)}
    several = arm_policy(start=start, max_change=CHANGE, models=3)
    assert accepted_folder(tmp_path, several, QUESTION) is None


def test_another_run_arm_seed_or_bound_is_another_folder(tmp_path: Path) -> None:
    start = write_start(tmp_path, START)
    arm = arm_policy(start={0: start}, max_change=CHANGE)
    other = arm_policy(start={0: start}, max_change=2 * CHANGE)
    asked = [QUESTION, QUESTION._replace(run="b"), QUESTION._replace(arm="b")]
    folders = {accepted_folder(tmp_path, arm, each) for each in asked}
    assert len(folders | {accepted_folder(tmp_path, other, QUESTION)}) == 4
    same = QUESTION._replace(round=9, task="evaluate", weights="1" * 64)
    assert accepted_folder(tmp_path, arm, same) in folders


# The files.


def test_a_version_takes_two_bytes_a_weight_and_is_its_owners(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.asks(2, 0.1)
    (path,) = node.folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size < 2 * START["layer.weight"].size + 400


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text", "another round", "link"])
def test_a_damaged_version_stops_the_answer_and_says_what_to_do(
    damage: str, node: Node, tmp_path: Path
) -> None:
    node.asks(2, 0.1)
    (path,) = node.folder.iterdir()
    content = path.read_bytes()
    if damage == "another round":
        path = path.rename(path.with_name("round_0003.safetensors"))
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes({
            "flipped": content[:-1] + bytes([content[-1] ^ 1]), "cut": content[:-3],
            "empty": b"", "text": b"x" * 1000,
        }[damage])  # fmt: skip
    with pytest.raises(InputError) as caught:
        node.asks(4, 0.1)
    told = str(caught.value)
    assert str(path) in told and "\n" not in told
    assert "remove its folder" in told or "link" in told


# The ledger.


def test_a_refusal_is_one_line_and_no_question(tmp_path: Path) -> None:
    make_ledger(tmp_path)
    for _ in range(3):
        record_refusal(tmp_path, QUESTION, "change")
    record_refusal(tmp_path, QUESTION._replace(round=4), "change")
    entries = read_ledger(tmp_path / LEDGER)
    assert [(e.round, e.refused) for e in entries] == [(3, "change"), (4, "change")]
    assert not was_granted(tmp_path, QUESTION)


def test_refusals_cannot_fill_a_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REFUSALS < 10_000
    monkeypatch.setattr("clients.policy.ledger.MAX_REFUSALS", 2)
    make_ledger(tmp_path)
    for round in range(1, 6):
        record_refusal(tmp_path, QUESTION._replace(round=round), "loss")
    assert len(read_ledger(tmp_path / LEDGER)) == 2


# The app.


ROUNDS = 6


class Owner:
    """A node of a small federation, asked by a coordinator through Flower's messages."""

    def __init__(self, scenes: Path, place: Path, patch: pytest.MonkeyPatch) -> None:
        settings = small.config(scenes, arms=["plain"], federation={"num_rounds": ROUNDS})
        self.experiment = small.prepared(settings, place)
        patch.setenv(NODES_VARIABLE, str(self.experiment.nodes))
        checkpoint = self.experiment.folder.latest("plain", 0)
        assert checkpoint is not None
        self.start = checkpoint.arrays
        self.grid = InProcessGrid(app, 5)
        self.state = state_path(self.experiment.nodes, 0)
        self.arm: ArmPolicy = load_policy(policy_path(self.experiment.nodes, 0)).arms["plain"]

    def moved(self, after: int, share: float) -> dict[str, np.ndarray]:
        """All weights moved by a share of what honest training may do in so many rounds."""
        assert self.arm.max_change is not None
        step = np.float32(share * change_between(self.arm, 0, after))
        return {n: v if is_buffer(n) else v + step for n, v in self.start.items()}

    def ask(self, round: int, arrays: dict[str, np.ndarray], task: Any = "train") -> str:
        """Returns why the request is refused."""
        config, run = self.experiment.config, str(read_identity(self.experiment.folder.path))
        asked = Request(
            task=task, run_id="run", round=round, num_rounds=ROUNDS, arm="plain", seed=0,
            embedding="uploaded", num_classes=small.NUM_CLASSES, model=config.model,
            training=config.training, arrays=arrays, run=run,
        )  # fmt: skip
        kind = MessageType.TRAIN if task == "train" else MessageType.EVALUATE
        node_id = next(iter(self.grid.get_node_ids()))
        (reply,) = self.grid.send_and_receive([Message(pack_request(asked), node_id, kind)])
        if reply.has_error():
            assert reply.error.code == REFUSED, reply.error.reason
            return reply.error.reason
        return ""


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owner:
    return Owner(scenes, tmp_path, monkeypatch)


def test_a_node_refuses_weights_of_the_region_that_change_too_much(owner: Owner) -> None:
    assert owner.ask(5, owner.moved(4, 0.9)) == ""
    before = read_ledger(owner.state / LEDGER)
    told = owner.ask(6, owner.moved(4, -0.9))  # within the region of round 5
    assert "that this node accepted" in told and str(owner.state) not in told
    entries = read_ledger(owner.state / LEDGER)
    assert entries[:-1] == before and entries[-1].refused == "change"
    assert owner.ask(6, owner.moved(4, -0.9)) == told
    assert read_ledger(owner.state / LEDGER) == entries
    assert owner.ask(6, owner.moved(4, 1.0)) == ""


def test_a_task_that_is_asked_again_is_answered(owner: Owner) -> None:
    for round in range(1, 6):
        assert owner.ask(round, owner.moved(round - 1, 0.9)) == ""
    for _ in range(2):
        assert owner.ask(1, owner.moved(0, 0.9)) == ""  # long behind all versions, but granted
        assert owner.ask(5, owner.moved(4, 0.9)) == ""
        assert owner.ask(4, owner.moved(4, 0.9), "evaluate") == ""


def test_a_node_killed_between_ledger_and_version_goes_on(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owner.ask(3, owner.moved(2, 0.9)) == ""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(handlers, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            owner.ask(4, owner.moved(3, 0.9))
    assert owner.ask(4, owner.moved(3, 0.9)) == ""
    assert owner.ask(5, owner.moved(4, 0.9)) == ""


def test_the_shipped_design_moved_into_the_region_is_refused_once_weights_were_honest(
    owner: Owner,
) -> None:
    """It changes its mind about a target: what the region alone takes, the change refuses."""
    assert owner.arm.max_change is not None
    network = small.model()
    network.load_state_dict({n: small.torch.from_numpy(v.copy()) for n, v in owner.start.items()})
    public = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 64), dtype=np.uint8)
    made = imprinted(network, public)
    for round in (1, 2, 3, 4, 5):
        assert owner.ask(round, owner.moved(round - 1, 0.1)) == ""
    change = change_between(owner.arm, 0, 5)
    within = project_onto_region(made, owner.start, change, owner.arm.training)
    assert "that this node accepted" in owner.ask(6, within)


def test_a_withdrawal_removes_versions_and_residuals(owner: Owner) -> None:
    assert owner.ask(1, owner.moved(0, 0)) == ""
    save_residual(owner.state / RESIDUALS / "run", 1, {"w": np.zeros(2, np.float32)})
    assert (owner.state / ACCEPTED).is_dir()
    path = policy_path(owner.experiment.nodes, 0)
    save_policy(load_policy(path).model_copy(update={"withdrawn": "gone", "arms": {}}), path)
    assert owner.ask(1, owner.moved(0, 0)) == "refused: gone"
    assert not (owner.state / ACCEPTED).exists()
    assert not (owner.state / RESIDUALS).exists()
