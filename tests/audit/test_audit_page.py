"""The page and the table of an audit say what the leak table says: all of it and no more."""

import io
import re
from itertools import pairwise

import numpy as np
import pytest
from html_page import HOSTILE, Page, assert_ids_resolve, assert_self_contained
from made_leaks import ANSWER, arm, found, invariant, plain, private, scores, table, usual
from rich.console import Console

from fl_ppseg.audit.page import html
from fl_ppseg.audit.page.html import write_audit
from fl_ppseg.audit.page.matrix import DEEPEST, LABELS, shade
from fl_ppseg.audit.page.terminal import leak_table_plain, leak_table_text
from fl_ppseg.leaks.cells import row
from fl_ppseg.leaks.file import parse_leaks
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import ADVERSARIES
from fl_ppseg.leaks.words import HOLDS, NAMES


def written(folder, given):
    return write_audit(folder, given).read_text(encoding="utf-8")


def shown(given, width=100):
    stream = io.StringIO()
    Console(file=stream, width=width).print(leak_table_text(given))
    return stream.getvalue()


def test_page_is_balanced_whole_and_self_contained(tmp_path):
    text = written(tmp_path, usual())
    assert_self_contained(text)
    assert_ids_resolve(text)
    assert Page(text).tags.count("svg") == len(ADVERSARIES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures", "leaks.json", "report.html"]
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} == {".svg", ".png"}


def test_leaks_json_is_the_table(tmp_path):
    write_audit(tmp_path, usual())
    text = (tmp_path / "leaks.json").read_text(encoding="utf-8")
    assert parse_leaks(text, "leaks.json").to_json() == usual().to_json()


def test_page_names_every_arm_adversary_attack_and_limit(tmp_path):
    words = Page(written(tmp_path, usual())).text
    for adversary in ADVERSARIES:
        assert words.count(NAMES[adversary]) >= 2 + len(usual().arms)
        assert HOLDS[adversary] in words
    for each in usual().arms:
        assert words.count(each.arm) >= 3
        for finding in each.findings:
            assert finding.attack in words
            assert finding.note in words
    for limit in html.LIMITS:
        assert limit in words


def test_numbers_of_the_matrix_are_those_of_the_table(tmp_path):
    text = written(tmp_path, usual())
    matrix = text[text.index('<table class="leaks">') : text.index("</table>")]
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", matrix, re.DOTALL)
    for each, markup in zip(usual().arms, rows, strict=True):
        cells = [Page(cell).text for cell in re.findall(r"<td.*?</td>", markup, re.DOTALL)]
        assert cells[0].startswith(f"{each.ciphertext.ssim:.3f}")
        for cell, words in zip(row(each), cells[3:-1], strict=True):
            if cell.best is None:
                assert words.startswith("– no picture")
                continue
            best = cell.best.scores
            assert words.startswith(f"{best.ssim:.3f} ")
            for number in (f"{best.psnr:.1f} dB", f"corr. {best.correlation:.2f}"):
                assert number in words
            assert f"mIoU {best.miou:.1f} of 48.7" in words
            assert f"excess {best.ssim - ANSWER.ssim:+.3f}" in words
            assert cell.best.attack in words
        assert f"{each.ratio_to_plain:.3f} of plain's mIoU" in Page(markup).text


def test_what_weights_segment_stands_under_the_arm_and_why_not_beside_its_pictures(tmp_path):
    text = written(tmp_path, usual())
    rows = re.findall(r"<tr><th scope=\"row\">.*?</th>", text, re.DOTALL)
    shown = [Page(head.removeprefix("<tr>")).text for head in rows[: len(usual().arms)]]
    told = (
        "mIoU trained 48.7, public start 41.3 of 48.7",
        "–",
        "mIoU trained 39.8, public start 33.3 of 48.7",
    )
    for head, figures in zip(shown, told, strict=True):
        assert head.endswith(f"weights segment directly: {figures}")
    assert "Weights segment directly: the embedding is private." in Page(text).text


def test_both_ends_stand_above_the_matrix(tmp_path):
    text = written(tmp_path / "all", usual())
    ends = text.index('<dl class="facts">')
    assert ends < text.index('<table class="leaks">')
    words = Page(text[ends : text.index("</dl>", ends) + len("</dl>")]).text
    for name, scored in (
        ("nothing", "SSIM 0.166 · mIoU 5.2"),
        ("answer alone", "SSIM 0.231 · mIoU 37.6"),
        ("image itself", "SSIM 1 · mIoU 48.7"),
    ):
        assert f"{name} {scored}" in words
    without = Page(written(tmp_path / "task", table(plain_miou=None))).text
    assert "image itself SSIM 1 " in without


def test_figures_mark_both_ends(tmp_path):
    written(tmp_path, usual())
    for figure in (tmp_path / "figures").glob("frontier_*.svg"):
        drawn = figure.read_text("utf-8")
        assert ">blind guess</text>" in drawn and ">answer alone</text>" in drawn


def test_colours_deepen_with_the_score():
    given = usual()
    shades = [shade(scores(s), given) for s in (-0.5, 0.1, 0.166, 0.3, 0.6, 1.0)]
    assert shades[:3] == [0, 0, 0]
    assert shades == sorted(shades)
    assert shades[-1] == pytest.approx(DEEPEST)
    assert shade(scores(1.0), table()) == pytest.approx(DEEPEST)


@pytest.mark.parametrize("paper", [(255, 255, 255), (20, 23, 26)], ids=["light", "dark"])
def test_text_can_be_read_on_the_deepest_colour(paper):
    """Contrast of WCAG 2, level AA: 4.5 to 1."""
    ink = (28, 32, 36) if paper[0] > 128 else (232, 234, 237)
    colour = [DEEPEST * c + (1 - DEEPEST) * p for c, p in zip((213, 94, 0), paper, strict=True)]
    light, dark = sorted((_luminance(colour), _luminance(ink)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def _luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in np.array(colour) / 255]  # fmt: skip
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_every_attack_is_listed_with_its_time(tmp_path):
    slow = arm("a", found("gradient-matching", "coordinator", scores(0.2), seconds=123.4))
    text = written(tmp_path, table(plain(), slow))
    listed = text[text.index('<details class="attacks">') :]
    assert f"All {3 + 3} that were run" in listed
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", listed, re.DOTALL)
    assert len(rows) == 6
    assert "123" in Page(rows[-1]).text


def test_pictures_are_shown_where_the_target_may_be(tmp_path):
    text = written(tmp_path / "shown", usual())
    # plain: itself, both coordinators; private: four to compare with, five guesses;
    # invariant: the same without the two that coordinators did not get
    assert text.count("data:image/png") == 3 + 9 + 7
    hidden = written(tmp_path / "hidden", usual(targets=False))
    assert "data:image/png" not in hidden
    assert not list((tmp_path / "hidden" / "figures").glob("*.png"))
    assert "neither they nor reconstructions of them are shown" in Page(hidden).text
    assert "The scene with most of its shapes" in Page(hidden).text


def test_an_image_that_nobody_encrypted_is_shown_once(tmp_path):
    text = written(tmp_path, table(plain()))
    street = text[text.index('<div class="scene street">') :]
    figures = [Page(f).text for f in re.findall(r"<figure.*?</figure>", street, re.DOTALL)]
    assert [words.split(" ", 2)[:2] for words in figures] == [
        ["plain", "image"], ["coordinator", "Everything,"], ["active", "coordinator"],
    ]  # fmt: skip
    thieves = "thief of ciphertexts, thief with a known image, thief of a node."
    assert f"hold the image itself, without an attack: {thieves}" in Page(text).text


@pytest.mark.parametrize("targets", [True, False])
def test_of_an_encrypted_arm_every_adversary_is_told_apart(tmp_path, targets):
    text = written(tmp_path, table(private(), targets=targets))
    assert text.count('<figure class="guess">') == len(ADVERSARIES)
    assert "Not encrypted" not in text


def test_the_matrix_has_a_column_an_adversary(tmp_path):
    text = written(tmp_path, usual())
    matrix = text[text.index('<table class="leaks">') : text.index("</table>")]
    heads = re.findall(r'<th scope="col">(.*?)</th>', matrix)
    assert heads[4:] == [*(NAMES[adversary] for adversary in ADVERSARIES), LABELS]
    labels = re.findall(r'data-label="(.*?)"', matrix)  # what a phone shows for the headings
    assert labels == heads[1:] * len(usual().arms)


def test_limits_say_what_of_the_active_coordinator_was_not_tried():
    (active,) = [limit for limit in html.LIMITS if "active coordinator" in limit]
    assert "of one design, sent in a few rounds" in active
    (labels,) = [limit for limit in html.LIMITS if "Label maps were attacked" in limit]
    assert "one design each, in one arm and one client" in labels
    assert "images that share every batch" in labels and "not separated" in labels
    assert "Nodes refuse these weights" in labels and "nearest to these were tried" in labels
    assert not any("Weights made to show an image were not tried" in each for each in html.LIMITS)


def test_limits_say_how_guesses_in_no_order_were_compared():
    (unordered,) = [limit for limit in html.LIMITS if "have no order" in limit]
    assert "compared with the best of them" in unordered
    assert "one view per image" in unordered


def test_hostile_names_are_text(tmp_path):
    hostile = arm(HOSTILE, found(HOSTILE, "coordinator", scores(0.4), note=HOSTILE), note=HOSTILE)
    text = written(tmp_path, table(plain(), hostile))
    assert "script" not in Page(text).tags
    assert "<script" not in text
    assert HOSTILE in Page(text).text


def test_notes_show_no_paths(tmp_path):
    told = arm("a", found("x", "coordinator", scores(0.4), note="see /home/ann/data/x.png"))
    text = written(tmp_path, table(told))
    assert "/home/ann" not in text


@pytest.mark.parametrize(
    "given",
    [
        table(),
        table(plain()),
        table(arm("a", ratio=None)),
        table(invariant(), plain_miou=None),
        table(arm("a", found("x", "coordinator", Scores(0.4, 11.0, 0.2)))),
    ],
    ids=["no arm", "plain only", "no ratio", "no task", "no mIoU"],
)
def test_incomplete_audits_are_told_as_they_are(tmp_path, given):
    text = Page(written(tmp_path, given)).text
    assert "None" not in text
    assert "nan" not in text
    assert "None" not in shown(given) + leak_table_plain(given)
    no_segmenter = "8 images; no mIoU, for the segmenter has other classes"
    assert (no_segmenter in leak_table_plain(given)) == (given.plain_miou is None)


def test_report_is_written_last_and_whole(tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError("full")

    monkeypatch.setattr(html, "panels", fails)
    with pytest.raises(OSError, match="full"):
        write_audit(tmp_path, usual())
    assert not (tmp_path / "report.html").exists()


def test_page_has_the_same_bytes_again(tmp_path):
    assert written(tmp_path / "a", usual()) == written(tmp_path / "b", usual())


def test_terminal_holds_every_number_and_name():
    text = shown(usual())
    assert "0.166 a blind guess" in text
    assert "5.2 on a blind guess, 48.7 on the images themselves" in " ".join(text.split())
    lines = [line.split() for line in text.splitlines() if line.strip()]
    scored = {line[0]: (line[1:], under) for line, under in pairwise(lines)}
    assert "0.231 the answer alone" in text
    assert "37.6 on what the answer alone restores" in " ".join(text.split())
    numbers, compared = scored["plain"]
    assert " ".join(numbers) == "1.000 +0.77 1.000 +0.77 1.000 +0.77 0.991 +0.76 0.995 +0.76"
    assert compared[:3] == ["1.000", "–", "–"]
    segments = [line[1:3] for line in lines if line[0] == "segm."]
    assert segments == [["48.7", "41.3"], ["–", "–"], ["39.8", "33.3"]]
    numbers, compared = scored["per-client-private"]
    assert " ".join(numbers) == "0.871 +0.64 1.000 +0.77 1.000 +0.77 0.153 -0.08 0.962 +0.73"
    assert " ".join(compared[:9]) == "0.050 0.251 0.334 key 83% key 100% key 100%"
    numbers, compared = scored["per-image-invariant"]
    assert " ".join(numbers) == "0.334 +0.10 0.334 +0.10 0.334 +0.10 – key 0% –"
    assert compared[:3] == ["0.050", "0.251", "0.334"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_terminal_fits_and_cuts_nothing(width):
    long = arm("per-image-invariant-spatial", found("position-correlation", "node-thief",
               scores(0.999), key=0.99), found("closed-form+thumbnail", "coordinator",
               scores(0.312)))  # fmt: skip
    made = [arm(f"arm-{word}", found(f"imprint+{word}", "active-coordinator", scores(0.45)))
            for word in ("network", "thumbnail", "positions")]  # fmt: skip
    given = table(plain(), private(), invariant(), long, *made)
    text, unfolded = shown(given, width), leak_table_plain(given)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    attacks = {cell.best.attack for each in given.arms for cell in row(each) if cell.best}
    assert {"imprint+network", "imprint+thumbnail", "imprint+positions"} <= attacks
    assert all(name in unfolded for name in [*attacks, *(a.arm for a in given.arms)])
    assert _words(text) == _words(unfolded)


def _words(text):
    """Words with what joins them; a cut anywhere but after it, or a space, makes other words."""
    return set(re.findall(r"[-+]?[\w.%]+[-+]?", text))


def test_plain_text_is_aligned_and_whole():
    title, *rows, ends = leak_table_plain(usual()).splitlines()
    assert len({len(line) for line in rows}) == 1
    assert "0.166 a blind guess" in title
    assert "48.7 on the images themselves" in ends
    assert "0.231 the answer alone" in title
    assert "0.871 +0.64 key 83% · position-correlation" in rows[2]
