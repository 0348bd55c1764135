"""The report says what the summary says: no more, nothing else, and nothing from outside."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from html_page import HOSTILE, Page, assert_ids_resolve, assert_self_contained
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import escape
from rich.console import Console

from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.federation.run_summary import parse_summary
from fl_ppseg.pages.rendering import render, without_paths
from fl_ppseg.pages.styles import arm_styles
from fl_ppseg.report import findings
from fl_ppseg.report.arms import LEFT_BY_CIPHER, arm_texts
from fl_ppseg.report.findings import cautions, headline
from fl_ppseg.report.html import write_report
from fl_ppseg.report.scenes import CipherGallery, ScenePanel
from fl_ppseg.report.series import collect
from fl_ppseg.report.tables import comparison_table, comparison_text

CLASSES = load_class_table("cityscapes")
CONFIG = Config()


def arm(miou, plain=None, per_seed=None, scaled=True, **other):
    """Of an arm; not scaled, other scores are those of mIoU, which may be any percentage."""
    more = (40.04, 9.03, 1.02) if scaled else (0, 0, 0)
    names = ("aAcc", "mAcc", "own_mIoU")
    scores = {"mIoU": miou} | {name: miou + by for name, by in zip(names, more, strict=True)}
    return {
        **scores,
        "ratio_to_plain": None if plain is None else miou / plain,
        "per_class_iou": {name: None if name == "train" else miou for name in CLASSES.names},
        "per_client_mIoU": {"aachen": miou, "frankfurt": miou, "lindau": miou / 2},
        "per_seed": per_seed or [{"seed": 0, **scores}],
        "rounds": 2,
        "seconds": 61.23,
        "bytes_up": 12_340_000,
        "bytes_down": 56_780_000,
        **other,
    }


def summary(**arms):
    named = {name.replace("_", "-"): values for name, values in arms.items()}
    return of(named)


def of(arms, **other):
    """The summary of a run as a report reads it."""
    values = {"schema": 3, "arms": arms, "total_seconds": 312.4, "peak_rss_mb": 3820.0, **other}
    return parse_summary(json.dumps(values), "summary.json")


def lines(arms, seeds=(0,)):
    confusion = np.diag(np.arange(1, 20)).tolist()
    return [
        {"arm": a, "seed": s, "round": r, "client": client, "role": role, "loss": 1.0 / r,
         "num_examples": 4, "confusion": None if role == "train" else confusion,
         "bytes_up": 10, "bytes_down": 20, "seconds": 0.1}
        for a in arms for s in seeds for r in (1, 2)
        for client, role in [("aachen", "train"), ("aachen", "heldout"), ("frankfurt", "val"),
                           ("lindau", "val")]
    ]  # fmt: skip


def panel(arms, client="frankfurt"):
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 19, (16, 1), dtype=np.uint8), 32, axis=1)
    labels[:2] = 255
    image = rng.integers(0, 256, (16, 32, 3), dtype=np.uint8)
    answers = {name: np.where(labels == 255, 0, labels).astype(np.uint8) for name in arms}
    return ScenePanel(client, image, "procedural scene", {"shuffle": image[::-1]}, labels, answers)


def report(folder, given_summary, config=CONFIG, panels=None, seeds=(0,)):
    arms = list(given_summary.arms)
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
    for name, values in THREE.arms.items():
        assert name in words
        for score in (values.aAcc, values.mIoU, values.mAcc, values.own_mIoU):
            assert f"{score:.1f}" in words
        assert f"{values.ratio_to_plain:.3f}" in words
    for text in ("61.2", "12.3", "56.8", "5:12", "3,820 MB", "mean of the last 3 rounds"):
        assert text in words
    assert "reconstruction" in words
    assert "Perceptual encryption is not semantic security" in words


def test_scene_panels_are_labelled_and_scored(tmp_path):
    words = Page(report(tmp_path, THREE)).text
    assert "procedural scene" in words
    assert "ephemeral demonstration key" in words
    assert words.count("100 % of pixels right") == 1 + 3  # of the first screen, and of the scene


def first_screen(text):
    return text[text.index("<header>") : text.index("At a glance")]


def test_the_first_screen_has_a_scene_of_the_arm_that_it_is_about(tmp_path):
    arms = summary(plain=arm(31.4, 31.4), per_image=arm(20.0, 31.4), per_client=arm(22.2, 31.4))
    shown = first_screen(report(tmp_path, arms))
    kinds = re.findall(r'<figure class="(\w+)">', shown)
    assert kinds == ["plain", "encrypted", "truth", "prediction"]
    assert "<h1>per\u2011client keeps" in shown
    assert Page(shown.split("</header>")[1].rsplit("<!--told-->")[0]).text.endswith(
        "per-client 100 % of pixels right"
    )


def test_without_a_scene_the_first_screen_has_the_curves_which_stand_there_alone(tmp_path):
    text = report(tmp_path, THREE, panels=[])
    assert 'aria-label="miou curves"' in first_screen(text)
    assert text.count('aria-label="miou curves"') == 1
    assert_ids_resolve(text)


def test_hostile_names_are_text(tmp_path):
    """Names of arms, clients and classes, and notes: whoever wrote them, they are no markup."""
    arms = {
        "plain": arm(30.0, 30.0),
        HOSTILE: arm(20.0, 30.0, per_client_mIoU={HOSTILE: 20.0}, key_trials=TRIALS),
        f"{HOSTILE} failed": {"mIoU": None},
        "mine": arm(25.0, 30.0),
    }
    mine = builtin_arms()["per-image-per-block"].model_copy(update={"note": HOSTILE})
    config = CONFIG.model_copy(update={"name": HOSTILE, "arm_table": {"mine": mine}})
    given_summary = of(arms, notes=[HOSTILE])
    scene = panel(arms, client=HOSTILE)
    scene.key_predictions[HOSTILE] = {"right": scene.label_map, "wrong": scene.label_map}
    object.__setattr__(scene, "encrypted", {HOSTILE: scene.plain})
    text = report(tmp_path, given_summary, config, [scene])
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.text.count(HOSTILE) >= 12
    assert f"<title>Run {escape(HOSTILE)}</title>" in text
    assert_self_contained(text)
    assert_ids_resolve(text)


def test_markup_that_no_template_escapes_is_made_in_one_module():
    package = Path(findings.__file__).parents[1]
    makers = [path.relative_to(package).as_posix() for path in sorted(package.rglob("*.py"))
              if re.search(r"\bMarkup\(|</\w+>", path.read_text("utf-8"))]  # fmt: skip
    assert makers == ["pages/inline.py"]
    templates = [path.read_text("utf-8") for path in package.rglob("*.html")]
    assert len(templates) >= 7
    assert not any(re.search(r"\bsafe\b|autoescape", text) for text in templates)


def test_a_template_escapes_and_misses_no_name():
    with pytest.raises(UndefinedError):
        render("report/headline.html")
    shown = render("report/headline.html", headline=findings.Headline(HOSTILE, "/home/ann/x.png"))
    assert escape(HOSTILE).replace("-", "\u2011") in shown
    assert "[path]" in shown and "ann" not in shown


@pytest.mark.parametrize(
    "given_summary",
    [
        summary(plain=arm(30.0, 30.0)),
        summary(per_image=arm(20.0)),
        summary(plain=arm(30.0, 30.0), per_client={}),
        summary(plain={"mIoU": None}, per_client={}),
        summary(plain={}, per_client=arm(20.0)),
    ],
    ids=["one arm", "no plain", "failed arm", "all failed", "plain failed"],
)
def test_incomplete_runs_are_told_as_they_are(tmp_path, given_summary):
    words = Page(report(tmp_path, given_summary, panels=[])).text
    told = " ".join([*headline(given_summary, CONFIG), *cautions(given_summary, CONFIG)])
    assert "nan" not in words.lower() and "None" not in words.replace("None of", "")
    assert "keeps" not in told
    failed = [name for name, values in given_summary.arms.items() if values.mIoU is None]
    assert all(name in words for name in given_summary.arms)
    assert (f"Without a score: {', '.join(failed)}." in told) == bool(failed)
    finished = set(given_summary.arms) - set(failed)
    assert (findings.NO_PLAIN in told) == (bool(finished) and "plain" not in finished)


def test_no_results_still_make_a_report(tmp_path):
    path = write_report(tmp_path, THREE, [], CONFIG, [], CLASSES)
    assert "31.4" in Page(path.read_text(encoding="utf-8")).text


arm_ids = st.lists(
    st.sampled_from(["per-client", "per-image", "per-image-per-block", "centralised"]),
    min_size=1,
    unique=True,
)


@settings(max_examples=30)
@given(plain=st.floats(20, 60), names=arm_ids, data=st.data())
def test_headline_never_claims_more_than_was_measured(plain, names, data):
    measured = {name: data.draw(st.floats(0.01, min(1.5, 100 / plain))) for name in names}
    arms = {"plain": arm(plain, plain, scaled=False)}
    arms |= {name: arm(ratio * plain, plain, scaled=False) for name, ratio in measured.items()}
    text = headline(of(arms), CONFIG).reaches
    encrypted = sorted((r for n, r in measured.items() if n != "centralised"), reverse=True)
    if "per-image-per-block" in measured:  # the ciphertexts of the others are broken
        encrypted = [measured["per-image-per-block"]]
    claimed = [int(n) for n in re.findall(r"(\d+)(?=\u00a0%)", text)]
    if not encrypted:
        assert claimed == [] or text.startswith("centralised")
        return
    (share,) = claimed
    assert share <= 100 * encrypted[0] + 1e-6 < share + 1 + 1e-5
    assert ("keeps" in text) == (encrypted[0] < 1 and "no difference is shown" not in text)
    assert "(one seed)" in text
    is_near = abs(encrypted[0] * plain - plain) < findings.NEAR_TIE
    assert ("no difference is shown" in text) == is_near


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"start_mIoU": 29.5, "gain": 0.5}, "this run taught the model nothing"),
        ({"mIoU": 11.0}, "plain training is not above what is scored without a look at any image"),
        ({"mIoU": 19.9}, "plain training itself reaches only 19.9 mIoU"),
    ],
)
def test_the_headline_obeys_its_cautions(changes, why):
    given_summary = of(
        {"plain": arm(30.0, 30.0) | changes, "per-image-per-block": arm(15.0, 30.0)},
        no_image={"mIoU": 12.0, "aAcc": 50.0},
    )
    told = headline(given_summary, CONFIG)
    assert told == (f"What encryption costs is not shown: {why}", "")


def test_the_headline_names_what_an_arm_protects_beside_what_it_reaches():
    for name, settings_of in builtin_arms().items():
        if settings_of.block_scope == "per-block":
            arms = of({"plain": arm(30.0, 30.0), name: arm(25.0, 30.0)})
            told = headline(arms, CONFIG)
            share = "83\u00a0% of plain's mIoU on unseen clients (one seed)"
            assert told.reaches == f"{name} keeps {share}"
            above = arm(25.0, 30.0) | {"of_plain_above_no_image": 0.749}
            arms = of({"plain": arm(30.0, 30.0), name: above})
            of_it = share.replace(" (one", ", 74\u00a0% of it above no image (one")
            assert headline(arms, CONFIG).reaches == f"{name} keeps {of_it}"
            assert told.protects == (
                f"Of each block its ciphertexts leave {LEFT_BY_CIPHER[settings_of.cipher]}; "
                "no attack was run, so what else it gives away is not known."
            )


@pytest.mark.parametrize(("high", "shown"), [(0.99, True), (1.004, False)])
def test_an_interval_that_holds_one_limits_the_claim(high, shown):
    two = [{"seed": 0}, {"seed": 1}]
    interval = {"ratio_ci95": [0.93, high]}
    arms = summary(plain=arm(30.0, 30.0, two), per_image_per_block=arm(29.0, 30.0, two, **interval))
    told = " ".join(cautions(arms, CONFIG))
    assert ("No difference from plain is shown" in told) == (not shown)
    assert (" off: per-image-per-block." in told) == (not shown)
    reaches = headline(arms, CONFIG).reaches
    assert ("no difference is shown" in reaches) == (not shown)
    assert "One seed" not in told and "one seed" not in reaches


def test_commonest_class_floor_by_hand():
    row = {"arm": "plain", "seed": 0, "round": 1, "client": "ulm", "role": "val", "loss": None}
    # 6 of 10 pixels are class 0: IoU 60 %, the other class 0 %; class 2 is absent
    series = collect([row | {"confusion": [[1, 5, 0], [4, 0, 0], [0, 0, 0]]}])
    assert series.floor() == pytest.approx(30.0)


def test_curves_sum_counts_over_clients_and_weight_losses():
    row = {"arm": "plain", "seed": 0, "round": 1}
    results = [
        row | {"client": "a", "role": "val", "confusion": [[1, 0], [0, 0]], "loss": 9.0},
        row | {"client": "b", "role": "val", "confusion": [[0, 1], [0, 2]], "loss": 9.0},
        row | {"client": "c", "role": "heldout", "confusion": [[0, 99], [99, 0]], "loss": 9.0},
        row | {"client": "d", "role": "train", "confusion": None, "loss": 1.0, "num_examples": 3},
        row | {"client": "e", "role": "train", "confusion": None, "loss": 2.0, "num_examples": 1},
    ]
    series = collect(results)
    # sum [[1, 1], [0, 2]]: IoU 1/2 and 2/3
    assert series.val_miou["plain"][1] == pytest.approx((100 * (1 / 2 + 2 / 3) / 2,))
    assert series.train_loss["plain"][1] == pytest.approx((1.25,))


def test_curves_leave_out_rounds_without_scores():
    row = {"arm": "plain", "seed": 0, "client": "a", "role": "val", "loss": 1.0}
    series = collect(
        [row | {"round": 1, "confusion": [[1, 0], [0, 1]]}, row | {"round": 2, "confusion": None}]
    )
    assert series.val_miou == {"plain": {1: (100.0,)}}


def test_own_models_do_not_count_pixels_twice():
    row = {"arm": "local-only", "seed": 0, "round": 1, "client": "a", "role": "val", "loss": 1.0}
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
    given_summary = summary(plain=plain, local_only={})
    stream = io.StringIO()
    Console(file=stream, width=80).print(comparison_table(given_summary, CONFIG))
    for text in (stream.getvalue().replace("±", " ± "), comparison_text(given_summary, CONFIG)):
        assert "32.0 ± 2.7" in text
        assert "1.000" in text
        assert "no result: local-only" in " ".join(text.split())
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def terminal(given_summary, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width).print(comparison_table(given_summary, CONFIG))
    return stream.getvalue().splitlines()


CLIMBED = {"start_mIoU": 20.0, "gain": 12.0, "of_plain_above_no_image": 1.0}
BIG = {"bytes_up": 2_400_000_000, "bytes_down": 5_400_000_000}
PRIOR = {"no_image": {"mIoU": 11.74, "aAcc": 52.71}}


def test_terminal_table_cuts_no_number():
    values = arm(32.0, 32.0, **BIG, **CLIMBED)
    given_summary = of({"plain": values, "plain-frozen-embedding": values}, **PRIOR)
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
    given_summary = of(arms, **PRIOR, **(DRAWN if "images" in kinds else {}))
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


def test_intervals_of_the_first_screen_name_what_they_are_over(tmp_path):
    images, seeds = INTERVALS["images"], INTERVALS["seeds"] | {"ratio_ci95": [0.9, 0.97]}
    one = summary(plain=arm(30.0, 30.0), per_image=arm(29.0, 30.0, **images))
    assert "One seed: differences of a few points may be chance." in cautions(one, CONFIG)
    both = summary(plain=arm(30.0, 30.0), per_image=arm(29.0, 30.0, **seeds, **images))
    for given_summary, told in (
        (one, "0.900–1.100 (val images)"),
        (both, "0.900–0.970 (seeds); 0.900–1.100 (val images)"),
    ):
        assert "No difference from plain is shown" in " ".join(cautions(given_summary, CONFIG))
        glance = report(tmp_path, given_summary)
        glance = glance[glance.index("At a glance") : glance.index("What attacks got")]
        assert f"0.967 {told}" in Page(f"<h2>{glance[: glance.rindex('</section>')]}").text


def test_the_interval_of_the_owners_answer_beside_the_ratio_of_the_nodes_says_so(tmp_path):
    given_summary = summary(
        plain=arm(30.0, 30.0),
        per_image_invariant=arm(29.0, 30.0, **INTERVALS["images"]),
        per_image_invariant_labels=arm(29.0, 30.0, **INTERVALS["images"]),
    )
    glance = report(tmp_path, given_summary)
    glance = glance[glance.index("At a glance") : glance.index("What attacks got")]
    words = Page(f"<h2>{glance[: glance.rindex('</section>')]}").text
    assert words.count("0.967 0.900–1.100 (val images)") == 1
    assert words.count("0.967 0.900–1.100 (val images, of the owner's answer)") == 1


def test_terminal_tables_of_several_seeds_cut_no_number():
    """Costs have a table of their own, for numbers with their spread leave no room beside them."""
    spreads = {f"{key}_std": 2.83 for key in ("aAcc", "mIoU", "mAcc", "own_mIoU", "gain")}
    ends = INTERVALS["seeds"]
    seeds = [{"seed": 0}, {"seed": 1}]
    values = arm(32.0, 32.0, seeds, start_mIoU_std=0.0, **BIG, **CLIMBED, **spreads, **ends)
    arms = {"plain": values, "plain-frozen-embedding": values, "per-image-invariant": values}
    lines = terminal(of(arms, **PRIOR))
    assert max(map(len, lines)) <= 80
    rows = [line.split()[1:] for line in lines if line.startswith(" per-image")]
    assert rows[0] == [
        "72.0±2.8", "32.0±2.8", "41.0±2.8", "33.0±2.8", "20.0", "+12.0±2.8", "1.000", "1.000",
    ]  # fmt: skip
    assert rows[1] == ["seeds", "31.2–33.4", "-0.5–+12.3", "0.900–1.100", "-0.800–1.200"]
    assert rows[2] == ["61.2", "2,400", "5,400"]


def test_plain_table_is_aligned():
    *rows, _ = comparison_text(THREE, CONFIG).splitlines()
    assert len({len(row) for row in rows}) == 1
    assert rows[2].split() == [
        "per-client", "62.3", "22.2", "31.2", "23.2", "–", "–", "0.708", "61.2", "12.3", "56.8",
    ]  # fmt: skip


def told_of(prior=None, **changes):
    values = arm(32.0, 32.0, **(CLIMBED | changes))
    return " ".join(cautions(of({"plain": values}, no_image=prior), CONFIG, floor=3.0))


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
    assert all(number in told for number in ("11.7 mIoU", "52.7 aAcc", "20.3 points"))
    assert "Always answering" not in told
    told = told_of({"mIoU": 40.0, "aAcc": 52.71})
    assert "not above that" in told and "points above" not in told
    for prior in (None, {"mIoU": None, "aAcc": None}):
        assert "Always answering the commonest class would score 3.0 mIoU." in told_of(prior)


def test_the_share_of_plain_above_no_image_is_paired_by_seed_and_round():
    """Plain 80 and 60, the arm 60 and 60, of 40 without an image."""

    def confusion(miou):  # of two classes, IoU of both (100 - e) / (100 + e)
        errors = 100 * (100 - miou) / (100 + miou)
        return [[100 - errors, errors], [errors, 100 - errors]]

    scores = {("plain", 0): 80, ("plain", 1): 60, ("per-image", 0): 60, ("per-image", 1): 60}
    results = [
        {"arm": a, "seed": s, "round": 1, "client": "lindau", "role": "val", "num_examples": 4,
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
    words = Page(report(tmp_path, of({"plain": values}, **PRIOR))).text
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
    data = CONFIG.data.model_copy(update={"root": Path("/home/ann/cityscapes")})
    config = CONFIG.model_copy(update={"data": data})
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
    Console(file=stream, width=80).print(comparison_table(arms, CONFIG))
    for text in (stream.getvalue(), comparison_text(arms, CONFIG)):
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
    assert re.search(
        r"4\.6 mIoU with a wrong key.* 11\.9 with no key.* 38\.2 with the right", words
    )
    for text in (comparison_text(THREE, CONFIG), Page(report(tmp_path / "three", THREE)).text):
        assert "wrong" not in text


def test_wrong_keys_are_told_by_the_most_that_any_arm_gives_away():
    more = TRIALS | {"wrong": {"mIoU": 9.1}, "none": {"mIoU": 3.0}}
    arms = summary(conventional_2=arm(20.0, key_trials=TRIALS),
                   domain_adaptation=arm(20.0, key_trials=more))  # fmt: skip
    told = " ".join(cautions(arms, CONFIG))
    assert re.search(r"9\.1 mIoU with a wrong key.* 11\.9 with no key.* 38\.2 with the right", told)


def test_headline_is_of_arms_whose_ciphertexts_hold_then_of_those_without_a_shared_key():
    plain = {"plain": arm(30.0, 30.0)}
    shared = {"conventional-1": arm(31.0, 30.0), "domain-adaptation": arm(28.9, 30.0)}
    ours = {"per-client-private": arm(27.0, 30.0), "per-image-invariant": arm(24.0, 30.0)}
    told = headline(of(plain | shared | ours), CONFIG)
    assert told.reaches.startswith("per-image-invariant keeps 80\u00a0%")
    assert told.protects.endswith("no attack was run, so what else it gives away is not known.")
    del ours["per-image-invariant"]
    told = headline(of(plain | shared | ours), CONFIG)
    assert told.reaches.startswith("per-client-private keeps 90")
    assert told.protects.startswith("Its ciphertexts are broken")
    told = headline(of(plain | shared), CONFIG)
    assert told.reaches.startswith("domain-adaptation keeps 96")
    assert told.protects.startswith("Its ciphertexts are broken")
    told = headline(of(plain), CONFIG)
    assert told == (
        "plain reaches 30.0 mIoU on unseen clients (one seed)",
        "Its training images are not encrypted.",
    )


def test_an_arm_of_unknown_settings_is_not_told_as_unencrypted():
    told = headline(of({"strange": arm(30.0)}), CONFIG)
    assert told.protects == "Its settings are not known."


def test_the_terminal_names_arms_whose_scores_protect_nothing():
    arms = {"plain": arm(30.0, 30.0), "per-image": arm(20.0, 30.0)}
    stream = io.StringIO()
    given = of(arms | {"per-image-per-block": arm(15.0, 30.0)})
    Console(file=stream, width=100).print(comparison_table(given, CONFIG))
    for text in (stream.getvalue(), comparison_text(given, CONFIG)):
        words = " ".join(text.split())
        assert "(one permutation for all blocks): per-image;" in words
        assert "a score says nothing of protection" in words
    assert "protection" not in comparison_text(of({"plain": arm(30.0, 30.0)}), CONFIG)


def test_markup_in_names_of_arms_that_failed_is_text():
    stream = io.StringIO()
    given = of({"plain": arm(30.0, 30.0), "x[/]y[bold]": {}})
    Console(file=stream, width=80).print(comparison_table(given, CONFIG))
    assert "no result: x[/]y[bold]" in " ".join(stream.getvalue().split())


def many():
    """Every built-in arm and two more, with five seeds."""
    names = [*builtin_arms(), "a", "b"]
    five = [{"seed": k} for k in range(5)]
    interval = {"ratio_ci95": [0.49, 0.51], "mIoU_std": 0.4}
    return of({name: arm(10.0 + k, 20.0 + 2 * k, five, **interval)
               for k, name in enumerate(names)})  # fmt: skip


def test_many_arms_are_all_told_shown_and_in_order(tmp_path):
    given_summary = many()
    names = list(given_summary.arms)
    text = report(tmp_path, given_summary, seeds=range(5))
    for table in re.findall(r"<tbody>.*?</tbody>", text, re.DOTALL)[:2]:
        assert re.findall(r"</i>([^<]+)</th>", table) == names
    for figure in ("per_client.svg", "per_class.svg", "miou_curves.svg"):
        drawn = (tmp_path / "figures" / figure).read_text(encoding="utf-8")
        places = [drawn.index(f">{name}</text>") for name in names]
        assert places == sorted(places)


def test_of_many_clients_the_spread_is_drawn_and_no_bar_of_each(tmp_path):
    names = [f"client-{number:04d}" for number in range(1_000)]
    scores = {name: number / 10 for number, name in enumerate(names)} | {"frankfurt": 12.0}
    text = report(tmp_path, summary(plain=arm(31.4, 31.4, per_client_mIoU=scores)))
    drawn = (tmp_path / "figures" / "per_client.svg").read_text(encoding="utf-8")
    assert "client-0" not in drawn and ">frankfurt (unseen)</text>" in drawn
    assert [drawn.count(f">{row}</text>") for row in ("best", "median", "lowest")] == [1, 1, 1]
    assert "the other 1,000" in drawn
    assert len(text) < 400_000


def test_grid_shows_the_numbers_and_a_dash_where_nothing_was_labelled(tmp_path):
    given_summary = many()
    report(tmp_path, given_summary)
    drawn = (tmp_path / "figures" / "per_class.svg").read_text(encoding="utf-8")
    numbers = re.findall(r">(\d+|–)</text>", drawn)
    mious = [f"{values.mIoU:.0f}" for values in given_summary.arms.values()]
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
    for name in given_summary.arms:
        assert re.search(rf"^ {re.escape(name)} ", wide.getvalue(), re.MULTILINE)


def test_key_panels_and_the_gallery_are_shown(tmp_path):
    arms = summary(plain=arm(30.0, 30.0), conventional_2=arm(20.0, 30.0))
    scene = panel(arms.arms)
    right = np.where(scene.label_map == 255, 0, scene.label_map).astype(np.uint8)
    wrong = np.full_like(right, 18)
    wrong[2] = right[2]
    scene.key_predictions["conventional-2"] = {"right": right, "wrong": wrong, "none": wrong}
    gallery = CipherGallery(scene.plain, "procedural scene", {"etc": scene.plain[::-1]})
    path = write_report(tmp_path, arms, lines(arms.arms), CONFIG, [scene], CLASSES, gallery)
    words = Page(path.read_text(encoding="utf-8")).text
    share = 100 * float((wrong == scene.label_map)[2:].mean())
    assert "right key 100 % of pixels right" in words
    assert f"wrong key {share:.0f} % of pixels right no key {share:.0f} %" in words
    assert "One image under every cipher" in words
    written = {p.name for p in (tmp_path / "figures").glob("*.png")}
    assert {"gallery_encrypted_etc.png", "scene_0_conventional-2_key_no-key.png"} <= written
    assert "One image under every cipher" not in Page(report(tmp_path / "b", THREE)).text
