"""What a round of 10 to 1,000 clients costs: one simulation of each number, on both engines.

    python benchmarks/bench_clients.py [--clients 10,30,100,300,1000] [--engines ray,in-process]
                                       [--rounds 3] [--out DIR] [--keep]

Runs `python -m fl_ppseg.simulate --clients N` with a model of 7,227 weights, four images of 32x64 a
client, and every client trained and scored in every round, so that what is left is the cost of
having clients. An observer (`--observer`) notes at the end of each round the wall time, the
processor time of all processes of the command, and the peak resident set of the coordinator's
process since the first round began. A row is the mean over the rounds after the first.

Where cost is linear in the number of clients, the slope of log cost over log clients is at most 1;
the slope is given between the two largest numbers, where the fixed costs of a round count least,
and fitted over all. `--out` gets the table as clients.md, and the curves as clients.svg.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Final, NamedTuple

import psutil

from fl_ppseg.progress.events import Event, RoundFinished, RoundStarted
from fl_ppseg.progress.observer import Observer

REPOSITORY: Final = Path(__file__).parents[1]
COSTS: Final = "costs.jsonl"
"""In the run folder: a line per round."""
SETTINGS: Final = (
    "data.scene_size=[32,64]", "data.image_size=[32,64]", "data.num_val=6", "data.num_views=1",
    "partition.kind=iid", "model.embed_dim=16", "model.depth=1", "model.num_heads=1",
    "model.decoder=naive", "model.decoder_channels=8", "model.num_convs=1",
    "federation.last_rounds=1", "federation.evaluate_every=1", "federation.fraction_train=1.0",
    "federation.wait_seconds=3600", "training.batch_size=2",
)  # fmt: skip
IMAGES_A_CLIENT: Final = 4


class RoundCosts(Observer):
    """Notes what every round has cost by its end; `--observer benchmarks.bench_clients:...`."""

    def __init__(self, run: Path) -> None:
        self._path = run / COSTS
        self._is_reset = False

    def on_event(self, event: Event) -> None:
        """Forgets the peak of the preparation at the first round, and notes each round."""
        match event:
            case RoundStarted() if not self._is_reset:
                Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
                self._is_reset = True
            case RoundFinished():
                line = {
                    "round": event.round,
                    "wall": time.monotonic(),
                    "cpu": processor_seconds(),
                    "peak_mb": peak_mb(),
                }
                with self._path.open("a") as file:
                    file.write(json.dumps(line) + "\n")


def processor_seconds() -> float:
    """Of this process and all that it has started and that still run."""
    this = psutil.Process()
    times = [each.cpu_times() for each in (this, *this.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def peak_mb() -> float:
    """Largest resident set of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class Row(NamedTuple):
    """What one number of clients costs."""

    engine: str
    clients: int
    wall: float
    """Seconds a round."""
    cpu: float
    """Processor seconds a round."""
    peak_mb: float
    """Of the coordinator's process during the rounds."""
    command: float
    """Wall seconds of the whole command."""
    report_mb: float
    """Size of report.html."""


def measured(engine: str, num_clients: int, num_rounds: int, place: Path) -> Row:
    """Run one simulation; raises CalledProcessError if it fails."""
    run = place / f"{engine}-{num_clients}"
    given = [*SETTINGS, f"federation.num_rounds={num_rounds}"]
    given.append(f"data.num_train={IMAGES_A_CLIENT * num_clients}")
    command = [sys.executable, "-m", "fl_ppseg.simulate", "--clients", str(num_clients)]
    command += ["--engine", engine, "--arms", "plain", "--out", str(run), "--quiet"]
    command += ["--vault-dir", str(place / f"{engine}-{num_clients}-vaults")]
    command += ["--observer", f"benchmarks.bench_clients:{RoundCosts.__name__}"]
    for assignment in given:
        command += ["--set", assignment]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    seconds = time.perf_counter() - begin
    found = [json.loads(line) for line in (run / COSTS).read_text().splitlines()]
    first, last = found[1], found[-1]  # found[0] is the scoring of the initial weights
    rounds = last["round"] - first["round"]
    return Row(
        engine,
        num_clients,
        (last["wall"] - first["wall"]) / rounds,
        (last["cpu"] - first["cpu"]) / rounds,
        last["peak_mb"],
        seconds,
        (run / "report.html").stat().st_size / 1e6,
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the least-squares line through (log x, log y).

    >>> round(slope([(1, 5), (10, 50), (100, 500)]), 6)
    1.0
    """
    xs, ys = [[math.log(value) for value in axis] for axis in zip(*points, strict=True)]
    x, y = fmean(xs), fmean(ys)
    spread = sum((each - x) ** 2 for each in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread


def table(rows: Sequence[Row]) -> str:
    """A row per engine and number of clients, and the slopes of each engine."""
    lines = [
        "| engine | clients | wall s a round | CPU s a round | CPU ms a client and round "
        "| coordinator MB | command s | report MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.engine} | {r.clients:,} | {r.wall:.2f} | {r.cpu:.2f} | "
        f"{1e3 * r.cpu / r.clients:.1f} | {r.peak_mb:.0f} | {r.command:.0f} | {r.report_mb:.2f} |"
        for r in rows
    ]
    for engine in dict.fromkeys(row.engine for row in rows):
        mine = [row for row in rows if row.engine == engine]
        if len(mine) > 1:
            lines += ["", f"{engine}: slope of log cost over log clients, {_slopes(mine)}"]
    return "\n".join(lines) + "\n"


def _slopes(rows: Sequence[Row]) -> str:
    parts = []
    for name in ("wall", "cpu", "command", "peak_mb"):
        points = [(row.clients, getattr(row, name)) for row in rows]
        parts.append(f"{name} {slope(points[-2:]):.2f} (fitted over all {slope(points):.2f})")
    return "between the two largest numbers: " + ", ".join(parts)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Wall and processor seconds a round over the number of clients, and linear growth beside."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True)
    what = (("wall", "wall seconds a round"), ("cpu", "processor seconds a round"))
    for panel, (name, title) in zip(axes, what, strict=True):
        for engine in dict.fromkeys(row.engine for row in rows):
            mine = [row for row in rows if row.engine == engine]
            counts = [row.clients for row in mine]
            values = [getattr(row, name) for row in mine]
            panel.loglog(counts, values, marker="o", label=engine)
        linear = [values[-1] * count / counts[-1] for count in counts]
        panel.loglog(counts, linear, "--", color="grey", label="linear")
        panel.set(title=title, xlabel="clients")
        panel.grid(visible=True, which="both", alpha=0.2)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run every number of clients on every engine; print the table, and write it and the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clients", default="10,30,100,300,1000")
    parser.add_argument("--engines", default="ray,in-process")
    parser.add_argument("--rounds", type=int, default=3, help="at least 2")
    parser.add_argument("--out", type=Path, help="write clients.md and clients.svg here")
    parser.add_argument("--keep", action="store_true", help="keep the runs under --out")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        place = options.out if options.keep and options.out else Path(scratch)
        for number in map(int, options.clients.split(",")):
            for engine in options.engines.split(","):
                rows.append(measured(engine, number, options.rounds, place))
                print(" ".join(map(str, rows[-1])), file=sys.stderr, flush=True)
    rows.sort(key=lambda row: options.engines.index(row.engine))
    text = table(rows)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "clients.md").write_text(text)
        draw(rows, options.out / "clients.svg")


if __name__ == "__main__":
    main()
