"""How much of a simulation's wall time is training: one quick run, one arm, 18 clients on Ray.

    python benchmarks/bench_simulation.py [--set key=value ...]

Prints wall seconds, the clients' own seconds divided by the cores (what no engine can beat), and
their ratio; beside them the same for the rounds after the first, where Ray and imports are paid.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fl_ppseg.system.files import available_cpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "fl_ppseg.simulate", "--quick", "--arms", "plain"]
        command += ["--quiet", "--out", str(out)]
        for assignment in options.set:
            command += ["--set", assignment]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    cores = available_cpus()
    rounds = {line["round"]: line["seconds"] for line in lines if line["role"] == "round"}
    later = [number for number in rounds if number > 1]
    report("whole command", wall, work(lines, list(rounds)) / cores)
    report("rounds after the first", sum(rounds[r] for r in later), work(lines, later) / cores)


def work(lines: list[dict[str, Any]], rounds: list[int]) -> float:
    return sum(float(x["seconds"]) for x in lines if x["role"] != "round" and x["round"] in rounds)


def report(what: str, wall: float, floor: float) -> None:
    print(f"{what:24s} {wall:6.1f} s wall, {floor:6.1f} s of training: ratio {wall / floor:.2f}")


if __name__ == "__main__":
    main()
