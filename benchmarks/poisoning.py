"""What two lying clients of eighteen do to each aggregation, and what each costs without liars.

    python benchmarks/poisoning.py [--attack flip|noise] [--set key=value ...]

Trains the arm `plain` of the quick config with every aggregation, once with honest clients and once
with two that send ten times their update the other way (`flip`) or normal noise of that length
(`noise`). Prints mIoU in percent over the val clients after the last round, and of the starting
weights. The limits on the norm of an update are set from the median of the honest run.
"""

import argparse
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from rich.console import Console

from clients.client_app import app
from clients.policy.node_policy import NODES_VARIABLE
from fl_ppseg.config.loading import dump_config, load_config
from fl_ppseg.experiment.preparation import prepare
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.in_process import run_in_process
from fl_ppseg.learning.scores import round_scores
from fl_ppseg.progress.observer import SilentObserver
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.system.files import available_cpus
from fl_ppseg.system.workers import work_at_once
from strategies.server_app import Federation, build_server_app

ARM = "plain"
LIARS = ("aachen", "ulm")
STRENGTH = 10.0


class Task(NamedTuple):
    """One training of the arm."""

    start: str
    """Run folder with the starting weights."""
    out: str
    nodes: str
    num_nodes: int
    federation: dict[str, Any]
    attack: str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attack", choices=["flip", "noise"], default="flip")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        for row in table(Path(scratch), options.set, options.attack):
            print(row, flush=True)
    print(f"{time.perf_counter() - begin:.0f} s")


def table(scratch: Path, assignments: list[str], attack: str) -> Iterator[str]:
    settings = {"arms": [ARM], "engine": "in-process", "federation.evaluate_every": 1000}
    config = load_config("quick", assignments, settings)
    with StepProgress(Console(stderr=True), quiet=True) as progress:
        folder = RunFolder(scratch / "start")
        run = prepare(config, folder, scratch / "vaults", available_cpus(), progress)

    def task(number: int, federation: dict[str, Any], attack: str | None) -> Task:
        out = scratch / f"run_{number}"
        return Task(str(folder.path), str(out), str(run.nodes), run.num_nodes, federation, attack)

    recorded = {"max_norm_ratio": 1e9}  # nothing is that long; it writes the norms down
    first = list(work_at_once(train, [task(0, recorded, None), task(1, {}, attack)], 2, "training"))
    (clean, norms), (attacked, _) = (result for _, result in sorted(first))
    usual = median(norms)
    yield f"median norm of an honest update {usual:.3g}, attack {attack}, liars {', '.join(LIARS)}"
    yield f"{'aggregation':34s} {'clean':>6s} {'attacked':>9s}"
    yield f"{'mean':34s} {clean:6.1f} {attacked:9.1f}"
    others = candidates(usual)
    tasks = [
        task(2 + 2 * k + bool(lie), federation, lie)
        for k, federation in enumerate(others.values())
        for lie in (None, attack)
    ]
    found = {}
    for number, (miou, _) in work_at_once(train, tasks, available_cpus(), "training"):
        found[number] = miou
    for k, name in enumerate(others):
        yield f"{name:34s} {found[2 * k]:6.1f} {found[2 * k + 1]:9.1f}"


def candidates(usual: float) -> dict[str, dict[str, Any]]:
    """Settings by what the table calls them; `usual` is the norm of an honest update."""
    return {
        "mean, max_update_norm 3 x median": {"max_update_norm": 3 * usual},
        "norm-clipping, clip_norm = median": {"aggregation": "norm-clipping", "clip_norm": usual},
        "median": {"aggregation": "median"},
        "trimmed-mean, beta 0.15": {"aggregation": "trimmed-mean", "trim_fraction": 0.15},
        "krum, f = 2": {"aggregation": "krum", "num_byzantine": 2},
        "multi-krum, f = 2": {"aggregation": "multi-krum", "num_byzantine": 2},
    }


def train(task: Task) -> tuple[float, list[float]]:
    """mIoU of the last round, and the norms of all accepted updates that were written down."""
    logging.disable(logging.WARNING)  # each rejected update is told
    folder = RunFolder(Path(task.out))
    shutil.copytree(task.start, folder.path)
    config = load_config(folder.config)
    federation = config.federation.model_copy(update=task.federation)
    folder.config.write_text(dump_config(config.model_copy(update={"federation": federation})))
    os.environ[NODES_VARIABLE] = task.nodes
    server_app = build_server_app(Federation(folder, SilentObserver(), task.num_nodes))
    run_in_process(server_app, Client(task.attack), task.num_nodes)  # type: ignore[arg-type]
    last = [x for x in folder.lines() if x["round"] == federation.num_rounds]
    scores = round_scores(line for line in last if line["role"] == "val")
    trained = [line for line in folder.lines() if line["role"] != "round"]
    norms = [line["update_norm"] for line in trained if "update_norm" in line]
    return (scores.mIoU if scores else float("nan")), norms


class Client:
    """The node's app, of which some lie."""

    def __init__(self, attack: str | None) -> None:
        self.attack = attack

    def __call__(self, message: Message, context: Any) -> Message:
        reply = app(message, context)
        task = message.content.config_records["settings"]["task"]
        if task == "describe" or reply.has_error():
            return reply
        asked = message.content.array_records["arrays"]
        is_liar = reply.content.config_records["settings"]["client"] in LIARS
        if self.attack and task == "train" and is_liar:
            self.poison(reply.content.array_records["arrays"], asked)
        return reply

    def poison(self, arrays: ArrayRecord, asked: ArrayRecord) -> None:
        chance = np.random.default_rng(0)
        for name, array in arrays.items():
            before = asked[name].numpy()
            update = STRENGTH * (array.numpy() - before)
            if self.attack == "noise":
                deviation = np.linalg.norm(update) / np.sqrt(max(1, update.size))
                update = deviation * chance.normal(size=update.shape)
            arrays[name] = Array(np.asarray(before - update, before.dtype))


if __name__ == "__main__":
    main()
