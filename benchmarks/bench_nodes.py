"""How much longer a round takes with a real node each client than in the simulation.

    sudo python -m benchmarks.bench_nodes [--clients 18] [--folder DIR]

The coordinator and all nodes run on this machine, each in a network namespace of its own, with the
commands that their people type (`benchmarks/faults/federation.py`); then the same config on the
same images in one simulation on Ray. Prints seconds a round after the first, processor seconds of
each kind of program, and what the nodes' logs say of their messages.
"""

import argparse
import math
import re
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from benchmarks.faults.federation import COORDINATOR, Federation
from benchmarks.faults.injections import nothing
from benchmarks.faults.programs import python
from benchmarks.faults.trial import Trial
from fl_ppseg.federation.run_folder import RunFolder

ANSWERED: Final = re.compile(
    r"(\w+): fetched in ([\d.]+) s, answered in ([\d.]+) s, sent in ([\d.]+) s"
)
"""A line of a node's log on one message."""
SETTLE_SECONDS: Final = 5.0
MAX_SETTLES: Final = 24
SETTLED: Final = 0.6
"""Processor seconds a second of programs that only ask whether there is something to do."""


def main() -> None:
    """Run both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clients", type=int, default=18, help="training clients (18)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where, kept and used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        with Federation(folder, options.clients) as federation:
            federation.connect()
            _settle(federation)
            for log in _logs(folder):
                log.write_text("")
            before = _used(federation)
            run = federation.run_folder("timed", {}, folder)
            outcome = Trial(federation, run).carry_out(nothing)
            used = {name: each - before[name] for name, each in _used(federation).items()}
        assert outcome.status == 0, outcome.said
        simulated = _simulated(folder)
    nodes, simulation = _round_seconds(run), _round_seconds(simulated)
    print(f"{'':24}{'median s a round':>18}{'all rounds':>40}")
    for name, seconds in (("nodes", nodes), ("simulation", simulation)):
        listed = " ".join(f"{each:.1f}" for each in seconds)
        print(f"{name:24}{statistics.median(seconds[1:]):18.2f}{listed:>40}")
    ratio = statistics.median(nodes[1:]) / statistics.median(simulation[1:])
    print(f"a round of {options.clients} nodes takes {ratio:.1f} times the simulation's")
    for name, seconds_used in sorted(used.items()):
        print(f"processor seconds of {name}: {seconds_used:.1f} in {len(nodes)} rounds")
    for kind, parts in sorted(_messages(folder).items()):
        means = (statistics.mean(each) for each in zip(*parts, strict=True))
        text = "fetched {:.2f}, answered {:.2f}, sent {:.2f}".format(*means)
        print(f"{kind}, {len(parts)} messages, mean s: {text}")


def _used(federation: Federation) -> dict[str, float]:
    """Processor seconds so far, by kind of program; those of children that have ended included."""
    used: dict[str, float] = defaultdict(float)
    for name, program in federation.programs.items():
        for process in program.tree():
            with suppress(psutil.NoSuchProcess):
                side = "coordinator" if name == COORDINATOR else "node"
                words = " ".join(process.cmdline())
                used[f"{side}: {_kind(words)}"] += sum(process.cpu_times()[:4])
    return used


def _settle(federation: Federation) -> None:
    """Wait until what starts has started: a node is connected before its app has loaded PyTorch."""
    last = -math.inf
    for _ in range(MAX_SETTLES):
        now = sum(_used(federation).values())
        if now - last < SETTLED * SETTLE_SECONDS:
            return
        last = now
        time.sleep(SETTLE_SECONDS)


def _kind(command: str) -> str:
    """What a command line is of."""
    for word in ("flower_supernode", "clients.node app", "superexec", "serverapp", "superlink"):
        if word in command:
            return word
    return "starter"


def _simulated(folder: Path) -> RunFolder:
    """The same config on the same images in one simulation, beside the nodes' runs."""
    out = folder / "simulated"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    config = ["--config", folder / "start" / "config.yaml", "--data-root", folder / "images"]
    command = python("fl_ppseg.simulate", *config, "--out", out, "--quiet")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return RunFolder(out)


def _round_seconds(run: RunFolder) -> list[float]:
    return [line["seconds"] for line in run.lines() if line["role"] == "round" and line["round"]]


def _logs(folder: Path) -> Iterator[Path]:
    return (folder / "nodes").glob("*/logs/app.log*")


def _messages(folder: Path) -> dict[str, list[tuple[float, ...]]]:
    """Seconds to fetch, answer and send each message, by its kind, from the nodes' logs."""
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for log in _logs(folder):
        for kind, *parts in ANSWERED.findall(log.read_text(errors="replace")):
            found[kind].append(tuple(map(float, parts)))
    return found


if __name__ == "__main__":
    main()
