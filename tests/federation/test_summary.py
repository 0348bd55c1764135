"""From lines to scores, by hand: counts are summed first, means are taken last."""

import json
import math
from statistics import stdev
from typing import Any

import pytest

from fl_ppseg.federation.run_summary import RunSummary, parse_summary
from fl_ppseg.federation.summary import summarise
from fl_ppseg.learning.evaluation import Scores

Line = dict[str, Any]
Counts = list[list[int]]

NAMES = ["road", "sky"]
A: Counts = [[9, 1], [0, 0]]  # IoU 90, 0: predicted and nowhere true
B: Counts = [[0, 0], [5, 5]]  # IoU 0, 50
GOOD: Counts = [[3, 1], [1, 3]]  # IoU 60, 60; accuracy 75
PERFECT: Counts = [[1, 0], [0, 1]]
WRONG: Counts = [[0, 1], [1, 0]]
UNLABELLED: Counts = [[0, 0], [0, 0]]


def line(
    confusion: Counts | None,
    client: str | None = "lindau",
    role: str = "val",
    round: int = 1,
    arm: str = "plain",
    seed: int = 0,
    **more: Any,
) -> Line:
    figures = {"bytes_up": 0, "bytes_down": 0, "seconds": 0.0, "loss": 1.0}
    where = {"arm": arm, "seed": seed, "round": round, "client": client, "role": role}
    return where | figures | {"confusion": confusion} | more


def summary_of(lines: list[Line], last_rounds: int = 1) -> dict[str, Any]:
    arms = sorted({entry["arm"] for entry in lines})
    summary = summarise(lines, arms, NAMES, last_rounds, 12.34, 567.8)
    assert parse_summary(summary.to_json(), "summary.json") == summary
    return values_of(summary)


def values_of(summary: RunSummary) -> dict[str, Any]:
    """What summary.json holds."""
    values: dict[str, Any] = json.loads(summary.to_json())
    return values


def arm_of(lines: list[Line], last_rounds: int = 1, arm: str = "plain") -> dict[str, Any]:
    found: dict[str, Any] = summary_of(lines, last_rounds)["arms"][arm]
    return found


def test_counts_of_clients_are_summed_never_averaged() -> None:
    """A + B: road 9 / (9 + 1 + 5), sky 5 / (5 + 1 + 5). The mean of the clients would be 35."""
    arm = arm_of([line(A, "lindau"), line(B, "munster")])
    road, sky = 100 * 9 / 15, 100 * 5 / 11
    assert arm["mIoU"] == pytest.approx((road + sky) / 2)
    assert arm["aAcc"] == pytest.approx(100 * 14 / 20)
    assert arm["mAcc"] == pytest.approx((90 + 50) / 2)
    assert arm["per_class_iou"] == pytest.approx({"road": road, "sky": sky})
    assert arm["per_client_mIoU"] == pytest.approx({"lindau": 45, "munster": 25})


def test_rounds_are_averaged_over_the_last_k_that_were_evaluated() -> None:
    """Rounds 2, 4, 6 are evaluated; K = 2 takes 4 and 6, 60 and 100: 80."""
    lines = [line(WRONG, round=2), line(GOOD, round=4), line(PERFECT, round=6)]
    lines += [line(None, "ulm", "train", round=k) for k in range(1, 8)]
    arm = arm_of(lines, last_rounds=2)
    assert arm["mIoU"] == pytest.approx(80)
    assert arm["per_class_iou"] == pytest.approx({"road": 80, "sky": 80})
    assert arm["per_client_mIoU"] == pytest.approx({"lindau": 80})
    assert arm["rounds"] == 7
    assert arm_of(lines, last_rounds=9)["mIoU"] == pytest.approx(160 / 3)


def test_seeds_are_averaged_and_told_apart() -> None:
    arm = arm_of([line(GOOD, seed=3), line(PERFECT, seed=1)])
    assert [entry["seed"] for entry in arm["per_seed"]] == [1, 3]
    assert [entry["mIoU"] for entry in arm["per_seed"]] == pytest.approx([100, 60])
    assert arm["mIoU"] == pytest.approx(80)


def test_held_out_images_of_training_clients_are_own() -> None:
    """own: A + B as above; the val client alone is mIoU."""
    lines = [line(PERFECT), line(A, "ulm", "heldout"), line(B, "bonn", "heldout")]
    arm = arm_of(lines)
    assert arm["mIoU"] == pytest.approx(100)
    assert arm["own_mIoU"] == pytest.approx((100 * 9 / 15 + 100 * 5 / 11) / 2)
    assert arm["per_client_mIoU"] == pytest.approx({"bonn": 25, "lindau": 100, "ulm": 45})
    assert arm_of([line(PERFECT)])["own_mIoU"] is None


def test_models_of_their_own_are_scored_apart() -> None:
    """local-only: each model is pooled over the val clients, then the models are averaged."""
    lines = [
        line(A, "lindau", model="ulm"),
        line(B, "munster", model="ulm"),
        line(PERFECT, "lindau", model="bonn"),
        line(PERFECT, "munster", model="bonn"),
    ]
    ulm = (100 * 9 / 15 + 100 * 5 / 11) / 2
    arm = arm_of(lines)
    assert arm["mIoU"] == pytest.approx((ulm + 100) / 2)
    assert arm["per_client_mIoU"] == pytest.approx({"lindau": 72.5, "munster": 62.5})


def test_own_models_are_scored_at_home_on_one_pool() -> None:
    """local-only: A + B of two clients' own models are one pool, as those of one model would be."""
    home = [line(A, "ulm", "heldout", model="ulm"), line(B, "bonn", "heldout", model="bonn")]
    pooled = (100 * 9 / 15 + 100 * 5 / 11) / 2
    assert arm_of([*home, line(PERFECT, model="ulm")])["own_mIoU"] == pytest.approx(pooled)


def test_rounds_without_scores_do_not_count() -> None:
    """Of round 3 a val client is missing: its lines have no counts; the two before are the last."""
    lines = [line(GOOD, round=1), line(PERFECT, round=2), line(None, round=3)]
    lines += [line(GOOD, "ulm", "heldout", round=k) for k in (1, 2)]
    lines += [line(WRONG, "ulm", "heldout", round=3)]
    arm = arm_of(lines, last_rounds=2)
    assert arm["mIoU"] == pytest.approx(80)
    assert arm["own_mIoU"] == pytest.approx(60)
    assert arm["per_client_mIoU"] == pytest.approx({"lindau": 80, "ulm": 60})
    assert summary_of(lines[2:])["arms"] == {}


def test_ratio_is_to_plain_and_none_without_it() -> None:
    lines = [line(GOOD, arm="per-image"), line(PERFECT)]
    arms = summary_of(lines)["arms"]
    assert arms["per-image"]["ratio_to_plain"] == pytest.approx(0.6)
    assert arms["plain"]["ratio_to_plain"] == 1
    assert arm_of(lines[:1], arm="per-image")["ratio_to_plain"] is None
    assert arm_of([lines[0], line(WRONG)], arm="per-image")["ratio_to_plain"] is None


def test_nothing_labelled_is_none_not_nan() -> None:
    lines = [line(UNLABELLED, arm="per-image"), line(PERFECT)]
    arm = arm_of(lines, arm="per-image")
    for key in ("aAcc", "mIoU", "mAcc", "ratio_to_plain"):
        assert arm[key] is None
    assert arm["per_class_iou"] == {"road": None, "sky": None}
    assert arm["per_seed"][0]["mIoU"] is None
    assert arm_of([line(A)])["per_class_iou"] == {"road": 90.0, "sky": 0.0}
    assert arm_of([line([[9, 0], [0, 0]])])["per_class_iou"] == {"road": 100.0, "sky": None}


def test_costs_are_sums_over_lines() -> None:
    lines = [
        line(None, "ulm", "train", bytes_up=10, bytes_down=100, seconds=1.5),
        line(None, "bonn", "train", bytes_up=20, bytes_down=100, seconds=2.0),
        line(PERFECT, bytes_down=100, seconds=0.5),
        line(None, None, "round", seconds=7.0),
        line(None, None, "round", round=2, seconds=8.0),
    ]
    arm = arm_of(lines)
    assert (arm["bytes_up"], arm["bytes_down"]) == (30, 300)
    assert arm["seconds"] == 15.0


def test_arms_come_in_the_order_asked_and_only_where_evaluated() -> None:
    lines = [line(GOOD, arm=arm) for arm in ("plain", "per-image")]
    lines.append(line(None, "ulm", "train", arm="per-client"))
    asked = ["per-client", "per-image", "plain", "local-only"]
    summary = values_of(summarise(lines, asked, NAMES, 3, 12.34, 567.8))
    assert list(summary["arms"]) == ["per-image", "plain"]
    assert (summary["schema"], summary["total_seconds"], summary["peak_rss_mb"]) == (3, 12.3, 568)


def test_a_run_without_lines_has_no_arms() -> None:
    assert summarise([], ["plain"], NAMES, 3, 0, 0).arms == {}


def seeds_of(arm: str, counts: list[Counts]) -> list[Line]:
    return [line(c, arm=arm, seed=seed) for seed, c in enumerate(counts)]


def right(percent: int) -> Counts:
    """Counts of two classes alike, 2p right and 100 - p wrong: IoU 2p / (2p + 2 (100 - p)) = p."""
    return [[2 * percent, 100 - percent], [100 - percent, 2 * percent]]


def test_ratios_are_paired_by_seed() -> None:
    """Ratios .5, .6, .7, .8, .9: mean .7, s² = .1 / 4; t of 4 degrees of freedom is 2.776, so the
    half-width is 2.776 * sqrt(.025 / 5). The ratio of the means would be 157 / 250.
    """
    plain = [80, 80, 50, 20, 20]
    own = [40, 48, 35, 16, 18]
    lines = seeds_of("plain", [right(p) for p in plain])
    arm = arm_of(lines + seeds_of("per-image", [right(p) for p in own]), arm="per-image")
    assert arm["ratio_to_plain"] == pytest.approx(0.7)
    half = 2.776 * (0.025 / 5) ** 0.5
    assert arm["ratio_ci95"] == pytest.approx([0.7 - half, 0.7 + half], abs=1e-4)
    ratios = [entry["ratio_to_plain"] for entry in arm["per_seed"]]
    assert ratios == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])


def test_spread_is_the_sample_standard_deviation() -> None:
    """40, 50, 60: mean 50, s = sqrt((100 + 0 + 100) / 2) = 10."""
    lines = seeds_of("plain", [right(40), right(50), right(60)])
    lines += [line(right(p), "ulm", "heldout", seed=k) for k, p in enumerate((40, 40, 70))]
    arm = arm_of(lines)
    assert arm["mIoU_std"] == pytest.approx(10)
    accuracies = [100 * 80 / 140, 100 * 100 / 150, 100 * 120 / 160]
    assert arm["aAcc_std"] == arm["mAcc_std"] == pytest.approx(stdev(accuracies))
    assert arm["own_mIoU_std"] == pytest.approx(300**0.5)
    assert arm["ratio_ci95"] == pytest.approx([1, 1])


def test_one_seed_has_neither_spread_nor_interval() -> None:
    arm = arm_of([line(GOOD, arm="per-image"), line(PERFECT)], arm="per-image")
    assert arm["mIoU_std"] is None
    assert arm["ratio_ci95"] is None
    assert arm["per_seed"][0]["ratio_to_plain"] == pytest.approx(0.6)


def test_seeds_that_plain_lacks_have_no_ratio() -> None:
    """Seed 1 is paired, seed 2 is not: 30 / 60."""
    lines = [line(right(60), seed=1), line(right(30), arm="per-image", seed=1)]
    arm = arm_of([*lines, line(right(50), arm="per-image", seed=2)], arm="per-image")
    assert arm["mIoU"] == pytest.approx(40)
    assert arm["ratio_to_plain"] == pytest.approx(0.5)
    assert [entry["ratio_to_plain"] for entry in arm["per_seed"]] == [pytest.approx(0.5), None]
    assert arm["ratio_ci95"] is None


def start_of(lines: list[Line]) -> list[Line]:
    """The same lines of round 0."""
    return [entry | {"round": 0} for entry in lines]


def test_the_start_is_no_round_that_counts_and_the_gain_is_paired_by_seed() -> None:
    """Gains 10, 20: mean 15, s = 7.07; the interval is 15 ± 12.706 * 5 of one degree of freedom."""
    lines = seeds_of("plain", [right(40), right(60)])
    starts = start_of(seeds_of("plain", [right(30), right(40)]))
    arm = arm_of(lines + starts, last_rounds=9)
    assert arm["mIoU"] == pytest.approx(50)
    assert (arm["start_mIoU"], arm["gain"]) == pytest.approx((35, 15))
    assert arm["gain_std"] == pytest.approx(50**0.5)
    assert arm["gain_ci95"] == pytest.approx([15 - 63.53, 15 + 63.53], abs=0.01)
    assert [entry["gain"] for entry in arm["per_seed"]] == pytest.approx([10, 20])
    assert [entry["start_mIoU"] for entry in arm["per_seed"]] == pytest.approx([30, 40])


def test_a_run_that_has_only_its_start_has_no_score() -> None:
    assert summary_of(start_of([line(GOOD)]))["arms"] == {}


def test_without_a_start_there_is_no_gain() -> None:
    """Runs of earlier versions, or a start without all val clients."""
    for lines in ([line(GOOD)], [line(GOOD), *start_of([line(None)])]):
        arm = arm_of(lines)
        assert (arm["start_mIoU"], arm["gain"], arm["gain_ci95"]) == (None, None, None)


def above(plain: list[int], own: list[int], floor: float | None) -> dict[str, Any]:
    """An arm's entry beside plain and what is scored without an image."""
    lines = seeds_of("plain", [right(p) for p in plain])
    lines += seeds_of("per-image", [right(p) for p in own])
    prior = None if floor is None else Scores(50.0, floor, 25.0, (floor, None))
    arms = ["plain", "per-image"]
    summary = values_of(summarise(lines, arms, NAMES, 1, 0, 0, no_image=prior))
    wanted = None if floor is None else {"mIoU": floor, "aAcc": 50.0}
    assert summary["no_image"] == wanted
    assert summary["arms"]["plain"]["of_plain_above_no_image"] in (None, 1.0)
    found: dict[str, Any] = summary["arms"]["per-image"]
    return found


def test_what_is_above_no_image_is_paired_by_seed() -> None:
    """(30 - 20) / (40 - 20) = .5 and (50 - 20) / (60 - 20) = .75; of plain .75 and .83."""
    arm = above([40, 60], [30, 50], 20.0)
    assert arm["of_plain_above_no_image"] == pytest.approx(0.625)
    assert [e["of_plain_above_no_image"] for e in arm["per_seed"]] == pytest.approx([0.5, 0.75])
    half = 12.706 * 0.125
    expected = pytest.approx([0.625 - half, 0.625 + half], abs=1e-3)
    assert arm["of_plain_above_no_image_ci95"] == expected
    assert arm["ratio_to_plain"] == pytest.approx((30 / 40 + 50 / 60) / 2)
    assert above([40], [10], 20.0)["of_plain_above_no_image"] == pytest.approx(-0.5)


@pytest.mark.parametrize("floor", [60.0, 40.0, None, float("nan")])
def test_where_plain_is_not_above_no_image_in_every_seed_nothing_is_said(
    floor: float | None,
) -> None:
    if floor is not None and math.isnan(floor):
        lines = seeds_of("plain", [right(40)])
        prior = Scores(floor, floor, floor, (None, None))
        found = values_of(summarise(lines, ["plain"], NAMES, 1, 0, 0, no_image=prior))
        assert found["no_image"] == {"mIoU": None, "aAcc": None}
        assert found["arms"]["plain"]["of_plain_above_no_image"] is None
        return
    arm = above([40, 70], [30, 60], floor)
    assert arm["of_plain_above_no_image"] is None
    assert arm["of_plain_above_no_image_ci95"] is None
    assert [e["of_plain_above_no_image"] for e in arm["per_seed"]] == [None, None]


def test_key_trials_belong_to_the_arms_that_were_tried() -> None:
    lines = [line(GOOD, arm=arm) for arm in ("plain", "conventional-2")]
    scores = {"aAcc": 75.0, "mIoU": 60.0, "mAcc": float("nan")}
    trials = {"conventional-2": {"right": scores}, "not-in-this-run": {"right": scores}}
    summary = summarise(lines, ["plain", "conventional-2"], NAMES, 1, 0, 0, trials)
    arms = values_of(summary)["arms"]
    assert list(arms) == ["plain", "conventional-2"]
    assert "key_trials" not in arms["plain"]
    known = {"aAcc": 75.0, "mIoU": 60.0, "mAcc": None}
    assert arms["conventional-2"]["key_trials"] == {"right": known}
    assert "key_trials" not in arm_of(lines, arm="conventional-2")
