"""What clients say of their images: the same over rounds, arms, seeds and pauses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptions import described
from fake_nodes import TRAIN, Answer, Listener, nodes, reply, request
from fake_runs import FREE

from fl_ppseg.config.loading import dump_config
from fl_ppseg.config.sections import Config
from fl_ppseg.deployment.clients import Clients, save_clients
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.results import Line
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.errors import RunError
from strategies.rounds.reported_counts import ReportedCounts, ReportedCountsError
from strategies.server_app import Federation

COUNTS = np.array([[7, 3], [2, 8]])


def trained(num_examples: int) -> Any:
    return reply(request(task="train"), "aachen", num_examples=num_examples)


def scored(counts: Any, num_examples: int = 2) -> Any:
    asked = request(task="evaluate")
    return reply(asked, "lindau", confusion=np.array(counts), num_examples=num_examples)


def test_the_first_answer_is_the_measure_of_all_later_ones() -> None:
    reported = ReportedCounts({})
    reported.check_training("plain", "aachen", trained(9))
    reported.check_training("per-image", "aachen", trained(9))
    reported.check_training("plain", "bochum", trained(5))
    with pytest.raises(ReportedCountsError, match="expected 9 training images as before, got 10"):
        reported.check_training("plain", "aachen", trained(10))
    reported.check_scoring("lindau", scored(COUNTS))
    reported.check_scoring("lindau", scored([[10, 0], [10, 0]]))  # another model, the same labels
    with pytest.raises(ReportedCountsError, match="expected 2 scored images as before, got 3"):
        reported.check_scoring("lindau", scored(COUNTS, 3))


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ([[7, 4], [2, 8]], "expected 10 pixels labelled as class 0 as before, got 11"),
        ([[10, 0], [0, 11]], "expected 10 pixels labelled as class 1 as before, got 11"),
        ([[0, 0], [0, 0]], "labelled as class 0 as before, got 0"),
        ([[9, 0], [0, 11]], "labelled as class 0 as before, got 9"),
    ],
)
def test_label_maps_stay_the_same(counts: list[list[int]], why: str) -> None:
    reported = ReportedCounts({})
    reported.check_scoring("lindau", scored(COUNTS))
    with pytest.raises(ReportedCountsError, match=why):
        reported.check_scoring("lindau", scored(counts))


def test_what_was_dealt_is_the_measure_of_the_first_answer() -> None:
    reported = ReportedCounts({"aachen": 9, "bochum": 4}, pooled=["centralised"])
    assert reported.knows_sizes
    with pytest.raises(
        ReportedCountsError, match="expected at most 9 training images as dealt, got 10"
    ):
        reported.check_training("plain", "aachen", trained(10))
    with pytest.raises(ReportedCountsError, match="expected at most 0 training images as dealt"):
        reported.check_training("plain", "zurich", trained(1))
    reported.check_training("plain", "aachen", trained(8))
    reported.check_training("centralised", "aachen", trained(12))  # on the images of all
    with pytest.raises(
        ReportedCountsError, match="expected at most 13 training images as dealt, got 14"
    ):
        reported.check_training("centralised", "aachen", trained(14))


LINES: list[Line] = [
    {"role": "train", "arm": "plain", "client": "aachen", "num_examples": 9, "confusion": None},
    {"role": "val", "arm": "plain", "client": "ulm", "num_examples": 2, "confusion": None},
    {
        "role": "val",
        "arm": "plain",
        "client": "lindau",
        "num_examples": 2,
        "confusion": COUNTS.tolist(),
    },
    {"role": "round", "arm": "plain", "client": None, "confusion": None},
]


def test_a_run_that_goes_on_remembers() -> None:
    reported = ReportedCounts({}, LINES)
    with pytest.raises(ReportedCountsError, match="expected 9 training images as before"):
        reported.check_training("per-image", "aachen", trained(8))
    with pytest.raises(ReportedCountsError, match="expected 10 pixels labelled"):
        reported.check_scoring("lindau", scored([[7, 4], [2, 8]]))
    reported.check_scoring("ulm", scored([[1, 0], [0, 0]]))  # had no counts yet


def prepared(path: Path) -> RunFolder:
    """A deployed run of two arms, of the clients of `nodes()` but bremen."""
    federation = FREE | {"num_rounds": 2, "last_rounds": 1, "wait_seconds": 0.1}
    config = Config.model_validate({"arms": ["plain", "per-image"], "federation": federation})
    run = RunFolder(path)
    run.path.mkdir(exist_ok=True)
    run.config.write_text(dump_config(config))
    save_clients(Clients(train=("aachen", "bochum"), val=("lindau", "munster")), path)
    for arm in config.arms:
        start = {"head.w": np.ones(3, np.float32)}
        run.save(Checkpoint(0, start, {}, described(arm)), keep=2)
    return run


def in_arm(arm: str, bad: Answer) -> Answer:
    """Honest in other arms."""
    return lambda asked, client: bad(asked, client) if asked.arm == arm else reply(asked, client)


def more_road(asked: Request, client: str) -> Any:
    changed = {} if asked.task == "train" else {"confusion": np.array([[11, 2], [0, 5]])}
    return reply(asked, client, **changed)


def test_over_arms_a_val_client_keeps_its_label_maps_and_strangers_stay_out(tmp_path: Path) -> None:
    """A stranger trained and scored, and label maps grew from arm to arm: not a line was said."""
    run, observer = prepared(tmp_path), Listener()
    fake = nodes({"munster": in_arm("per-image", more_road)})
    with pytest.raises(
        RunError, match="munster: expected 11 pixels labelled as class 0 as before, got 13"
    ):
        Federation(run, observer, 4).run(fake.grid)
    assert {client for _, _, client in fake.asked} == {"aachen", "bochum", "lindau", "munster"}
    assert any(
        "bremen is not one of the 4 clients in clients.json of this run" in line
        for line in observer.messages
    )
    rounds = [line for line in run.lines() if line["role"] == "round"]
    assert [line["rejected"] for line in rounds if line["arm"] == "plain"] == [[], [], []]
    scored = [x for x in run.lines() if x["role"] == "val" and x["arm"] == "per-image"]
    assert all(line["confusion"] is None for line in scored)  # no score of a part of the clients


def test_over_a_pause_too(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    Federation(run, Listener(), 4).run(nodes().grid)
    run.discard_after("per-image", 0, 1)
    fake = nodes({"aachen": lambda asked, client: reply(asked, client, num_examples=77)})
    Federation(run, Listener(), 4).run(fake.grid)
    (last,) = [x for x in run.lines() if x["role"] == "round" and x["arm"] == "per-image"][-1:]
    assert "aachen: expected 1 training images as before, got 77" in last["rejected"][0]
    json.dumps(last, allow_nan=False)
    assert TRAIN["aachen"] == 1
