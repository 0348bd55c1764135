"""The overhead of our rounds beside that of Flower's own loop and FedAvg, for the same work.

    python benchmarks/bench_flower_loop.py [--rounds 4] [--repetitions 3] [--workers 2]
                                           [--set key=value ...]

A quick run of 18 clients (arm `plain`) is prepared once. Then its rounds are run in turn by

- ours: `strategies.server_app` with its discovery, checks, exact mean, results and checkpoints, on
  the Ray cluster that `simulate` starts;
- Flower's: `flwr.serverapp.strategy.FedAvg` and its `start`, under `run_simulation` of
  `flwr.simulation`, which starts Ray itself.

Both drive the same ClientApp with the same images, weights, seeds, rounds and number of workers,
each from a fresh copy of what was prepared, in a process of its own, the order changing from one
repetition to the next. What is adapted of FedAvg: each message holds the request that the ClientApp
asks for in place of FedAvg's record, only nodes that train are asked to, and a reply's one packed
array is handed to FedAvg's aggregation as an ArrayRecord with its number of examples. The seconds
that this adapting takes are not counted as Flower's.

Overhead is wall time less compute: worker-seconds of local updates and evaluation over the number
of workers (`fl_ppseg.federation.profile`). A part of it is the ClientApp's own (policy, ledger,
messages), the same on both sides; without it stays that of loop and engine, in which nodes have
nothing to do. The weights after the first and the last round are
compared: FedAvg sums in float32 in the order of arrival, and training carries that on.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final, NamedTuple, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file, save_file

from clients.policy.node_policy import NODES_VARIABLE, nodes_folder
from fl_ppseg.config.loading import arms_of, load_config
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import pack_request, unpack_arrays, unpack_description
from fl_ppseg.federation.profile import shared_out
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_identity import read_identity
from fl_ppseg.flower.ray_cluster import RayCluster, run_on_ray
from fl_ppseg.progress.events import Event, RoundFinished
from fl_ppseg.progress.observer import Observer
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.spans import FOLDER, Part, Span, begin_of_process, recorded_spans
from strategies.server_app import Federation, build_server_app

ARM: Final = "plain"
NUM_VAL: Final = 3
SIDES: Final = ("ours", "Flower's")
TOLERANCE: Final = 1e-5
"""Largest distance of the weights after round 1, over their norm."""


class Cuts(Observer):
    """When each round ended, in nanoseconds of the monotonic clock."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def on_event(self, event: Event) -> None:
        """Notes the end of a round that trains."""
        if isinstance(event, RoundFinished) and event.round:
            self.ends.append(time.monotonic_ns())


class AdaptedFedAvg(FedAvg):
    """FedAvg, with messages as our ClientApp reads and writes them."""

    def __init__(self, request: Request, trainers: set[int], num_nodes: int, cuts: Cuts) -> None:
        super().__init__(min_available_nodes=num_nodes)
        self._request = request
        self._trainers = trainers
        self._cuts = cuts
        self.adapting: list[int] = []
        """Nanoseconds of each round that Flower's own apps would not spend."""
        self.first: ArrayRecord | None = None
        """Weights after round 1."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages to the nodes that train."""
        self.adapting.append(0)
        messages = super().configure_train(server_round, arrays, config, grid)
        asked = [each for each in messages if each.metadata.dst_node_id in self._trainers]
        return self._adapted(asked, "train", server_round, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """FedAvg's mean of the replies."""
        arrays, metrics = super().aggregate_train(server_round, self._read(replies))
        self.first = self.first or arrays
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages to all nodes."""
        messages = super().configure_evaluate(server_round, arrays, config, grid)
        return self._adapted(messages, "evaluate", server_round, arrays)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """FedAvg's mean of the counts; the end of a round."""
        metrics = super().aggregate_evaluate(server_round, self._read(replies))
        self._cuts.ends.append(time.monotonic_ns())
        return metrics

    def _adapted(
        self, messages: Iterable[Message], task: Any, round: int, arrays: ArrayRecord
    ) -> list[Message]:
        begin = time.monotonic_ns()
        weights = {name: value.numpy() for name, value in arrays.items()}
        content = pack_request(replace(self._request, task=task, round=round, arrays=weights))
        made = [
            Message(content, each.metadata.dst_node_id, each.metadata.message_type)
            for each in messages
        ]
        self.adapting[-1] += time.monotonic_ns() - begin
        return made

    def _read(self, replies: Iterable[Message]) -> list[Message]:
        begin, read = time.monotonic_ns(), []
        for message in replies:
            if message.has_error():
                raise RuntimeError(f"expected good replies, got {message.error.reason}")
            figures = message.content.metric_records["figures"]
            metrics = MetricRecord({"num-examples": figures["num_examples"]})
            if confusion := figures["confusion"]:
                metrics["confusion"] = confusion
            arrays = unpack_arrays(message.content.array_records["arrays"])
            message.content = RecordDict({"arrays": as_record(arrays), "metrics": metrics})
            read.append(message)
        self.adapting[-1] += time.monotonic_ns() - begin
        return read


def as_record(arrays: Arrays) -> ArrayRecord:
    """Weights as Flower's own apps send them, an array of each tensor."""
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})


def ours(run: Path, num_workers: int, cuts: Cuts) -> dict[str, Any]:
    """The rounds of a prepared run, by this program."""
    cluster = RayCluster(num_workers, preloaded="clients.client_app")
    try:
        from clients.client_app import app

        num_nodes = load_config(run / "config.yaml").clients + NUM_VAL
        federation = Federation(RunFolder(run), cuts, num_nodes)
        run_on_ray(build_server_app(federation), app, num_nodes, cluster)
    finally:
        cluster.stop()
    return {"adapting": [0] * len(cuts.ends)}


def flowers(run: Path, num_workers: int, cuts: Cuts) -> dict[str, Any]:
    """The rounds of a prepared run, by Flower's own loop and FedAvg; keeps its weights."""
    from flwr.simulation import run_simulation

    from clients.client_app import app

    config = load_config(run / "config.yaml")
    num_nodes = config.clients + NUM_VAL
    start = RunFolder(run).latest(ARM, config.seeds[0])
    identity = read_identity(run)
    assert start is not None
    request = Request(
        task="describe", run_id="benchmark", round=0, num_rounds=config.federation.num_rounds,
        arm=ARM, seed=config.seeds[0], embedding=arms_of(config)[ARM].embedding,
        num_classes=len(start.description.classes), model=start.description.model,
        training=config.training, run="" if identity is None else str(identity),
    )  # fmt: skip
    told: dict[str, Any] = {}
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = AdaptedFedAvg(request, trainers(grid, request, num_nodes), num_nodes, cuts)
        rounds = config.federation.num_rounds
        result = strategy.start(grid, as_record(start.arrays), num_rounds=rounds)
        told["adapting"] = strategy.adapting
        for name, arrays in (("first", strategy.first), ("last", result.arrays)):
            assert arrays is not None
            weights = {key: value.numpy() for key, value in arrays.items()}
            save_file(weights, run / f"{name}.safetensors")

    backend: Any = {"client_resources": {"num_cpus": 1.0}, "init_args": {"num_cpus": num_workers}}
    run_simulation(server_app, app, num_nodes, backend_config=backend)
    return told


def trainers(grid: Grid, request: Request, num_nodes: int) -> set[int]:
    """Ids of the nodes that train, once all are connected; each is asked what it is."""
    while len(node_ids := list(grid.get_node_ids())) < num_nodes:
        time.sleep(0.1)
    content = pack_request(request)
    queries = [Message(content, node_id, "query") for node_id in node_ids]
    replies = grid.send_and_receive(queries, timeout=600)
    roles = {each.metadata.src_node_id: unpack_description(each.content).role for each in replies}
    return {node_id for node_id, role in roles.items() if role == "train"}


def one(side: str, run: Path, num_workers: int) -> None:
    """Run the rounds in this process, and print where their time went."""
    began, cuts = begin_of_process(), Cuts()
    with recorded_spans() as spans:
        told = {"ours": ours, "Flower's": flowers}[side](run, num_workers, cuts)
        found, of_nodes, now = spans.new(), spans_of_nodes(), time.monotonic_ns()
    borders = list(zip([began, *cuts.ends], cuts.ends, strict=False))
    rounds = [shared_out(found, first, last, num_workers) for first, last in borders]
    whole = shared_out(found, began, now, num_workers)
    idle = [shared_out(of_nodes, first, last, num_workers).waiting for first, last in borders]
    told |= {
        "rounds": [(each.wall, each.compute) for each in rounds],
        "idle": idle,
        "whole": (whole.wall, whole.compute),
    }
    print("\n" + json.dumps(told))


def spans_of_nodes() -> list[Span]:
    """The spans that other processes than this one have noted: those of the ClientApp."""
    found = []
    for path in Path(os.environ[FOLDER]).iterdir():
        if not path.name.startswith(f"{os.getpid()}-"):
            for line in path.read_text("ascii").splitlines():
                part, begin, end = line.split()
                found.append(Span(cast(Part, part), int(begin), int(end)))
    return found


def measured(side: str, prepared: Path, nodes: Path, scratch: Path, options: Any) -> Path:
    """Run a side on a fresh copy; its folder, with what it told in told.json."""
    run = scratch / f"{len(list(scratch.iterdir()))}"
    shutil.copytree(prepared, run)
    shutil.copytree(nodes, run / "nodes")
    call = [sys.executable, __file__, "--one", side, "--of", str(run)]
    call += ["--workers", str(options.workers)]
    environment = os.environ | {NODES_VARIABLE: str(run / "nodes")}
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    with (run / "side.log").open("w") as log:
        done = subprocess.run(
            call, check=True, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    (run / "told.json").write_text(done.stdout.splitlines()[-1])
    return run


def distances(ours: Path, theirs: Path, seed: int, num_rounds: int) -> list[float]:
    """Of the weights after the first and the last round, over their norm."""
    found = []
    for name, round_ in (("first", 1), ("last", num_rounds)):
        file = ours / ARM / f"seed_{seed}" / f"round_{round_:04d}.safetensors"
        mine, other = load_file(file), load_file(theirs / f"{name}.safetensors")
        change = [
            float(((mine[f"model/{key}"] - value) ** 2).sum()) for key, value in other.items()
        ]
        size = [float((value**2).sum()) for value in other.values()]
        found.append(math.sqrt(sum(change) / sum(size)))
    return found


class Overheads(NamedTuple):
    """Seconds of a run; the rounds are those after the first."""

    a_round: float
    loop: float
    """Of a round, without the ClientApp's own."""
    compute: float
    """Of a round, to compare with."""
    command: float


def overheads(run: Path) -> Overheads:
    """What a side told, without its adapting."""
    told = json.loads((run / "told.json").read_text())
    adapting = [each / 1e9 for each in told["adapting"]]
    rounds = zip(told["rounds"], adapting, strict=True)
    later = [wall - compute - own for (wall, compute), own in rounds][1:]
    loop = [idle - own for idle, own in zip(told["idle"], adapting, strict=True)][1:]
    wall, compute = told["whole"]
    return Overheads(
        fmean(later),
        fmean(loop),
        fmean(each[1] for each in told["rounds"][1:]),
        wall - compute - sum(adapting),
    )


def main() -> None:
    """Run both sides in turn, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.of, options.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        prepared, vaults, scratch = (Path(folder) / name for name in ("run", "vaults", "copies"))
        scratch.mkdir()
        command = [sys.executable, "-m", "fl_ppseg.simulate", "--quick", "--arms", ARM, "--prepare"]
        command += ["--quiet", "--out", str(prepared), "--vault-dir", str(vaults)]
        given = [f"federation.num_rounds={options.rounds}", *options.set]
        for assignment in [*given, f"federation.keep_checkpoints={options.rounds}"]:
            command += ["--set", assignment]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        nodes = nodes_folder(vaults, prepared)
        compare(prepared, nodes, scratch, options)


def compare(prepared: Path, nodes: Path, scratch: Path, options: argparse.Namespace) -> None:
    """Print a line per run, the medians, their ratios, and how far the weights are apart."""
    seed = load_config(prepared / "config.yaml").seeds[0]
    found: dict[str, list[Overheads]] = {side: [] for side in SIDES}
    apart = []
    titles = ("overhead a round", "of loop, engine", "compute a round", "overhead of all")
    print(f"{'seconds':10}{'load':>6}" + "".join(f"{title:>18}" for title in titles))
    for repetition in range(options.repetitions):
        runs = {}
        for side in SIDES if repetition % 2 else reversed(SIDES):
            load = os.getloadavg()[0]
            runs[side] = measured(side, prepared, nodes, scratch, options)
            seconds = overheads(runs[side])
            found[side].append(seconds)
            numbers = "".join(f"{each:18.2f}" for each in seconds)
            print(f"{side:10}{load:6.1f}{numbers}", flush=True)
        apart.append(distances(runs["ours"], runs["Flower's"], seed, options.rounds))
    for name, what in (
        ("a_round", "overhead of a round after the first"),
        ("loop", "of it loop and engine"),
        ("command", "overhead of the command"),
    ):
        mine, theirs = (median(getattr(each, name) for each in found[side]) for side in SIDES)
        ratio = f"{theirs / mine:.2f} times less" if mine > 0 else "no ratio"
        print(f"{what}: ours {mine:.2f} s, Flower's {theirs:.2f} s (medians): {ratio}")
    first, last = (max(pair[place] for pair in apart) for place in (0, 1))
    print(f"weights apart, over their norm: {first:.1e} after round 1, {last:.1e} after the last")
    if first > TOLERANCE:
        sys.exit(f"expected the same weights to {TOLERANCE:g} after round 1")


if __name__ == "__main__":
    main()
