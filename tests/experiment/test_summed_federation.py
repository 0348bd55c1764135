"""Secure aggregation in a whole federation: the weights of FedAvg, from sums alone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from flwr.app import Context, Error, Message

from clients.client_app import app
from clients.policy.cohort_key import COHORT_KEY, read_cohort_key
from clients.policy.node_policy import load_policy, policy_path
from clients.policy.pledges import PLEDGES
from fl_ppseg.config.run_layout import COHORT
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.cohort_keys import load_cohort_keys, save_cohort_keys
from fl_ppseg.federation.messages import FAILED, REFUSED, unpack_request
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.learning.reach import largest_of, update_bound
from fl_ppseg.progress.events import Event, Notice
from fl_ppseg.progress.observer import Observer
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.system.errors import RunError
from strategies.rounds.registry import Member
from strategies.rounds.summed import SummedStrategy

SUMMED = {"secure_aggregation": True}
STEPS = ("advertise", "share", "train", "confirm", "unmask")


def experiment(scenes: Path, place: Path, **federation: Any) -> Experiment:
    settings = small.config(scenes, arms=["plain"], federation=SUMMED | federation)
    return small.prepared(settings, place)


class Nodes:
    """The app, and what a test makes of some of its messages."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        """Task and client of every request."""
        self.contents: list[Message] = []
        self.heard: list[tuple[str, int]] = []
        """Steps of secure aggregation, and bytes of what each request says."""

    def __call__(self, message: Message, context: Context) -> Message:
        request = unpack_request(message.content)
        client = f"node{context.node_config['partition-id']}"
        self.asked.append((request.task, client))
        if request.sum is not None:
            content = message.content.config_records["sum"]["content"]
            self.heard.append((request.task, len(str(content).encode())))
        return self.answer(message, context, request.task, client)

    def answer(self, message: Message, context: Context, task: str, client: str) -> Message:
        reply = app(message, context)
        self.contents.append(reply)
        return reply


class Lost(Nodes):
    """A node that fails in one step."""

    def __init__(self, step: str, clients: tuple[str, ...]) -> None:
        super().__init__()
        self.step, self.clients = step, clients

    def answer(self, message: Message, context: Context, task: str, client: str) -> Message:
        if task == self.step and client in self.clients:
            return Message(Error(FAILED, "lost"), reply_to=message)
        return super().answer(message, context, task, client)


@pytest.fixture(scope="module")
def summed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A finished run over masked updates, with what its nodes sent."""
    made = experiment(scenes, tmp_path_factory.mktemp("summed"))
    nodes = Nodes()
    yield made, small.federate(made, client_app=nodes), nodes


def test_the_weights_are_those_of_fedavg_within_the_stated_error(
    scenes: Path, tmp_path: Path
) -> None:
    settings = small.config(scenes, arms=["plain"], federation={"num_rounds": 1, "last_rounds": 1})
    plain = small.federate(small.prepared(settings, tmp_path / "plain"))
    once = experiment(scenes, tmp_path / "once", num_rounds=1)
    start = small.final(once.folder, "plain")
    masked = small.final(small.federate(once), "plain")
    trained = [line for line in plain.lines() if line["role"] == "train"]
    sizes = [line["num_examples"] for line in trained]
    bound = update_bound(settings.training, max(sizes), largest_of(start))
    assert bound is not None
    worst = Ring(bound, len(sizes), max(sizes)).worst_error(len(sizes), sum(sizes))
    assert worst < 1e-9
    for name, value in small.final(plain, "plain").items():
        rounded = np.spacing(np.abs(value).max())  # of the fp32 that both are stored in
        assert np.abs(masked[name] - value).max() <= worst + rounded
        assert (masked[name] != start[name]).any()


def test_each_round_has_its_five_steps(summed: Any) -> None:
    _, folder, nodes = summed
    steps = [task for task, _ in nodes.asked if task not in ("describe", "evaluate")]
    assert steps == [s for _ in range(2) for s in STEPS for _ in "abc"]
    lines = folder.lines()
    assert not any("update_norm" in line for line in lines)


def test_each_byte_of_the_exchanges_is_counted(summed: Any) -> None:
    """Beside what the messages themselves hold, once they are packed."""
    _, folder, nodes = summed
    lines, weights = folder.lines(), small.final(folder, "plain")
    size = sum(value.nbytes for value in weights.values())
    said = {step: 0 for step in STEPS}
    for (task, _), reply in zip(nodes.asked, nodes.contents, strict=True):
        if task in STEPS and "sum" in reply.content.config_records:
            said[task] += len(str(reply.content.config_records["sum"]["content"]).encode())
    assert said["train"] == 0
    assert all(said[step] for step in STEPS if step != "train")
    own = [line for line in lines if line["role"] == "round" and line["round"]]
    assert sum(line["bytes_up"] for line in own) == sum(said.values())
    assert {line["bytes_up"] for line in lines if line["role"] == "train"} == {size}
    heard = {step: 0 for step in STEPS}
    for task, num in nodes.heard:
        heard[task] += num
    assert sum(line["bytes_down"] for line in own) == sum(heard.values()) - heard["train"]
    down = sum(line["bytes_down"] for line in lines if line["role"] == "train")
    assert down == 2 * 3 * size + heard["train"] and heard["train"] > 0


def test_no_secret_of_a_node_is_in_what_it_sends_or_in_the_run_folder(summed: Any) -> None:
    made, folder, nodes = summed
    policies = [load_policy(policy_path(made.nodes, n)) for n in range(3)]
    secrets = [read_cohort_key(p.cohort.key).to_hex() for p in policies if p.cohort]
    assert len(secrets) == 3
    sent = b"".join(str(reply).encode() for reply in nodes.contents)
    stored = b"".join(p.read_bytes() for p in folder.path.rglob("*") if p.is_file())
    policy = b"".join(p.read_bytes() for p in made.nodes.rglob("*") if p.is_file())
    for secret in secrets:
        raw = bytes.fromhex(secret)
        for place in (sent, stored, policy):
            assert secret.encode() not in place
            assert raw not in place
    assert all(
        (made.vault_dir / p.client / COHORT_KEY).stat().st_mode & 0o777 == 0o600 for p in policies
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_client_may_be_lost_at_any_step(step: str, scenes: Path, tmp_path: Path) -> None:
    made = experiment(
        scenes, tmp_path, num_rounds=1, least_cohort=2, max_retries=0, min_replies=0.5
    )
    nodes = Lost(step, ("node1",))
    folder = small.federate(made, client_app=nodes)
    checkpoint = folder.latest("plain", 0)
    assert checkpoint is not None and checkpoint.round == 1
    trained = {line["client"] for line in folder.lines() if line["role"] == "train"}
    assert len(trained) == (3 if step in ("confirm", "unmask") else 2)


def test_below_the_threshold_there_is_one_clear_error(scenes: Path, tmp_path: Path) -> None:
    made = experiment(scenes, tmp_path, least_cohort=2, max_retries=0, min_replies=0.3)
    with pytest.raises(RunError, match="expected good updates from 2 of 3 clients, got 1"):
        small.federate(made, client_app=Lost("train", ("node0", "node1")))


class Crafted(Nodes):
    """One node is handed other weights than the rest."""

    def answer(self, message: Message, context: Context, task: str, client: str) -> Message:
        if task == "train" and client == "node1":
            from fl_ppseg.federation.messages import pack_arrays, unpack_arrays

            weights = unpack_arrays(message.content.array_records["arrays"])
            name = max(weights, key=lambda each: weights[each].size)
            weights[name] = weights[name] + np.float32(1e-5)
            message.content["arrays"] = pack_arrays(weights)
        return super().answer(message, context, task, client)


def test_made_weights_for_one_node_leave_noise_and_the_round_is_refused(
    scenes: Path, tmp_path: Path
) -> None:
    made = experiment(scenes, tmp_path)
    with pytest.raises(RunError, match=r"round 1: secure aggregation: .*the masks did not cancel"):
        small.federate(made, client_app=Crafted())
    assert small.final(made.folder, "plain").keys()
    checkpoint = made.folder.latest("plain", 0)
    assert checkpoint is not None and checkpoint.round == 0


class Stopped(Nodes):
    """The coordinator dies after one request of a step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def answer(self, message: Message, context: Context, task: str, client: str) -> Message:
        reply = super().answer(message, context, task, client)
        if task == self.step:
            raise KeyboardInterrupt
        return reply


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_killed_run_resumes_to_the_same_bits(
    step: str, summed: Any, scenes: Path, tmp_path: Path
) -> None:
    made = experiment(scenes, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        small.federate(made, client_app=Stopped(step))
    resumed = small.federate(made)
    assert small.bits(small.final(resumed, "plain")) == small.bits(small.final(summed[1], "plain"))


def test_a_round_is_summed_over_one_set_of_clients(scenes: Path, tmp_path: Path) -> None:
    """Killed after a sum of three was asked for; repeated without one of them."""
    made = experiment(scenes, tmp_path, least_cohort=2, max_retries=0)
    with pytest.raises(KeyboardInterrupt):
        small.federate(made, client_app=Stopped("unmask"))
    with pytest.raises(RunError, match="already summed over other clients"):
        small.federate(made, client_app=Lost("train", ("node1",)))


class StoppedAndLost(Stopped):
    """The coordinator dies while it unmasks a round that lost a client."""

    def answer(self, message: Message, context: Context, task: str, client: str) -> Message:
        if task == "train" and client == "node1":
            return Message(Error(FAILED, "lost"), reply_to=message)
        return super().answer(message, context, task, client)


def test_a_repeated_round_is_summed_over_the_clients_it_was_summed_over(
    scenes: Path, tmp_path: Path
) -> None:
    """All clients are back: the one that was lost before is not asked in that round."""
    made = experiment(scenes, tmp_path, least_cohort=2, max_retries=0)
    with pytest.raises(KeyboardInterrupt):
        small.federate(made, client_app=StoppedAndLost("unmask"))
    lines = small.federate(made).lines()
    trained = [
        sorted(x["client"] for x in lines if x["role"] == "train" and x["round"] == n)
        for n in (1, 2)
    ]
    assert [len(clients) for clients in trained] == [2, 3]


class Stranger(Nodes):
    """A client whose advertisements another key signed than the others consented to."""

    def answer(self, message: Message, context: Context, task: str, client: str) -> Message:
        reply = super().answer(message, context, task, client)
        if task == "advertise" and client == "node1":
            record = reply.content.config_records["sum"]
            advert = json.loads(str(record["content"]))
            signature = bytes.fromhex(advert["signature"])
            advert["signature"] = bytes([signature[0] ^ 1, *signature[1:]]).hex()
            record["content"] = json.dumps(advert)
        return reply


UNSIGNED = "bochum: the keys of bochum are not signed by its cohort key"


def rejected(folder: RunFolder, round: int) -> list[str]:
    (line,) = (x for x in folder.lines() if x["role"] == "round" and x["round"] == round)
    return line["rejected"]


def test_a_client_with_another_key_is_left_out_by_name(scenes: Path, tmp_path: Path) -> None:
    made = experiment(scenes, tmp_path, least_cohort=2, max_retries=0)
    policy = load_policy(policy_path(made.nodes, 0))
    assert policy.cohort is not None
    assert load_cohort_keys(made.folder.path) == policy.cohort.keys
    nodes = Stranger()
    folder = small.federate(made, client_app=nodes)
    for round in (1, 2):
        assert rejected(folder, round) == [UNSIGNED]
        trained = {
            x["client"] for x in folder.lines() if (x["role"], x["round"]) == ("train", round)
        }
        assert trained == {"aachen", "bremen"}
    assert ("share", "node1") not in nodes.asked


def test_a_client_that_is_not_of_the_cohort_is_left_out_by_name(
    scenes: Path, tmp_path: Path
) -> None:
    made = experiment(scenes, tmp_path, num_rounds=1, least_cohort=2, max_retries=0)
    keys = load_cohort_keys(made.folder.path)
    assert keys is not None
    save_cohort_keys(
        {name: key for name, key in keys.items() if name != "bochum"}, made.folder.path
    )
    folder = small.federate(made)
    why = "bochum: bochum is not among the cohort keys that the coordinator has"
    assert rejected(folder, 1) == [why]


def test_a_coordinator_without_the_keys_cannot_tell(scenes: Path, tmp_path: Path) -> None:
    made = experiment(scenes, tmp_path, least_cohort=2, max_retries=0)
    (made.folder.path / COHORT).unlink()
    with pytest.raises(RunError, match="the keys of bochum are not signed by its cohort key"):
        small.federate(made, client_app=Stranger())
    assert max(line["round"] for line in made.folder.lines()) == 0


def test_a_quorum_counts_signed_advertisements(scenes: Path, tmp_path: Path) -> None:
    made = experiment(scenes, tmp_path, least_cohort=2, max_retries=0, min_replies=1.0)
    with pytest.raises(RunError, match="expected good updates from 3 of 3 clients, got 2"):
        small.federate(made, client_app=Stranger())


class Away(Observer):
    """A node that is not there when the coordinator is back; it comes once it is waited for."""

    def __init__(self, patch: pytest.MonkeyPatch, returns: bool = True) -> None:
        self.said: list[str] = []
        self._is_away, self._returns, self._all = True, returns, InProcessGrid.get_node_ids
        patch.setattr(InProcessGrid, "get_node_ids", lambda grid: self._here(grid))

    def _here(self, grid: InProcessGrid) -> list[int]:
        return [n for n in self._all(grid) if n != AWAY or not self._is_away]

    def on_event(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.said.append(event.text)
            if self._returns and "for the nodes of bochum" in event.text:
                self._is_away = False


AWAY = 3
"""Node id of bochum's."""
SOON = {"least_cohort": 2, "max_retries": 0, "wait_seconds": 0.5}


def test_a_repeated_round_waits_for_the_clients_it_was_summed_over(
    summed: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment(scenes, tmp_path, **SOON)
    with pytest.raises(KeyboardInterrupt):
        small.federate(made, client_app=Stopped("unmask"))
    away = Away(monkeypatch)
    resumed = small.federate(made, observer=away)
    said = [text for text in away.said if text.startswith("round 1: ")]
    assert said[0] == "round 1: was being summed over 3 clients; asking the same again"
    assert said[1].startswith("round 1: waiting up to ") and "bochum" in said[1]
    assert rejected(resumed, 1) == []
    assert small.bits(small.final(resumed, "plain")) == small.bits(small.final(summed[1], "plain"))


def test_a_client_that_does_not_come_back_is_named_and_the_nodes_decide(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment(scenes, tmp_path, **SOON)
    with pytest.raises(KeyboardInterrupt):
        small.federate(made, client_app=Stopped("unmask"))
    away = Away(monkeypatch, returns=False)
    with pytest.raises(RunError, match="already summed over other clients"):
        small.federate(made, observer=away)
    assert any(
        text == "round 1: bochum: its node did not come back to the round that it was added to"
        for text in away.said
    )


def test_a_repeated_round_has_its_clients_whatever_would_be_drawn(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three are drawn; after the restart another draw would be made of fewer nodes."""
    made = experiment(scenes, tmp_path, num_rounds=1, fraction_train=0.67, **SOON)
    first = Stopped("unmask")
    with pytest.raises(KeyboardInterrupt):
        small.federate(made, client_app=first)
    before = {client for task, client in first.asked if task == "train"}
    assert len(before) == 2
    names = {"node0": "aachen", "node1": "bochum", "node2": "bremen"}
    drawn = {*names.values()} - {names[min(before)]}

    def draw(strategy: SummedStrategy) -> list[Member]:
        return [m for m in strategy.trainers() if m.client in drawn]

    monkeypatch.setattr(SummedStrategy, "_drawn", draw)
    second = Nodes()
    small.federate(made, client_app=second)
    assert {client for task, client in second.asked if task == "train"} == before


class Single(Nodes):
    """A coordinator that asks for an update without the steps around it."""

    def answer(self, message: Message, context: Context, task: str, client: str) -> Message:
        if task == "train":
            del message.content["sum"]
        reply = super().answer(message, context, task, client)
        if task == "train":
            assert reply.error.code == REFUSED
            assert re.search("agreed to sums of updates alone", reply.error.reason)
        return reply


def test_a_node_that_agreed_to_sums_gives_no_single_update(scenes: Path, tmp_path: Path) -> None:
    made = experiment(scenes, tmp_path, max_retries=0)
    with pytest.raises(RunError, match="agreed to sums of updates alone"):
        small.federate(made, client_app=Single())


def test_pledges_are_written_before_the_answer(summed: Any) -> None:
    made, _, _ = summed
    lines = (made.nodes / "state" / "node_0000" / PLEDGES).read_text("utf-8").splitlines()
    assert len(lines) == 1 + 2 * 4
