"""How much of a simulation's wall time is computing: one quick run, one arm, 18 clients on Ray.

    python benchmarks/bench_simulation.py [--default] [--set key=value ...] [--out RUN]

Runs `python -m fl_ppseg.simulate --profile`, prints where its time went (docs/trials.md, "Where
the time of a run goes"), and how many times what as many workers need to compute the wall time is:
of the whole command, and of the rounds after the first of each arm, in which nothing starts.
`--default` runs the default command, all arms, in place of the quick config.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from fl_ppseg.federation.profile import TimeParts, load_profile, total
from fl_ppseg.report.profiled import profile_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="keep the run here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch) / "run"
        command = [sys.executable, "-m", "fl_ppseg.simulate", "--profile", "--quiet"]
        command += ["--out", str(out)]
        command += [] if options.default else ["--quick", "--arms", "plain"]
        for assignment in options.set:
            command += ["--set", assignment]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        profile = load_profile(out)
    assert profile is not None
    Console(width=100).print(profile_table(profile))
    report("whole command", profile.total)
    report("rounds after the first", total(each for each in profile.rounds if each.round > 1))


def report(what: str, parts: TimeParts) -> None:
    ratio = parts.wall / parts.compute
    print(
        f"{what:24s} {parts.wall:6.1f} s wall, {parts.compute:6.1f} s of compute: ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    main()
