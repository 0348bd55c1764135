"""The report says what the summary says: no more, nothing else, and nothing from outside."""

import io
import re

import numpy as np
import pytest
from html_page import HOSTILE, Page, assert_ids_resolve, assert_self_contained
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.report.arms import arm_texts
from fl_ppseg.report.findings import findings, headline
from fl_ppseg.report.html import write_report
from fl_ppseg.report.markup import without_paths
from fl_ppseg.report.scenes import CipherGallery, ScenePanel
from fl_ppseg.report.series import collect
from fl_ppseg.report.styles import arm_styles
from fl_ppseg.report.tables import comparison_table, comparison_text

CLASSES = load_class_table("cityscapes")
CONFIG = Config().model_dump(mode="json")


def arm(miou, plain=None, per_seed=None, **other):
    scores = {"aAcc": miou + 40.04, "mIoU": miou, "mAcc": miou + 9.03, "own_mIoU": miou + 1.02}
    return {
        **scores,
        "ratio_to_plain": None if plain is None else miou / plain,
        "per_class_iou": {name: None if name == "train" else miou for name in CLASSES.names},
        "per_city_mIoU": {"aachen": miou + 1, "frankfurt": miou, "lindau": miou - 1},
        "per_seed": per_seed or [{"seed": 0, **scores}],
        "rounds": 2,
        "seconds": 61.23,
        "bytes_up": 12_340_000,
        "bytes_down": 56_780_000,
        **other,
    }


def summary(**arms):
    named = {name.replace("_", "-"): values for name, values in arms.items()}
    return {"schema": 2, "arms": named, "total_seconds": 312.4, "peak_rss_mb": 3820.0}


def lines(arms, seeds=(0,)):
    confusion = np.diag(np.arange(1, 20)).tolist()
    return [
        {"arm": a, "seed": s, "round": r, "city": city, "role": role, "loss": 1.0 / r,
         "num_examples": 4, "confusion": None if role == "train" else confusion,
         "bytes_up": 10, "bytes_down": 20, "seconds": 0.1}
        for a in arms for s in seeds for r in (1, 2)
        for city, role in [("aachen", "train"), ("aachen", "heldout"), ("frankfurt", "val"),
                           ("lindau", "val")]
    ]  # fmt: skip


def panel(arms, city="frankfurt"):
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 19, (16, 1), dtype=np.uint8), 32, axis=1)
    labels[:2] = 255
    image = rng.integers(0, 256, (16, 32, 3), dtype=np.uint8)
    answers = {name: np.where(labels == 255, 0, labels).astype(np.uint8) for name in arms}
    return ScenePanel(city, image, "procedural scene", {"shuffle": image[::-1]}, labels, answers)


def report(folder, given_summary, config=CONFIG, panels=None, seeds=(0,)):
    arms = list(given_summary["arms"])
    results = lines(arms, seeds)
    panels = [panel(arms)] if panels is None else panels
    path = write_report(folder, given_summary, iter(results), config, panels, CLASSES)
    return path.read_text(encoding="utf-8")


THREE = summary(plain=arm(31.37, 31.37), per_client=arm(22.22, 31.37), per_image=arm(25.18, 31.37))


def test_report_is_balanced_whole_and_self_contained(tmp_path):
    text = report(tmp_path, THREE)
    assert_self_contained(text)
    assert Page(text).tags.count("svg") == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures", "report.html"]
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} == {".svg", ".png"}


def test_ids_are_unique_and_references_resolve(tmp_path):
    assert_ids_resolve(report(tmp_path, THREE))


def test_report_holds_every_number_of_the_summary(tmp_path):
    words = Page(report(tmp_path, THREE)).text
    for name, values in THREE["arms"].items():
        assert name in words
        for score in ("aAcc", "mIoU", "mAcc", "own_mIoU"):
            assert f"{values[score]:.1f}" in words
        assert f"{values['ratio_to_plain']:.3f}" in words
    for text in ("61.2", "12.3", "56.8", "5:12", "3,820 MB", "mean of the last 3 rounds"):
        assert text in words
    assert "reconstruction" in words
    assert "Perceptual encryption is not semantic security" in words


def test_scene_panels_are_labelled_and_scored(tmp_path):
    words = Page(report(tmp_path, THREE)).text
    assert "procedural scene" in words
    assert "throw-away demonstration key" in words
    assert words.count("100 % of pixels right") == 3


def test_hostile_names_are_text(tmp_path):
    hostile = summary(plain=arm(30.0, 30.0))
    hostile["arms"][HOSTILE] = arm(20.0, 30.0, per_city_mIoU={HOSTILE: 20.0})
    hostile["arms"]["failed"] = {"error": HOSTILE}
    config = CONFIG | {"name": HOSTILE, HOSTILE: HOSTILE, "arm_table": {HOSTILE: {"note": HOSTILE}}}
    scene = panel(hostile["arms"], city=HOSTILE)
    text = report(tmp_path, hostile, config, [scene])
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert HOSTILE in page.text


@pytest.mark.parametrize(
    "given_summary",
    [
        summary(plain=arm(30.0, 30.0)),
        summary(per_image=arm(20.0)),
        summary(plain=arm(30.0, 30.0), per_client={"error": "too few replies"}),
        summary(plain={"mIoU": None}, per_client=None),
        summary(plain=arm(float("nan")), per_client=arm(20.0)),
    ],
    ids=["one arm", "no plain", "failed arm", "all failed", "not a number"],
)
def test_incomplete_runs_are_told_as_they_are(tmp_path, given_summary):
    words = Page(report(tmp_path, given_summary, panels=[])).text
    told = headline(given_summary, CONFIG) + " ".join(findings(given_summary, CONFIG))
    assert "nan" not in words.lower()
    assert "keep" not in told
    for name, values in given_summary["arms"].items():
        assert name in words
        if not values or not isinstance(values.get("mIoU"), float) or np.isnan(values["mIoU"]):
            assert name == "plain" or "gave no score" in told


def test_no_results_still_make_a_report(tmp_path):
    path = write_report(tmp_path, THREE, [], CONFIG, [], CLASSES)
    assert "31.4" in Page(path.read_text(encoding="utf-8")).text


ratios = st.floats(0.01, 1.5)
arm_ids = st.lists(
    st.sampled_from(["per-client", "per-image", "per-image-per-block", "centralised"]),
    min_size=1,
    unique=True,
)


@settings(max_examples=30)
@given(plain=st.floats(1, 60), names=arm_ids, data=st.data())
def test_headline_never_claims_more_than_was_measured(plain, names, data):
    measured = {name: data.draw(ratios) for name in names}
    arms = {"plain": arm(plain, plain)}
    arms |= {name: arm(ratio * plain, plain) for name, ratio in measured.items()}
    text = headline({"arms": arms}, CONFIG)
    encrypted = sorted((r for n, r in measured.items() if n != "centralised"), reverse=True)
    if "per-image-per-block" in measured:  # the ciphertexts of the others are broken
        encrypted = [measured["per-image-per-block"]]
    claimed = [int(n) for n in re.findall(r"(\d+)(?=\u00a0%| to )", text)]
    if not encrypted:
        assert claimed == []
        return
    assert claimed[0] <= 100 * encrypted[0] + 1e-6 < claimed[0] + 1 + 1e-5
    assert min(claimed) <= 100 * encrypted[-1] + 1e-6 < min(claimed) + 1 + 1e-5
    assert ("keep" in text) == (encrypted[0] < 1)


@settings(max_examples=30)
@given(plain=st.floats(1, 60), other=st.floats(1, 60))
def test_findings_state_true_differences(plain, other):
    arms = {"plain": arm(plain, plain), "per-image": arm(other, plain)}
    told = next(t for t in findings({"arms": arms}, CONFIG) if t.startswith("Per-image keys:"))
    points, side = re.search(r"([\d.]+) points (above|below) plain", told).groups()
    assert float(points) == pytest.approx(abs(other - plain), abs=0.0501)
    assert side == ("above" if other >= plain else "below")
    assert ("too close to call" in told) == (abs(other - plain) < 1.0)


@pytest.mark.parametrize(("high", "shown"), [(0.99, True), (1.004, False)])
def test_an_interval_that_holds_one_limits_the_claim(high, shown):
    two = [{"seed": 0}, {"seed": 1}]
    interval = {"ratio_ci95": [0.93, high]}
    arms = summary(plain=arm(30.0, 30.0, two), per_image=arm(29.0, 30.0, two, **interval))
    told = " ".join(findings(arms, CONFIG))
    assert f"0.967 of it, 95 % interval 0.930 to {high:.3f} over the seeds" in told
    assert ("no difference is shown" in told) == (not shown)
    assert "One seed" not in told


def test_commonest_class_floor_by_hand():
    row = {"arm": "plain", "seed": 0, "round": 1, "city": "ulm", "role": "val", "loss": None}
    # 6 of 10 pixels are class 0: IoU 60 %, the other class 0 %; class 2 is absent
    series = collect([row | {"confusion": [[1, 5, 0], [4, 0, 0], [0, 0, 0]]}])
    assert series.floor() == pytest.approx(30.0)


def test_curves_sum_counts_over_cities_and_weight_losses():
    row = {"arm": "plain", "seed": 0, "round": 1}
    results = [
        row | {"city": "a", "role": "val", "confusion": [[1, 0], [0, 0]], "loss": 9.0},
        row | {"city": "b", "role": "val", "confusion": [[0, 1], [0, 2]], "loss": 9.0},
        row | {"city": "c", "role": "heldout", "confusion": [[0, 99], [99, 0]], "loss": 9.0},
        row | {"city": "d", "role": "train", "confusion": None, "loss": 1.0, "num_examples": 3},
        row | {"city": "e", "role": "train", "confusion": None, "loss": 2.0, "num_examples": 1},
    ]
    series = collect(results)
    # sum [[1, 1], [0, 2]]: IoU 1/2 and 2/3
    assert series.val_miou["plain"][1] == pytest.approx((100 * (1 / 2 + 2 / 3) / 2,))
    assert series.train_loss["plain"][1] == pytest.approx((1.25,))


def test_curves_leave_out_rounds_without_scores():
    row = {"arm": "plain", "seed": 0, "city": "a", "role": "val", "loss": 1.0}
    series = collect(
        [row | {"round": 1, "confusion": [[1, 0], [0, 1]]}, row | {"round": 2, "confusion": None}]
    )
    assert series.val_miou == {"plain": {1: (100.0,)}}


def test_own_models_do_not_count_pixels_twice():
    row = {"arm": "local-only", "seed": 0, "round": 1, "city": "a", "role": "val", "loss": 1.0}
    models = [[[3, 1], [0, 2]], [[2, 2], [2, 0]]]
    series = collect(row | {"model": str(k), "confusion": c} for k, c in enumerate(models))
    assert series.val_pixels.tolist() == [4, 2]


def test_report_says_that_nothing_was_attacked_and_names_reconstructions_as_such(tmp_path):
    words = Page(report(tmp_path, THREE)).text
    assert "No attack was run for this report; python -m fl_ppseg.audit RUN runs them." in words
    texts = arm_texts(["per-client", "per-image", "per-image-per-block", "plain"], CONFIG)
    assert [text.reconstruction for text in texts.values()] == [True, True, True, False]


def test_tables_hold_means_and_sample_deviations():
    three = [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    plain = arm(32.0, 32.0, three, mIoU_std=2.66)
    given_summary = summary(plain=plain, local_only={"error": "stopped"})
    stream = io.StringIO()
    Console(file=stream, width=80).print(comparison_table(given_summary))
    for text in (stream.getvalue().replace("±", " ± "), comparison_text(given_summary)):
        assert "32.0 ± 2.7" in text
        assert "1.000" in text
        assert "no result: local-only" in " ".join(text.split())
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def terminal(given_summary, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width).print(comparison_table(given_summary))
    return stream.getvalue().splitlines()


CLIMBED = {"start_mIoU": 20.0, "gain": 12.0, "of_plain_above_no_image": 1.0}
BIG = {"bytes_up": 2_400_000_000, "bytes_down": 5_400_000_000}
PRIOR = {"no_image": {"mIoU": 11.74, "aAcc": 52.71}}


def test_terminal_table_cuts_no_number():
    values = arm(32.0, 32.0, **BIG, **CLIMBED)
    given_summary = summary(**{"plain": values, "plain-frozen-embedding": values}) | PRIOR
    lines = terminal(given_summary)
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith(" plain")]
    assert len(rows) == 2
    for row in rows:
        assert row.split()[1:] == [
            "72.0", "32.0", "41.0", "33.0", "20.0", "+12.0", "1.000", "1.000", "61.2", "2,400",
            "5,400",
        ]  # fmt: skip
    (prior,) = [line for line in lines if line.startswith(" no image")]
    assert prior.split()[2:] == ["52.7", "11.7", *"–" * 9]


INTERVALS = {
    kind: {
        f"mIoU_{suffix}": [31.2, 33.4],
        f"gain_{suffix}": [-0.5, 12.3],
        f"ratio_{suffix}": [0.9, 1.1],
        f"of_plain_above_no_image_{suffix}": [-0.8, 1.2],
    }
    for kind, suffix in (("seeds", "ci95"), ("images", "ci95_images"), ("places", "ci95_places"))
}
DRAWN = {"val_images": {"num_images": 60, "num_places": 3, "resamples": 2000, "seed": 0}}
COVERED = {
    "seeds": "seeds: other orders, views and keys of training",
    "images": "val images: other photographs of the same places",
    "places": "val places: other places; of 3 it is too narrow",
}


@pytest.mark.parametrize("kinds", [["images"], ["images", "places"], [*INTERVALS], ["seeds"], []])
def test_each_interval_is_named_for_what_it_covers(kinds, tmp_path):
    """One seed has none over seeds, a deployed or an older run none over images."""
    ends = {name: pair for kind in kinds for name, pair in INTERVALS[kind].items()}
    seeds = [{"seed": 0}, {"seed": 1}] if "seeds" in kinds else None
    arms = {name: arm(32.0, 32.0, seeds, **BIG, **CLIMBED, **ends)
            for name in ("plain", "per-client-private", "per-image-invariant")}  # fmt: skip
    given_summary = summary(**arms) | PRIOR | (DRAWN if "images" in kinds else {})
    lines = terminal(given_summary)
    assert max(map(len, lines)) <= 80
    rows = [line.split()[1:] for line in lines if re.match(" (plain|per-\\S+) .*–", line)]
    names = [["seeds"] if kind == "seeds" else ["val", kind] for kind in kinds]
    numbers = ["31.2–33.4", "-0.5–+12.3"]
    assert rows == [
        *([*name, *numbers, "–", "–"] for name in names),  # plain to itself
        *2 * [[*name, *numbers, "0.900–1.100", "-0.800–1.200"] for name in names],
    ]
    words = Page(report(tmp_path, given_summary, panels=[])).text
    for text in (" ".join(" ".join(lines).split()), " ".join(words.split())):
        for kind, told in COVERED.items():
            assert (told in text) == (kind in kinds)
        assert ("2,000 draws of 60 val images of 3 places" in text) == ("images" in kinds)
    assert ("How sure" in words) == bool(kinds)


def test_findings_name_what_an_interval_is_over():
    images, seeds = INTERVALS["images"], INTERVALS["seeds"] | {"ratio_ci95": [0.9, 0.97]}
    told = " ".join(findings(summary(plain=arm(30.0, 30.0), per_image=arm(29.0, 30.0, **images)),
                             CONFIG))  # fmt: skip
    assert (
        "0.967 of it, 95 % interval 0.900 to 1.100 over the val images (newest weights), so no diff"
        in told
    )
    assert "One seed: differences of a few points may be chance." in told
    both = summary(plain=arm(30.0, 30.0), per_image=arm(29.0, 30.0, **seeds, **images))
    told = " ".join(findings(both, CONFIG))
    assert "0.900 to 0.970 over the seeds and 0.900 to 1.100 over the val images" in told


def test_terminal_tables_of_several_seeds_cut_no_number():
    """Costs have a table of their own, for numbers with their spread leave no room beside them."""
    spreads = {f"{key}_std": 2.83 for key in ("aAcc", "mIoU", "mAcc", "own_mIoU", "gain")}
    ends = INTERVALS["seeds"]
    seeds = [{"seed": 0}, {"seed": 1}]
    values = arm(32.0, 32.0, seeds, start_mIoU_std=0.0, **BIG, **CLIMBED, **spreads, **ends)
    arms = {"plain": values, "plain-frozen-embedding": values, "per-image-invariant": values}
    lines = terminal(summary(**arms) | PRIOR)
    assert max(map(len, lines)) <= 80
    rows = [line.split()[1:] for line in lines if line.startswith(" per-image")]
    assert rows[0] == [
        "72.0±2.8", "32.0±2.8", "41.0±2.8", "33.0±2.8", "20.0", "+12.0±2.8", "1.000", "1.000",
    ]  # fmt: skip
    assert rows[1] == ["seeds", "31.2–33.4", "-0.5–+12.3", "0.900–1.100", "-0.800–1.200"]
    assert rows[2] == ["61.2", "2,400", "5,400"]


def test_plain_table_is_aligned():
    *rows, _ = comparison_text(THREE).splitlines()
    assert len({len(row) for row in rows}) == 1
    assert rows[2].split() == [
        "per-client", "62.3", "22.2", "31.2", "23.2", "–", "–", "0.708", "61.2", "12.3", "56.8",
    ]  # fmt: skip


def told_of(prior=None, **changes):
    values = arm(32.0, 32.0, **(CLIMBED | changes))
    return " ".join(findings(summary(plain=values) | {"no_image": prior}, CONFIG, floor=3.0))


@pytest.mark.parametrize(
    ("gain", "interval", "nothing"),
    [
        (12.0, None, False),
        (0.99, None, True),  # one seed: less than a point
        (-3.0, None, True),
        (3.0, [0.1, 5.9], False),
        (3.0, [-0.1, 6.1], True),  # seeds disagree about its sign
        (0.2, [0.1, 0.3], True),  # real, and nothing
        (None, None, False),  # no start was scored
    ],
)
def test_a_run_says_what_it_taught_the_model_or_that_it_taught_nothing(gain, interval, nothing):
    told = told_of(gain=gain, gain_ci95=interval)
    assert ("This run taught the model nothing" in told) == nothing
    climbed = gain is not None and not nothing
    assert ("Training took plain from 20.0 to" in told) == climbed
    if nothing or climbed:
        assert f"a gain of {gain:+.1f}" in told
    if nothing:
        assert "started at 20.0" in told


def test_what_is_scored_without_an_image_is_told_in_place_of_the_commonest_class():
    told = told_of({"mIoU": 11.74, "aAcc": 52.71})
    assert "scores 11.7 mIoU (52.7 aAcc): plain training is 20.3 points above that." in told
    assert "Always answering" not in told
    told = told_of({"mIoU": 40.0, "aAcc": 52.71})
    assert "plain training is not above that, so no arm shows that it sees anything" in told
    for prior in (None, {"mIoU": None, "aAcc": None}):
        assert "Always answering the commonest class would score 3.0 mIoU." in told_of(prior)


def test_the_share_of_plain_above_no_image_is_paired_by_seed_and_round():
    """Plain 80 and 60, the arm 60 and 60, of 40 without an image."""

    def confusion(miou):  # of two classes, IoU of both (100 - e) / (100 + e)
        errors = 100 * (100 - miou) / (100 + miou)
        return [[100 - errors, errors], [errors, 100 - errors]]

    scores = {("plain", 0): 80, ("plain", 1): 60, ("per-image", 0): 60, ("per-image", 1): 60}
    results = [
        {"arm": a, "seed": s, "round": 1, "city": "lindau", "role": "val", "num_examples": 4,
         "confusion": confusion(miou)}
        for (a, s), miou in scores.items()
    ]  # fmt: skip
    found = collect(results, 40.0).above_no_image
    assert list(found) == ["per-image"]
    assert np.allclose(found["per-image"][1], [0.5, 1.0])
    assert collect(results).above_no_image == {}
    assert collect(results, 59.0).above_no_image == {}, "plain has a point more in one seed"


def test_curves_begin_at_the_start():
    zero = [x | {"round": 0} for x in lines(["plain"]) if x["role"] == "val"]
    assert sorted(collect([*zero, *lines(["plain"])]).val_miou["plain"]) == [0, 1, 2]


def test_the_page_has_a_row_of_no_image_and_columns_of_the_climb(tmp_path):
    values = arm(32.0, 32.0, **CLIMBED)
    words = Page(report(tmp_path, summary(plain=values) | PRIOR)).text
    for text in ("no image", "52.7", "11.7", "+12.0", "of plain above no image", "20.0"):
        assert text in words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no file /home/ann/data/x.png here", "no file [path] here"),
        ("root=~/cityscapes", "root=[path]"),
        (r"C:\Users\ann\data", "[path]"),
        ("leftImg8bit/train is missing", "leftImg8bit/train is missing"),
        ("3/4 of 18", "3/4 of 18"),
        ("mean 1/2", "mean 1/2"),
    ],
)
def test_paths_are_hidden_and_only_paths(text, shown):
    assert without_paths(text) == shown


def test_report_shows_no_path_of_the_config(tmp_path):
    config = CONFIG | {"data": CONFIG["data"] | {"root": "/home/ann/cityscapes"}}
    text = report(tmp_path, summary(plain=arm(30.0, 30.0)), config)
    assert "ann/" not in text
    assert "/home" not in text
    assert str(tmp_path) not in text


def test_styles_are_stable_and_distinct():
    arms = ["plain", *(f"arm-{k}" for k in range(21))]
    styles = arm_styles(arms)
    assert len(set(styles.values())) == 22
    assert len({styles[name].colour for name in arms[:8]}) == 8
    assert arm_styles(arms[:3]) == {name: styles[name] for name in arms[:3]}


def test_report_is_deterministic(tmp_path):
    first, second = (report(tmp_path / name, THREE) for name in ("a", "b"))
    assert first == second


TRIALS = {
    "right": {"aAcc": 81.4, "mIoU": 38.2, "mAcc": 45.0},
    "wrong": {"aAcc": 20.3, "mIoU": 4.6, "mAcc": 7.0},
    "none": {"aAcc": 25.7, "mIoU": 11.9, "mAcc": 14.0},
}


def test_keys_have_a_table_of_their_own_where_they_were_tried(tmp_path):
    arms = summary(plain=arm(30.0, 30.0), conventional_2=arm(20.0, 30.0, key_trials=TRIALS))
    stream = io.StringIO()
    Console(file=stream, width=80).print(comparison_table(arms))
    for text in (stream.getvalue(), comparison_text(arms)):
        rows = [line.split() for line in text.splitlines()]
        assert [row[1:] for row in rows if row[:1] == ["conventional-2"]][-1] == [
            "38.2",
            "4.6",
            "11.9",
            "81.4",
            "20.3",
            "25.7",
        ]
    words = Page(report(tmp_path, arms)).text
    assert "With a wrong key a query gets 4.6 mIoU where the right key gets 38.2." in words
    assert "With no key a query gets 11.9 mIoU" in words
    for text in (comparison_text(THREE), Page(report(tmp_path / "three", THREE)).text):
        assert "wrong" not in text


def test_wrong_key_findings_name_the_arm_that_gives_most_away():
    more = TRIALS | {"wrong": {"mIoU": 9.1}, "none": {"mIoU": 3.0}}
    arms = summary(conventional_2=arm(20.0, key_trials=TRIALS),
                   domain_adaptation=arm(20.0, key_trials=more))  # fmt: skip
    told = " ".join(findings(arms, CONFIG))
    assert "With a wrong key a query gets 4.6 to 9.1 mIoU" in told
    assert "(most: domain-adaptation)" in told
    assert "(most: conventional-2)" in told


def test_headline_is_of_arms_whose_ciphertexts_hold_then_of_those_without_a_shared_key():
    shared = {"conventional-1": arm(31.0, 30.0), "domain-adaptation": arm(29.9, 30.0)}
    ours = {"per-client-private": arm(27.0, 30.0), "per-image-invariant": arm(24.0, 30.0)}
    text = headline({"arms": {"plain": arm(30.0, 30.0)} | shared | ours}, CONFIG)
    assert text.startswith("Per-image keys drawn for each block")
    assert "keep 80\u00a0%" in text and "90" not in text
    assert text.endswith("no attack was run, so what this protects is not known")
    del ours["per-image-invariant"]
    text = headline({"arms": {"plain": arm(30.0, 30.0)} | shared | ours}, CONFIG)
    assert text.startswith("Per-client keys with a private embedding keep 90")
    assert "the ciphertexts are broken" in text and "shared" not in text
    text = headline({"arms": {"plain": arm(30.0, 30.0)} | shared}, CONFIG)
    assert text.startswith("Images under one shared key with an adapted embedding keep 99")
    assert "the ciphertexts are broken" in text
    text = headline({"arms": {"plain": arm(30.0, 30.0)}}, CONFIG)
    assert text.endswith("; nothing is encrypted")


def test_the_terminal_names_arms_whose_scores_protect_nothing():
    arms = {"plain": arm(30.0, 30.0), "per-image": arm(20.0, 30.0)}
    stream = io.StringIO()
    given = {"arms": arms | {"per-image-per-block": arm(15.0, 30.0)}}
    Console(file=stream, width=100).print(comparison_table(given, CONFIG))
    for text in (stream.getvalue(), comparison_text(given, CONFIG)):
        words = " ".join(text.split())
        assert "(one permutation for all blocks): per-image;" in words
        assert "a score says nothing of protection" in words
    assert "protection" not in comparison_text({"arms": {"plain": arm(30.0, 30.0)}}, CONFIG)


def test_markup_in_names_of_arms_that_failed_is_text():
    stream = io.StringIO()
    given = {"arms": {"plain": arm(30.0, 30.0), "x[/]y[bold]": {"error": "stopped"}}}
    Console(file=stream, width=80).print(comparison_table(given, CONFIG))
    assert "no result: x[/]y[bold]" in " ".join(stream.getvalue().split())


def many():
    """Every built-in arm and two more, with five seeds."""
    names = [*builtin_arms(), "a", "b"]
    five = [{"seed": k} for k in range(5)]
    interval = {"ratio_ci95": [0.49, 0.51], "mIoU_std": 0.4}
    return {"arms": {name: arm(10.0 + k, 20.0 + 2 * k, five, **interval)
                     for k, name in enumerate(names)}}  # fmt: skip


def test_many_arms_are_all_told_shown_and_in_order(tmp_path):
    given_summary = many()
    names = list(given_summary["arms"])
    told = " ".join(findings(given_summary, CONFIG))
    subjects = arm_texts(names, CONFIG)
    for name in names[1:]:
        assert f"{name} 0.500 (0.490 to 0.510)" in told or f"{subjects[name].subject}:" in told
    text = report(tmp_path, given_summary, seeds=range(5))
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    assert re.findall(r"</i>([^<]+)</th>", table) == names
    for figure in ("per_city.svg", "per_class.svg", "miou_curves.svg"):
        drawn = (tmp_path / "figures" / figure).read_text(encoding="utf-8")
        places = [drawn.index(f">{name}</text>") for name in names]
        assert places == sorted(places)


def test_grid_shows_the_numbers_and_a_dash_where_nothing_was_labelled(tmp_path):
    given_summary = many()
    report(tmp_path, given_summary)
    drawn = (tmp_path / "figures" / "per_class.svg").read_text(encoding="utf-8")
    numbers = re.findall(r">(\d+|–)</text>", drawn)
    mious = [f"{values['mIoU']:.0f}" for values in given_summary["arms"].values()]
    rows = [["–"] * len(mious) if name == "train" else mious for name in CLASSES.names]
    assert numbers == [text for row in rows for text in row]


def test_narrow_tables_of_many_arms_fold_names_and_cut_nothing():
    stream = io.StringIO()
    given_summary = many()
    Console(file=stream, width=80).print(comparison_table(given_summary, CONFIG))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "0.490–0.510" in text
    wide = io.StringIO()
    Console(file=wide, width=160).print(comparison_table(given_summary, CONFIG))
    for name in given_summary["arms"]:
        assert re.search(rf"^ {re.escape(name)} ", wide.getvalue(), re.MULTILINE)


def test_key_panels_and_the_gallery_are_shown(tmp_path):
    arms = summary(plain=arm(30.0, 30.0), conventional_2=arm(20.0, 30.0))
    scene = panel(arms["arms"])
    right = np.where(scene.label_map == 255, 0, scene.label_map).astype(np.uint8)
    wrong = np.full_like(right, 18)
    wrong[2] = right[2]
    scene.key_predictions["conventional-2"] = {"right": right, "wrong": wrong, "none": wrong}
    gallery = CipherGallery(scene.plain, "procedural scene", {"etc": scene.plain[::-1]})
    path = write_report(tmp_path, arms, lines(arms["arms"]), CONFIG, [scene], CLASSES, gallery)
    words = Page(path.read_text(encoding="utf-8")).text
    share = 100 * float((wrong == scene.label_map)[2:].mean())
    assert "right key 100 % of pixels right" in words
    assert f"wrong key {share:.0f} % of pixels right no key {share:.0f} %" in words
    assert "One image under every cipher" in words
    written = {p.name for p in (tmp_path / "figures").glob("*.png")}
    assert {"gallery_encrypted_etc.png", "scene_0_conventional-2_key_no-key.png"} <= written
    assert "One image under every cipher" not in Page(report(tmp_path / "b", THREE)).text
