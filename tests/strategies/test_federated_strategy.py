"""Whole rounds over fake nodes: the mean, the draw, the results, the resume, models at home."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_nodes import TRAIN, VAL, Answer, FakeNodes, Listener, nodes, reply, request
from fake_runs import ABOUT, EMBEDDING, FREE, START, Run, assert_same
from flwr.app import Array

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.federation.roles import Role
from fl_ppseg.flower.grid import LazyGrid
from fl_ppseg.progress.events import Event, RoundFinished
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.federated import FederatedStrategy
from strategies.rounds.local_only import LocalOnlyStrategy

MEAN_STEP = (1 * 1 + 2 * 2 + 3 * 3) / (1 + 2 + 3)
"""Of all three clients: steps 1, 2, 3 weighted by 1, 2, 3 examples."""


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    """14 / 6 a round on fp32; the int64 counter drops its fraction: 4 + 2, then 6 + 2."""
    run = Run(tmp_path).train()
    weights = run.checkpoint().arrays
    assert weights["head.w"] == pytest.approx(START["head.w"] + 2 * MEAN_STEP, rel=1e-6)
    assert weights["norm.num_batches_tracked"] == 8
    assert run.checkpoint().round == 2
    assert {name: (v.dtype, v.shape) for name, v in weights.items()} == {
        name: (v.dtype, v.shape) for name, v in START.items()
    }


def test_weights_are_packed_once_a_round(tmp_path: Path) -> None:
    """What scores them in one round and trains them in the next is the same array."""
    fake = nodes()
    sent: dict[tuple[str, str], list[object]] = {}

    class Watching(type(fake.grid)):  # type: ignore[misc]
        def push_messages(self, messages: Any) -> Any:
            messages = list(messages)
            for message in messages:
                group, kind = message.metadata.group_id, message.metadata.message_type
                if "arrays" in message.content and group:
                    arrays = message.content["arrays"]["safetensors"]
                    sent.setdefault((group, kind), []).append(arrays)
            return super().push_messages(messages)

    fake.grid.__class__ = Watching
    run = Run(tmp_path, fake).train({"num_rounds": 3})
    for group, following in (("1/evaluate/", "2/train/"), ("2/evaluate/", "3/train/")):
        records = sent[group, "evaluate"] + sent[following, "train"]
        assert len(records) == 5 + 3
        assert all(record is records[0] for record in records)
    assert sent["3/evaluate/", "evaluate"][0] is run.result.arrays["safetensors"]


def test_weights_lie_in_the_record_that_travels_and_older_ones_are_let_go(tmp_path: Path) -> None:
    """Flower's loop keeps the record that it starts with: it is the one of the newest weights."""
    run = Run(tmp_path)
    discovery = run.fake.discovery(run.listener)
    federation = FederationConfig.model_validate(FREE | {"num_rounds": 3})
    start = Checkpoint(0, START, {}, ABOUT)
    strategy = FederatedStrategy(
        ArmRun(request(), federation, discovery, ABOUT), run.folder, run.listener, start
    )
    first = strategy.carried.record
    result = strategy.start(LazyGrid(run.fake.grid), first, num_rounds=3, timeout=60)
    assert result.arrays is first is strategy.carried.record
    packed = first["safetensors"]
    assert isinstance(packed, Array)
    data = np.frombuffer(packed.data, np.uint8)
    for name, value in strategy.weights.items():
        assert np.shares_memory(value, data), name


def test_results_are_sorted_and_complete(tmp_path: Path) -> None:
    run = Run(tmp_path).train()
    one_round = [*(("train", c) for c in TRAIN), *(("heldout", c) for c in TRAIN)]
    one_round += [*(("val", c) for c in VAL), ("round", None)]
    found = [(line["round"], line["role"], line["client"]) for line in run.folder.lines()]
    assert found == [(k, *who) for k in (1, 2) for who in one_round]
    nbytes = sum(value.nbytes for value in START.values())
    assert {line["bytes_up"] for line in run.lines("train")} == {nbytes}
    assert {line["bytes_up"] for line in run.lines("val")} == {0}
    assert {line["bytes_down"] for line in run.lines("val")} == {nbytes}
    loss = (1 * 0.25 + 2 * 0.5 + 3 * 0.75) / 6
    assert [line["loss"] for line in run.lines("round")] == pytest.approx([loss, loss])
    road, sky = 100 * 20 / 22, 100 * 10 / 12
    miou = pytest.approx((road + sky) / 2)
    assert run.listener.rounds == [(1, pytest.approx(loss), miou), (2, pytest.approx(loss), miou)]


def test_flower_is_given_the_metrics_of_each_round(tmp_path: Path) -> None:
    run = Run(tmp_path).train({"num_rounds": 3, "evaluate_every": 2, "last_rounds": 1})
    loss = pytest.approx((1 * 0.25 + 2 * 0.5 + 3 * 0.75) / 6)
    trained = run.result.train_metrics_clientapp
    assert {round: dict(metrics) for round, metrics in trained.items()} == {
        round: {"train_loss": loss} for round in (1, 2, 3)
    }
    scored = run.result.evaluate_metrics_clientapp
    road, sky = 100 * 20 / 22, 100 * 10 / 12
    assert scored.keys() == {2, 3}
    assert scored[3].keys() == {"aAcc", "mIoU", "mAcc"}
    assert scored[3]["mIoU"] == pytest.approx((road + sky) / 2)


def test_the_one_that_trains_alone_is_not_the_only_one_that_is_scored(tmp_path: Path) -> None:
    """A centralised arm: the first client trains for all, every client scores its own images."""
    run = Run(tmp_path).train({"num_rounds": 1}, is_centralised=True)
    assert run.trained() == [["aachen"]]
    assert [line["client"] for line in run.lines("heldout")] == list(TRAIN)
    assert [line["num_examples"] for line in run.lines("heldout")] == list(TRAIN.values())


def many(order: int = 1) -> FakeNodes:
    """Eight training clients and a val client; node ids with or against the alphabet."""
    clients: dict[str, Role] = dict.fromkeys("abcdefgh", "train") | {"val": "val"}
    return FakeNodes(dict(list(clients.items())[::order]), {})


SOME = {"fraction_train": 0.5, "num_rounds": 6}


def test_the_draw_depends_on_the_seed_and_not_on_node_ids(tmp_path: Path) -> None:
    first = Run(tmp_path / "a", many()).train(SOME)
    again = Run(tmp_path / "b", many(order=-1)).train(SOME)
    other = Run(tmp_path / "c", many()).train(SOME, seed=1)
    assert first.trained() == again.trained()
    assert first.trained() != other.trained()
    assert_same(first.checkpoint().arrays, again.checkpoint().arrays)


def test_each_round_draws_the_fraction_anew(tmp_path: Path) -> None:
    trained = Run(tmp_path, many()).train(SOME).trained()
    assert [len(set(clients)) for clients in trained] == [4] * 6
    assert len({tuple(clients) for clients in trained}) > 1
    assert trained == [sorted(clients) for clients in trained]  # all have one image
    assert len(Counter(client for clients in trained for client in clients)) > 4


@pytest.mark.parametrize(("fraction", "number"), [(0.01, 1), (0.3, 2), (0.99, 8), (1.0, 8)])
def test_the_fraction_is_rounded_to_clients(tmp_path: Path, fraction: float, number: int) -> None:
    run = Run(tmp_path, many()).train({"fraction_train": fraction, "num_rounds": 1})
    assert [len(clients) for clients in run.trained()] == [number]


@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [(1, 1, [1, 2, 3, 4, 5]), (2, 1, [2, 4, 5]), (4, 3, [3, 4, 5]), (9, 2, [4, 5])],
)
def test_evaluated_rounds(tmp_path: Path, every: int, last: int, expected: list[int]) -> None:
    rounds = {"num_rounds": 5, "evaluate_every": every, "last_rounds": last}
    run = Run(tmp_path).train(rounds)
    assert sorted({line["round"] for line in run.lines("val")}) == expected
    assert sorted({line["round"] for line in run.lines("heldout")}) == expected
    assert [line["round"] for line in run.lines("round")] == [1, 2, 3, 4, 5]
    assert [miou is not None for _, _, miou in run.listener.rounds] == [
        k in expected for k in range(1, 6)
    ]


@pytest.mark.parametrize("kind", [FederatedStrategy, LocalOnlyStrategy])
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    tmp_path: Path, kind: type[FederatedStrategy], strategy: str
) -> None:
    federation = SOME | {"strategy": strategy, "num_rounds": 4}
    whole = Run(tmp_path / "whole", many()).train(federation, kind=kind)
    half = Run(tmp_path / "half", many()).train(federation, until=2, kind=kind)
    rest = Run(tmp_path / "half", many()).train(federation, resumed=half.checkpoint(), kind=kind)
    assert half.trained() + rest.trained() == whole.trained()
    assert rest.checkpoint().round == 4
    assert_same(rest.checkpoint().arrays, whole.checkpoint().arrays)
    assert [line["round"] for line in rest.lines("round")] == [1, 2, 3, 4]


def test_old_checkpoints_go(tmp_path: Path) -> None:
    Run(tmp_path).train({"num_rounds": 5, "keep_checkpoints": 2})
    names = sorted(path.stem for path in tmp_path.rglob("*.safetensors"))
    assert names == ["round_0004", "round_0005"]


@pytest.mark.parametrize("embedding", ["frozen", "private"])
def test_an_embedding_that_stays_home_is_sent_out_and_never_taken_back(
    tmp_path: Path, embedding: str
) -> None:
    run = Run(tmp_path).train({"num_rounds": 1}, embedding=embedding)
    assert all(EMBEDDING in arrays for _, arrays in run.fake.weights)
    weights = run.checkpoint().arrays
    assert weights.keys() == START.keys()
    assert weights[EMBEDDING].tobytes() == START[EMBEDDING].tobytes()
    assert weights["head.w"] == pytest.approx(START["head.w"] + MEAN_STEP, rel=1e-6)
    nbytes = sum(v.nbytes for name, v in START.items() if name != EMBEDDING)
    assert {line["bytes_up"] for line in run.lines("train")} == {nbytes}


@pytest.mark.parametrize("embedding", ["adapted", "invariant"])
def test_every_other_embedding_is_averaged(tmp_path: Path, embedding: str) -> None:
    weights = Run(tmp_path).train({"num_rounds": 1}, embedding=embedding).checkpoint().arrays
    assert weights[EMBEDDING] == pytest.approx(START[EMBEDDING] + MEAN_STEP, rel=1e-6)


def moved(by: float) -> Arrays:
    """The start, every weight moved; counters are whole numbers."""
    return {name: np.asarray(value + by, dtype=value.dtype) for name, value in START.items()}


def test_lonely_clients_keep_their_models_apart(tmp_path: Path) -> None:
    """Each client adds its own step a round to what it had."""
    run = Run(tmp_path).train(kind=LocalOnlyStrategy)
    weights = run.checkpoint().arrays
    assert weights.keys() == {f"{client}//{name}" for client in TRAIN for name in START}
    for client, step in TRAIN.items():
        own = {name: weights[f"{client}//{name}"] for name in START}
        assert_same(own, moved(2 * step))


def test_lonely_models_are_scored_at_home_and_in_every_val_client(tmp_path: Path) -> None:
    run = Run(tmp_path).train({"num_rounds": 1}, kind=LocalOnlyStrategy)
    found = [(line["client"], line["model"]) for line in run.lines("heldout") + run.lines("val")]
    assert found == [(c, c) for c in TRAIN] + [(val, client) for val in VAL for client in TRAIN]
    asked = [task for task, _, _ in run.fake.asked]
    scored = [pair for task, pair in zip(asked, run.fake.weights, strict=True) if task != "train"]
    seen = Counter((client, float(arrays["head.w"][0])) for client, arrays in scored)
    at_home = {(client, 1.0 + step): 1 for client, step in TRAIN.items()}
    away = {(val, 1.0 + step): 1 for val in VAL for step in TRAIN.values()}
    assert seen == at_home | away


def test_who_has_most_to_do_is_asked_first(tmp_path: Path) -> None:
    """By the images of the round before; all that are not known come as if they had the most."""
    run = Run(tmp_path).train({"num_rounds": 2})
    assert run.trained() == [["aachen", "bochum", "bremen"], ["bremen", "bochum", "aachen"]]


def test_a_client_that_joins_trains_from_the_next_round(tmp_path: Path) -> None:
    fake = nodes()
    grid = fake.grid
    hidden = {4}  # aachen

    class Joining(type(grid)):  # type: ignore[misc]
        def get_node_ids(self) -> Any:
            return [n for n in super().get_node_ids() if n not in hidden]

    grid.__class__ = Joining

    class Door(Listener):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if isinstance(event, RoundFinished) and event.round == 2:
                hidden.clear()

    run = Run(tmp_path, fake)
    run.listener = Door()
    run.train({"num_rounds": 4})
    assert [sorted(clients) for clients in run.trained()] == [["bochum", "bremen"]] * 2 + [
        list(TRAIN)
    ] * 2


def counted(num_examples: int) -> Answer:
    return lambda asked, client: reply(asked, client, num_examples=num_examples)


@pytest.mark.parametrize(
    ("says", "max_share", "step", "told"),
    [
        (2**24, 0.5, (0.5 * 2 + 0.5 * (1 * 1 + 3 * 3) / 4), ["100%", "reduced to 50%"]),
        (2**24, 0.75, (0.75 * 2 + 0.25 * (1 * 1 + 3 * 3) / 4), ["100%", "reduced to 75%"]),
        (12, 1.0, (12 * 2 + 1 * 1 + 3 * 3) / 16, ["75%"]),
        (12, 0.75, (12 * 2 + 1 * 1 + 3 * 3) / 16, ["75%"]),
        (4, 0.5, (4 * 2 + 1 * 1 + 3 * 3) / 8, []),
    ],
)
def test_a_client_is_no_more_of_a_mean_than_its_share_and_above_half_it_is_said(
    says: int, max_share: float, step: float, told: list[str], tmp_path: Path
) -> None:
    """What a client says of its images was its weight, up to 2^48: the mean was that client's."""
    run = Run(tmp_path, nodes({"bochum": counted(says)})).train({"max_share": max_share})
    assert run.checkpoint().arrays["head.w"] == pytest.approx(START["head.w"] + 2 * step, rel=1e-6)
    lines = [line for line in run.listener.messages if "of the mean" in line]
    assert len(lines) == bool(told)  # in round 1, once
    assert all(word in line for line in lines for word in told)


def test_norm_clipping_has_shares_too(tmp_path: Path) -> None:
    """One client of three moved the model by the whole clip norm each round."""
    rounds = {"aggregation": "norm-clipping", "clip_norm": 1.0, "max_share": 0.5, "num_rounds": 1}
    run = Run(tmp_path, nodes({"bremen": counted(2**24)})).train(rounds)
    moved = run.checkpoint().arrays["head.w"] - START["head.w"]
    assert moved == pytest.approx(np.full(3, 7**-0.5), rel=1e-5)  # all go the same way, by norm 1


def test_shares_do_not_depend_on_the_order_of_the_replies(tmp_path: Path) -> None:
    answers = {"bochum": counted(999)}
    found = []
    for order in (1, -1):
        clients: dict[str, Role] = dict.fromkeys(TRAIN, "train") | dict.fromkeys(VAL, "val")
        fake = FakeNodes(dict(list(clients.items())[::order]), answers)
        found.append(Run(tmp_path / str(order), fake).train({"max_share": 0.5}).checkpoint().arrays)
    assert_same(*found)


def unlabelled(asked: Request, client: str) -> Reply:
    nothing = {"loss": None, "num_examples": 0}
    return reply(asked, client, **(nothing if asked.task == "train" else {}))


def test_a_client_whose_owner_hides_its_loss_trains_the_mean(tmp_path: Path) -> None:
    run = Run(
        tmp_path, nodes({"bochum": lambda asked, client: reply(asked, client, loss=None)})
    ).train()
    assert run.checkpoint().arrays["head.w"] == pytest.approx(START["head.w"] + 2 * MEAN_STEP)
    assert [line["loss"] for line in run.lines("round")] == [(0.25 + 3 * 0.75) / 4] * 2


def test_a_client_without_labels_does_not_train_the_mean_and_its_loss_is_null(
    tmp_path: Path,
) -> None:
    """Without bochum: (1 * 1 + 3 * 3) / 4 = 2.5 a round."""
    run = Run(tmp_path, nodes({"bochum": unlabelled})).train()
    assert run.checkpoint().arrays["head.w"].tolist() == [6, 7, 8]
    own = [line for line in run.lines("train") if line["client"] == "bochum"]
    assert [line["loss"] for line in own] == [None, None]
    assert [line["loss"] for line in run.lines("round")] == [(0.25 + 3 * 0.75) / 4] * 2
    assert [line["rejected"] for line in run.lines("round")] == [[], []]
    told = [line for line in run.listener.messages if "labelled" in line]
    assert told == ["round 1: bochum: no labelled pixel to train on; its update is left out"]


def test_a_lonely_client_without_labels_stays_where_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path, nodes({"bochum": unlabelled})).train(kind=LocalOnlyStrategy)
    assert run.checkpoint().arrays["bochum//head.w"].tolist() == START["head.w"].tolist()
    assert run.checkpoint().arrays["aachen//head.w"].tolist() == [3, 4, 5]


def test_where_no_client_has_labels_the_run_ends_with_a_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no client has a labelled pixel to train on; check"):
        Run(tmp_path, nodes(dict.fromkeys(TRAIN, unlabelled))).train()
