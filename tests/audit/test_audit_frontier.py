"""The frontier of privacy and use: worked by hand, then by what a frontier is."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_leaks import BLIND, arm, found, invariant, plain, private, scores, table, usual

from fl_ppseg.audit.page.frontier import Point, frontiers, pareto, plot_frontiers, spread
from fl_ppseg.pages.styles import arm_styles

MARKS = {"blind guess": 0.166, "answer alone": 0.231}
points = st.lists(
    st.builds(Point, st.just(""), st.floats(0, 1), st.floats(0, 1.1)), min_size=1, max_size=12
)


def test_the_front_by_hand():
    told = (
        Point("plain", 1.0, 1.0),
        Point("private", 0.87, 1.002),
        Point("spatial", 0.40, 0.99),
        Point("shuffle", 0.42, 0.83),
        Point("product", 0.33, 0.87),
        Point("per-image", 0.33, 0.48),
    )
    assert [point.arm for point in pareto(told)] == ["product", "spatial", "private"]


def test_equal_arms_are_both_on_the_front():
    twins = (Point("a", 0.5, 0.9), Point("b", 0.5, 0.9))
    assert {point.arm for point in pareto(twins)} == {"a", "b"}


@given(points)
def test_a_front_is_not_beaten_and_beats_the_rest(given_points):
    front = pareto(given_points)
    assert front
    for point in given_points:
        at_least = [f for f in front if f.leak <= point.leak and f.ratio >= point.ratio]
        assert at_least
        assert (point in front) == all(f[1:] == point[1:] for f in at_least)
    assert [f.leak for f in front] == sorted(f.leak for f in front)
    assert [f.ratio for f in front] == sorted(f.ratio for f in front)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.floats(0.01, 0.3))
def test_names_never_meet(wanted, gap):
    places = spread(sorted(wanted), gap)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert places[-1] <= 1
    if gap * (len(wanted) - 1) <= min(wanted):
        assert places[0] >= 0


def test_names_with_room_stay_where_they_are_wanted():
    assert spread([0.1, 0.5, 0.9], 0.2) == [0.1, 0.5, 0.9]


def test_arms_without_a_ratio_are_left_out_and_named():
    lone = arm("centralised", ratio=None)
    thief, *_ = frontiers(table(plain(), lone, invariant()))
    assert [point.arm for point in thief.points] == ["plain", "per-image-invariant"]
    assert thief.left_out == ("centralised",)


def test_points_are_the_best_attacks_and_the_ratios_of_the_table():
    by_adversary = {f.adversary: f for f in frontiers(usual())}
    assert by_adversary["ciphertext-thief"].points == (
        Point("plain", 1.0, 1.0),
        Point("per-client-private", 0.871, 1.002),
        Point("per-image-invariant", 0.334, 0.871),
    )
    # 0.153 of per-client-private is less than the blind guess's; of the last there is no picture
    assert by_adversary["coordinator"].points == (
        Point("plain", 0.991, 1.0),
        Point("per-client-private", BLIND.ssim, 1.002),
        Point("per-image-invariant", BLIND.ssim, 0.871),
    )
    assert [p.arm for p in by_adversary["coordinator"].optimal] == ["per-client-private"]
    active = by_adversary["active-coordinator"]
    assert [p.leak for p in active.points] == [0.995, 0.962, BLIND.ssim]
    assert [p.arm for p in active.optimal] == ["per-image-invariant", "per-client-private"]


def test_an_adversary_without_a_point_has_no_figure():
    no_ratio = table(arm("a", ratio=None))
    assert frontiers(no_ratio) == ()
    assert plot_frontiers((), MARKS, {}, None) == []


@pytest.mark.parametrize("num_arms", [1, 18])
def test_a_figure_names_every_arm_apart(tmp_path, num_arms):
    arms = [
        arm(f"arm-{k}", found("inverse-network", "ciphertext-thief", scores(0.34)), ratio=0.9)
        for k in range(num_arms)
    ]
    drawn = frontiers(table(*arms))[:1]
    (path,) = plot_frontiers(drawn, MARKS, arm_styles([a.arm for a in arms]), tmp_path)
    svg = path.read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    heights = [_height(svg, f"arm-{k}") for k in range(num_arms)]
    assert len(set(heights)) == num_arms
    apart = sorted(heights)
    assert all(b - a > 10 for a, b in pairwise(apart))  # points; text has 8


def _height(svg, name):
    """y of a text in points, from the top."""
    line = next(line for line in svg.splitlines() if f">{name}</text>" in line)
    found_at = re.search(r"translate\(([\d.-]+) ([\d.-]+)\)|y=\"([\d.-]+)\"", line)
    return float(found_at[2] or found_at[3])


def test_hostile_names_are_text_in_a_figure(tmp_path):
    name = "_a<b>&$x$"
    (path,) = plot_frontiers(frontiers(table(arm(name)))[:1], MARKS, arm_styles([name]), tmp_path)
    texts = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    assert name in ["".join(text.itertext()) for text in texts]


def test_a_figure_has_the_same_bytes_again(tmp_path):
    styles = arm_styles([a.arm for a in usual().arms])
    first, second = (
        plot_frontiers(frontiers(usual()), MARKS, styles, tmp_path / name) for name in "ab"
    )
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert private().arm in first[0].read_text(encoding="utf-8")
