"""The server over a whole run folder: all arms and seeds, one after the other, and after damage."""

import errno
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from descriptions import described
from fake_nodes import TRAIN, VAL, FakeNodes, Listener, nodes, reply
from fake_runs import FREE
from flwr.app import Context, Error, RecordDict

from fl_ppseg.config.loading import dump_config
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.progress.events import Event, RoundStarted, RunStarted
from fl_ppseg.progress.observer import Observer
from fl_ppseg.system.errors import RunError
from strategies import server_app
from strategies.server_app import Federation

ARMS = ["plain", "centralised", "local-only"]
NUM_NODES = len(TRAIN) + len(VAL)

pytestmark = pytest.mark.usefixtures("quick_collection")


class WatchedFolder(RunFolder):
    """Remembers which checkpoints it has read, and how many of them were alive at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: list[weakref.ref[Checkpoint]] = []
        self.most_alive = 0

    def latest(self, arm: str, seed: int) -> Checkpoint | None:
        gc.collect()
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self.read))
        found = super().latest(arm, seed)
        if found is not None:
            self.read.append(weakref.ref(found))
        return found


def checkpoint(arm: str, seed: int, round: int = 0) -> Checkpoint:
    return Checkpoint(round, {"head.w": np.zeros(3, np.float32)}, {}, described(arm, seed))


@pytest.fixture
def folder(tmp_path: Path) -> WatchedFolder:
    """A prepared run of three arms and two seeds."""
    federation = FREE | {"num_rounds": 2, "last_rounds": 1}
    settings = {"arms": ARMS, "seeds": [0, 1], "federation": federation}
    run = WatchedFolder(tmp_path)
    run.create(dump_config(Config.model_validate(settings)), "{}")
    for arm in ARMS:
        for seed in (0, 1):
            run.save(checkpoint(arm, seed), keep=2)
    return run


def federate(folder: RunFolder, observer: Observer | None = None) -> FakeNodes:
    fake = nodes()
    Federation(folder, observer or Listener(), NUM_NODES).run(fake.grid)
    return fake


def test_all_arms_and_seeds_are_trained_with_one_start_in_memory_at_a_time(
    folder: WatchedFolder,
) -> None:
    federate(folder)
    done = {(line["arm"], line["seed"], line["round"]) for line in folder.lines()}
    assert done == {(arm, seed, k) for arm in ARMS for seed in (0, 1) for k in (0, 1, 2)}
    assert folder.most_alive == 0


def test_a_centralised_arm_trains_in_one_place_and_is_scored_in_all(folder: RunFolder) -> None:
    federate(folder)
    own = [line for line in folder.lines() if (line["arm"], line["seed"]) == ("centralised", 0)]
    assert [line["client"] for line in own if line["role"] == "train"] == ["aachen"] * 2
    assert [line["client"] for line in own if line["role"] == "heldout"] == [*TRAIN] * 3


def test_every_arm_is_scored_before_its_first_round_and_each_client_is_asked_once(
    folder: RunFolder,
) -> None:
    """Clients that train alone start from the same weights: three models would be one thrice."""
    fake = federate(folder)
    own = [line for line in folder.lines() if line["round"] == 0]
    for arm in ARMS:
        for seed in (0, 1):
            lines = [x for x in own if (x["arm"], x["seed"]) == (arm, seed)]
            assert [x["role"] for x in lines] == ["heldout"] * 3 + ["val"] * 2 + ["round"]
            assert all(x["confusion"] for x in lines[:-1])
            assert not any("model" in x for x in lines)
            assert lines[-1]["loss"] is None and lines[-1]["rejected"] == []
    assert fake.asked[:5] == [("evaluate", 0, client) for client in (*TRAIN, *VAL)]
    assert fake.asked[5][:2] == ("train", 1)


def test_a_run_that_goes_on_does_not_score_its_start_again(folder: RunFolder) -> None:
    class Killed(Listener):
        def on_event(self, event: Event) -> None:
            if isinstance(event, RoundStarted) and event.round == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(folder, Killed())
    before = folder.lines()
    assert {line["round"] for line in before} == {0}
    fake = federate(folder)
    assert fake.asked[0][:2] == ("train", 1)
    assert [x for x in folder.lines() if x["round"] == 0][: len(before)] == before


def test_a_start_without_all_val_clients_has_no_score_and_the_run_goes_on(
    folder: RunFolder,
) -> None:
    def fails_once(asked: Request, client: str) -> Reply | Error:
        return Error(1, "out of order") if asked.round == 0 else reply(asked, client)

    observer, fake = Listener(), nodes({"munster": fails_once})
    Federation(folder, observer, NUM_NODES).run(fake.grid)
    own = [line for line in folder.lines() if (line["arm"], line["seed"]) == ("plain", 0)]
    assert all(x["confusion"] is None for x in own if x["round"] == 0 and x["role"] == "val")
    assert "round 0: val: no scores without munster" in observer.messages
    assert any(x["confusion"] for x in own if x["round"] == 2 and x["role"] == "val")


def test_a_run_goes_on_before_its_damaged_checkpoints_which_are_removed(folder: RunFolder) -> None:
    for round in (1, 2):
        folder.save(checkpoint("plain", 0, round), keep=3)
    damaged = folder.path / "plain" / "seed_0" / "round_0002.safetensors"
    damaged.write_bytes(b"damaged")
    about = {
        "arm": "plain",
        "seed": 0,
        "round": 2,
        "role": "val",
        "client": "ulm",
        "num_examples": 1,
    }
    folder.append([about | {"confusion": None, "bytes_up": 0, "bytes_down": 0, "seconds": 0.1}])

    class AtStart(Listener):
        def on_event(self, event: Event) -> None:
            if isinstance(event, RunStarted):
                self.found = sorted(path.stem for path in damaged.parent.glob("*.json"))
            super().on_event(event)

    observer = AtStart()
    fake = federate(folder, observer)
    assert observer.found == ["round_0000", "round_0001"]
    own = [line for line in folder.lines() if (line["arm"], line["seed"]) == ("plain", 0)]
    assert {line["round"] for line in own} == {2}
    assert len([line for line in own if line["role"] == "val"]) == len(VAL)
    found = folder.latest("plain", 0)
    assert found is not None
    assert found.round == 2
    assert fake.asked[0] == ("train", 2, "aachen")


def test_a_full_disk_ends_the_run_with_a_line_for_a_person(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder.results))

    monkeypatch.setattr(Federation, "run", fill)
    context = Context(1, 1, {}, RecordDict(), {"run-dir": str(folder.path), "num-nodes": 1})
    with pytest.raises(RunError, match=f"no space left .* while writing {folder.results};"):
        server_app.main(None, context)  # type: ignore[arg-type]
