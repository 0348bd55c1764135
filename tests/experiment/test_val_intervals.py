"""Intervals of a summary from counts of images: paired, by hand, none where nothing is known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from counted_images import images, slow
from numpy.typing import NDArray

from fl_ppseg.experiment.val_counts import NO_IMAGE, ValCounts, name_of
from fl_ppseg.experiment.val_intervals import KINDS, NAMES, val_intervals
from fl_ppseg.federation.run_summary import ImageIntervals, ValImages
from fl_ppseg.learning.bootstrap import draws_of, resampled

CLIENTS = {"frankfurt": 8, "lindau": 6, "munster": 7}
SIZES = tuple(CLIENTS.values())
SKILLS = {"start": 0.5, "newest": 3.0}


def table(seed: int, skill: float) -> NDArray[np.int64]:
    return images(np.random.default_rng(seed), sum(SIZES), skill)[None]


def counts_of(**changes: NDArray[np.int64] | None) -> ValCounts:
    """Two seeds of plain and of another arm; a change puts a table in place, or takes it away."""
    tables = {NO_IMAGE: table(99, 0.0)}
    for number, arm in enumerate(("plain", "other")):
        for seed in (0, 1):
            for which, skill in SKILLS.items():
                drawn = table(10 * number + seed, skill - 0.3 * number)
                tables[name_of(arm, seed, which)] = drawn
    found = ValCounts("digest", CLIENTS)
    for name, value in (tables | changes).items():
        if value is not None:
            found = found.including(name, value, "weights")
    return found


def entries(counts: ValCounts, arms: tuple[str, ...] = ("plain", "other")) -> dict[str, Any]:
    return values_of(val_intervals(counts, arms, (0, 1))[1])


def values_of(found: Mapping[str, ImageIntervals]) -> dict[str, Any]:
    return {arm: entry.model_dump() for arm, entry in found.items()}


def test_what_was_drawn_and_every_interval_is_there() -> None:
    about, intervals = val_intervals(counts_of(), ("plain", "other", "failed"), (0, 1))
    assert about == ValImages(num_images=21, num_places=3, resamples=2000, seed=0)
    found = values_of(intervals)
    names = {f"{name}_ci95_{kind}" for name in NAMES for kind in KINDS}
    assert {arm: entry.keys() for arm, entry in found.items()} == {
        arm: {"newest_mIoU", *names} for arm in ("plain", "other")
    }
    for entry in found.values():
        for kind in KINDS:
            low, high = entry[f"mIoU_ci95_{kind}"]
            assert low < entry["newest_mIoU"] < high


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_taken_seed_by_seed_within_each_draw(kind: Any) -> None:
    """By a slow loop over all draws."""
    counts = counts_of()
    draws = draws_of(SIZES)[kind]
    tables = {name: value[0].astype(np.int64) for name, value in counts.tables.items()}
    mious = {name: np.array([slow(value, d) for d in draws]) for name, value in tables.items()}
    floor = mious[NO_IMAGE]
    own, plain, start = (
        [mious[name_of(arm, seed, which)] for seed in (0, 1)]
        for arm, which in (("other", "newest"), ("plain", "newest"), ("other", "start"))
    )
    expected = {
        "mIoU": (own[0] + own[1]) / 2,
        "gain": (own[0] - start[0] + own[1] - start[1]) / 2,
        "ratio": (own[0] / plain[0] + own[1] / plain[1]) / 2,
        "of_plain_above_no_image": sum(
            (a - floor) / (b - floor) for a, b in zip(own, plain, strict=True)
        )
        / 2,
    }
    found = entries(counts)["other"]
    for name, values in expected.items():
        assert found[f"{name}_ci95_{kind}"] == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_two_arms_that_answer_alike_have_a_ratio_of_one_for_certain() -> None:
    """Drawn apart from each other they would not: that spread is what pairing takes away."""
    counts = counts_of()
    for seed in (0, 1):
        same = counts.tables[name_of("plain", seed, "newest")]
        counts = counts.including(name_of("other", seed, "newest"), same.astype(np.int64), "")
    found = entries(counts)
    for arm, kind in ((arm, kind) for arm in found for kind in KINDS):
        assert found[arm][f"ratio_ci95_{kind}"] == (1, 1)
        assert found[arm][f"of_plain_above_no_image_ci95_{kind}"] == (1, 1)
        assert found[arm][f"mIoU_ci95_{kind}"] == found["plain"][f"mIoU_ci95_{kind}"]
    plain = counts.tables[name_of("plain", 0, "newest")]
    apart = [resampled(plain, draws_of(SIZES, seed=seed)["images"]) for seed in (0, 1)]
    assert np.ptp(np.quantile(apart[0] / apart[1], [0.025, 0.975])) > 0.02


def test_where_every_client_has_a_model_it_is_the_mean_of_their_scores() -> None:
    models = np.concatenate([table(5, 1.0), table(6, 4.0)])
    counts = counts_of(**{name_of("other", seed, "newest"): models for seed in (0, 1)})
    draws = draws_of(SIZES)["images"]
    each = [resampled(model[None], draws) for model in models]
    expected = np.quantile((each[0] + each[1]) / 2, [0.025, 0.975])
    assert entries(counts)["other"]["mIoU_ci95_images"] == pytest.approx(expected)


def test_what_is_not_known_has_no_interval() -> None:
    def missing(found: dict[str, Any]) -> set[str]:
        return {name for name in NAMES if found[f"{name}_ci95_images"] is None}

    plain = {name_of("plain", seed, "newest"): None for seed in (0, 1)}
    start = {name_of("other", seed, "start"): None for seed in (0, 1)}
    assert missing(entries(counts_of(**plain))["other"]) == {"ratio", "of_plain_above_no_image"}
    assert missing(entries(counts_of(**start))["other"]) == {"gain"}
    floored = counts_of(**{NO_IMAGE: table(0, 3.0)})  # as good as plain of seed 0
    assert missing(entries(floored)["other"]) == {"of_plain_above_no_image"}
    assert missing(entries(counts_of(**{NO_IMAGE: None}))["other"]) == {"of_plain_above_no_image"}
    assert missing(entries(counts_of())["other"]) == set()
    two = ValCounts("", {"lindau": 11, "munster": 10}, counts_of().tables)
    assert all(entries(two)["other"][f"{name}_ci95_places"] is None for name in NAMES)
    assert missing(entries(two)["other"]) == set()


def test_a_seed_that_plain_lacks_has_no_part_in_ratios() -> None:
    counts = counts_of(**{name_of("plain", 1, "newest"): None})
    one = values_of(val_intervals(counts, ("plain", "other"), (0,))[1])["other"]
    both = entries(counts)["other"]
    assert both["ratio_ci95_images"] == one["ratio_ci95_images"]
    assert both["mIoU_ci95_images"] != one["mIoU_ci95_images"]


def test_a_plain_arm_that_scores_nothing_gives_no_ratio() -> None:
    nothing = np.zeros((1, sum(SIZES), 3, 3), np.int64)
    nothing[..., 0, 1] = 7
    counts = counts_of(**{name_of("plain", seed, "newest"): nothing for seed in (0, 1)})
    assert entries(counts)["other"]["ratio_ci95_images"] is None
