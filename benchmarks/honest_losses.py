"""How often honest rounds raise a node's loss on its held-out images, from runs that were trained.

    python benchmarks/honest_losses.py [--least] RUN [RUN ...]

Of each client, arm and seed in results.jsonl: the loss on its held-out images under the weights of
each evaluated round, over that of the evaluation before, or over the least of all before (--least,
what `max_loss_ratio` of a policy bounds). A node that refuses weights whose loss is above a
multiple of that, and above a floor, would raise a false alarm in the rounds that are
counted here; beside the share stands its upper 95 % confidence bound (Clopper and Pearson, as if
rounds were independent, which those of one run are not). Runs copied to several places count once.
"""

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import beta  # type: ignore[import-untyped]

MULTIPLES: Final = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
FLOORS: Final = (0.0, 0.5, 1.0, 2.0)


class Step(NamedTuple):
    """Two evaluations of one client, one after the other."""

    run: str
    arm: str
    round: int
    before: float
    after: float


def steps(run: Path, is_least: bool = False) -> Iterator[Step]:
    losses: dict[tuple[str, int, str, str], dict[int, float]] = defaultdict(dict)
    for line in (run / "results.jsonl").read_text("utf-8").splitlines():
        found = json.loads(line)
        if found.get("role") in ("heldout", "val") and isinstance(found.get("loss"), float):
            client = found.get("client") or found["city"]
            key = found["arm"], found["seed"], client, found["role"]
            losses[key][found["round"]] = found["loss"]
    for (arm, *_), by_round in losses.items():
        numbers = sorted(by_round)
        for earlier, later in pairwise(numbers):
            before = by_round[earlier]
            if is_least:
                before = min(by_round[k] for k in numbers if k <= earlier)
            yield Step(run.name, arm, later, before, by_round[later])


def bound(alarms: int, number: int) -> float:
    """The upper 95 % bound of a share of which `alarms` of `number` were seen."""
    return 1.0 if alarms == number else float(beta.ppf(0.95, alarms + 1, number - alarms))


def lines(runs: Sequence[Path], is_least: bool) -> Iterator[str]:
    distinct = {hashlib.sha256((run / "results.jsonl").read_bytes()).digest(): run for run in runs}
    found = [step for run in distinct.values() for step in steps(run, is_least)]
    before, after = (np.array([getattr(s, name) for s in found]) for name in ("before", "after"))
    ratios = after / before
    arms = len({step.arm for step in found})
    yield f"{len(distinct)} runs, {arms} arms, {len(found)} pairs of rounds of a client"
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        yield f"  ratio at quantile {share:5}: {np.quantile(ratios, share):6.2f}"
    by_round = [(k, ratios[[s.round == k for s in found]]) for k in (1, 2, 3, 5, 10)]
    for number, some in by_round:
        if len(some):
            yield f"  round {number:2}: largest {some.max():6.2f} of {len(some)}"
    yield "multiple  floor  alarms   share   at most"
    for multiple in MULTIPLES:
        for floor in FLOORS:
            alarms = int(((ratios > multiple) & (after > floor)).sum())
            share, most = alarms / len(found), bound(alarms, len(found))
            yield f"{multiple:8.2f} {floor:6.1f} {alarms:7} {share:8.5f} {most:8.5f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--least", action="store_true")
    options = parser.parse_args()
    for line in lines(options.runs, options.least):
        print(line, flush=True)


if __name__ == "__main__":
    main()
