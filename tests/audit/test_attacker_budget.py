"""The benchmark of the attacker's budget: its curve, the error of it, trials that are kept."""

import json
import re
import runpy
from argparse import Namespace
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "attacker_budget.py"
BUDGETS = list(product((100, 400, 1600, 4000), (150, 600, 2400)))
CIPHER = "shuffle-spatial+negative-positive"


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def ssim(images: int, steps: int) -> float:
    return float(0.6 - 0.5 * images**-0.5 - 4 * steps**-0.75)


def trials(benchmark: dict[str, Any]) -> list[Any]:
    made = benchmark["Trial"]
    return [made(CIPHER, n, s, 0, ssim(n, s), 100 * ssim(n, s) / 2, 1.0) for n, s in BUDGETS]


def test_a_curve_of_the_form_is_found_again(benchmark: dict[str, Any]) -> None:
    curve = benchmark["fitted"](BUDGETS, [ssim(*each) for each in BUDGETS], 1.0)
    for images, steps in (*BUDGETS, (40_000, 24_000)):
        assert curve.at(images, steps) == pytest.approx(ssim(images, steps), abs=2e-3)


def test_no_limit_is_above_what_a_score_can_be(benchmark: dict[str, Any]) -> None:
    rising = [0.1 * np.log(n * s) for n, s in BUDGETS]  # has no limit at all
    assert benchmark["fitted"](BUDGETS, rising, 1.0).a <= 1.0 + 1e-9


def test_the_error_is_that_at_the_largest_trial_left_out(benchmark: dict[str, Any]) -> None:
    found = trials(benchmark)
    largest = max(found, key=lambda trial: trial.images * trial.steps)
    off = [
        benchmark["Trial"](**(asdict(t) | {"ssim": t.ssim + 0.1 * (t is largest)})) for t in found
    ]
    _, error, beyond = benchmark["extrapolated"](off, "ssim", 1.0)
    assert error.startswith("without n, s = (4000, 2400): ")
    assert float(re.findall(r"error ([-+.\d]+)", error)[0]) == pytest.approx(-0.1, abs=3e-3)
    assert "not measured" in beyond and "40000 images and 24000 steps" in beyond


def test_a_budget_outside_the_grid_checks_the_curve(benchmark: dict[str, Any]) -> None:
    found = trials(benchmark)
    outside = benchmark["Trial"](CIPHER, 400, 4800, 0, ssim(400, 4800) - 0.05, 20.0, 1.0)
    told = list(benchmark["extrapolated"](found, "ssim", 1.0, outside))
    (line,) = [each for each in told if each.startswith("expected of n, s = (400, 4800): ")]
    assert float(re.findall(r"error ([-+.\d]+)", line)[0]) == pytest.approx(0.05, abs=3e-3)


def test_the_table_says_what_was_not_run(benchmark: dict[str, Any]) -> None:
    head, _, *rows = benchmark["table"](trials(benchmark)[:-1])
    assert head == "| public images | 150 steps | 600 steps | 2400 steps |"
    assert rows[-1].endswith("| not run |") and rows[-1].startswith("| 4000 | ")
    assert f"{ssim(100, 150):.3f}, {50 * ssim(100, 150):.1f}" in rows[0]


def test_trials_of_the_file_are_not_run_again(benchmark: dict[str, Any], tmp_path: Path) -> None:
    path, made = tmp_path / "trials.jsonl", trials(benchmark)
    path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in made), "utf-8")
    options = Namespace(
        cipher=CIPHER, trials=path, seeds=[0], again=[400, 600], images=[100, 400], steps=[150],
        beyond=None,
    )  # fmt: skip
    nothing = np.zeros((0, 3, 64, 128), np.uint8)
    found = list(benchmark["trials"](options, nothing, nothing, nothing, None))
    assert found == [each for each in made if each.images <= 400 and each.steps == 150]
