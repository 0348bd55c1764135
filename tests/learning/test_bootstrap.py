"""Intervals over val images and places against slow loops, scipy's own, and what they promise."""

import numpy as np
import pytest
from counted_images import Counts, images, slow
from numpy.typing import NDArray
from scipy import stats

from fl_ppseg.learning import bootstrap
from fl_ppseg.learning.bootstrap import draws_of, intervals, percentile_interval, resampled
from fl_ppseg.learning.evaluation import score

SIZES = (5, 1, 4)


def test_resamples_equal_a_slow_loop() -> None:
    counts = np.stack([images(np.random.default_rng(k), sum(SIZES)) for k in range(2)])
    for draws in draws_of(SIZES, number=20).values():
        expected = [(slow(counts[0], draw) + slow(counts[1], draw)) / 2 for draw in draws]
        assert resampled(counts, draws) == pytest.approx(expected)


def test_images_are_drawn_within_their_client_and_places_whole() -> None:
    draws = draws_of(SIZES)
    ends = np.cumsum(SIZES)
    of_client = {
        k: np.stack([p.sum(1) for p in np.split(d, ends[:-1], 1)]) for k, d in draws.items()
    }
    assert (of_client["images"] == np.reshape(SIZES, (-1, 1))).all()
    times, rest = np.divmod(of_client["places"], np.reshape(SIZES, (-1, 1)))
    assert not rest.any()
    assert (times.sum(axis=0) == len(SIZES)).all()
    assert len(np.unique(times, axis=1).T) == 10  # all that three places allow
    assert draws["images"].std(axis=0)[5] == 0  # the one image of its client


def test_draws_are_the_same_in_every_run_and_all_images_are_drawn_alike_often() -> None:
    first, second = draws_of(SIZES), draws_of(SIZES)
    for kind, draws in first.items():
        np.testing.assert_array_equal(draws, second[kind])
        assert draws.mean(axis=0) == pytest.approx(np.ones(sum(SIZES)), abs=0.15)


def test_what_there_is_too_little_of_has_no_interval() -> None:
    assert draws_of((1, 1)).keys() == set()
    assert draws_of((2, 1)).keys() == {"images"}
    assert draws_of((1, 1, 1)).keys() == {"places"}
    assert draws_of(SIZES).keys() == {"images", "places"}
    assert draws_of(()).keys() == set()


def test_equals_scipys_percentile_interval() -> None:
    """One client, so that both draw alike; other draws, so equal up to what 10,000 of them tell."""
    counts = images(np.random.default_rng(1), 30)

    def of_sample(chosen: NDArray[np.int64]) -> float:
        return score(counts[chosen].sum(axis=0)).mIoU

    theirs = stats.bootstrap(
        (np.arange(30),), of_sample, n_resamples=10_000, method="percentile", vectorized=False,
        rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    ours = percentile_interval(resampled(counts[None], draws_of((30,), 10_000)["images"]))
    assert ours is not None
    width = theirs.high - theirs.low
    assert width > 1
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_covers_other_images_of_the_same_places_about_as_often_as_promised() -> None:
    """200 sets of 40 images; the truth is the score of very many: the share has an error of 2 %."""
    truth = score(images(np.random.default_rng(3), 100_000).sum(axis=0)).mIoU
    rng = np.random.default_rng(4)
    found = [intervals(images(rng, 40)[None], (20, 20))["images"] for _ in range(200)]
    covered = [low <= truth <= high for low, high in filter(None, found)]
    assert len(covered) == 200
    assert 0.87 <= np.mean(covered) <= 0.99


def test_of_three_places_it_covers_other_places_too_seldom() -> None:
    """150 sets of places of 10 images; the words say about 75 % of 3, far less than 95 %."""
    rng = np.random.default_rng(8)

    def places(number: int) -> Counts:
        return np.concatenate([images(rng, 10, rng.uniform(0.5, 4)) for _ in range(number)])

    truth = score(places(4000).sum(axis=0)).mIoU
    found = [intervals(places(3)[None], (10,) * 3)["places"] for _ in range(150)]
    assert 0.6 <= np.mean([low <= truth <= high for low, high in filter(None, found)]) <= 0.87


def test_places_that_differ_make_the_interval_over_places_wider() -> None:
    rng = np.random.default_rng(5)
    skills = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
    found = intervals(np.concatenate([images(rng, 20, s) for s in skills])[None], (20,) * 6)
    widths = {kind: ends[1] - ends[0] for kind, ends in found.items() if ends is not None}
    assert widths["places"] > 3 * widths["images"] > 0


def test_sums_in_parts_are_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, draws = images(np.random.default_rng(6), 10)[None], draws_of((5, 5))["images"]
    whole = resampled(counts, draws)
    monkeypatch.setattr(bootstrap, "MEMORY", 8 * 9 * 7)
    np.testing.assert_array_equal(resampled(counts, draws), whole)


def test_where_a_resample_has_no_labelled_pixel_there_is_no_interval() -> None:
    counts = np.zeros((3, 2, 2), np.int64)
    counts[0] = 5
    assert intervals(counts[None], (3,)) == {"images": None}
    assert percentile_interval(np.array([1.0, np.inf])) is None
    assert percentile_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((1.05, 2.95))
