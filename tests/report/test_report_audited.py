"""A run's report tells of its audit: budget, figures, link; and where there was none it says so."""

from dataclasses import replace

import pytest
from html_page import HOSTILE, Page, assert_self_contained
from made_leaks import arm, found, invariant, labels, plain, private, scores, table
from test_report import CLASSES, CONFIG, summary
from test_report import arm as scored

from fl_ppseg.audit.page.html import write_audit
from fl_ppseg.report.audited import Audited, audit_of
from fl_ppseg.report.findings import headline
from fl_ppseg.report.glance import glance_sheet
from fl_ppseg.report.html import tell_of_audit, write_report

SUMMARY = summary(
    plain=scored(30.0, 30.0),
    per_client_private=scored(31.0, 30.0),
    per_image_invariant=scored(25.0, 30.0),
)


def audit(budget="full"):
    arms = (plain(), private(), replace(invariant(), labels=(labels(),)))
    return replace(table(*arms), budget=budget, made={"commit": "0123abc", "seeds": "0"})


def report(run, summary=SUMMARY):
    return write_report(run, summary, [], CONFIG, [], CLASSES)


def words_of(path):
    text = path.read_text(encoding="utf-8")
    assert_self_contained(text)
    return Page(text).text


def test_a_report_without_an_audit_says_so_in_its_headline(tmp_path):
    words = words_of(report(tmp_path))
    assert "No attack was run for this report" in words
    assert "no attack was run, so what else it gives away is not known" in words
    assert words.count("no attack was run") == 2  # of the headline, and beside the arm


@pytest.mark.parametrize("budget", ["full", "quick"])
def test_the_report_of_an_audited_run_tells_of_it_whichever_came_first(tmp_path, budget):
    write_audit(tmp_path / "late" / "audit", audit(budget))
    late = report(tmp_path / "late")
    early = report(tmp_path / "early")
    write_audit(tmp_path / "early" / "audit", audit(budget))
    told = Audited(audit(budget), "audit/report.html")
    assert tell_of_audit(early, SUMMARY, [], CONFIG, told)
    assert early.read_text("utf-8") == late.read_text("utf-8")
    words = words_of(early)
    assert "No attack was run" not in words and "no attack was run" not in words
    assert 'href="./audit/report.html"' in early.read_text("utf-8")
    assert "1 of 2 encrypted arms gave the image or almost all of it away" in words
    assert ("quick audit, weaker attacks" in words) == (budget == "quick")
    assert "0123abc" in words
    assert "73.2 % of the labelled pixels" in words
    assert "45.8 % right without any request" in words
    assert "0.166 for a blind guess" in words and "The answer alone has 0.231" in words
    assert tell_of_audit(early, SUMMARY, [], CONFIG, told)  # once more: the same
    assert early.read_text("utf-8") == late.read_text("utf-8")


def test_a_headline_has_what_attacks_got_and_no_broken_arm_wins():
    told = headline(SUMMARY, CONFIG, Audited(audit()))
    assert told.reaches.startswith("per-image-invariant keeps")
    assert "attacks got a thumbnail at most (SSIM\u00a00.33, excess +0.10, a " in told.protects
    assert "full audit" in told.protects
    sheet = glance_sheet(SUMMARY, CONFIG, Audited(audit("quick")))
    (broken,) = [cells[-1] for cells in sheet.cells if cells[0] == "per-client-private"]
    assert "ciphertexts are broken" in broken
    assert "attacks got the image itself at most (SSIM\u00a01.00, " in broken
    assert "quick audit, weaker attacks" in broken


def test_an_arm_that_attacks_broke_is_no_winner_whatever_its_settings():
    fallen = arm("per-image-invariant", found("x", "ciphertext-thief", scores(0.97, 0.99)))
    given = summary(
        plain=scored(30.0, 30.0),
        per_image_invariant=scored(29.0, 30.0),
        per_image_per_block=scored(15.0, 30.0),
    )
    held = arm("per-image-per-block")
    assert "per-image-invariant keeps 96" in headline(given, CONFIG).reaches
    text = headline(given, CONFIG, Audited(table(plain(), fallen, held))).reaches
    assert "per-image-per-block keeps 50" in text and "96" not in text


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"schema": 2}'])
def test_an_audit_that_cannot_be_read_is_said_and_believed_nothing_of(tmp_path, content):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "leaks.json").write_text(content, "utf-8")
    assert isinstance(audit_of(tmp_path), str)
    words = words_of(report(tmp_path))
    assert "An audit lies beside this report and cannot be read" in words
    assert str(tmp_path) not in words


def test_a_page_of_another_version_stays_as_it_is(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<html><title>old</title></html>", "utf-8")
    assert not tell_of_audit(page, SUMMARY, [], CONFIG, Audited(audit()))
    assert page.read_text("utf-8") == "<html><title>old</title></html>"
    assert not tell_of_audit(tmp_path / "none.html", SUMMARY, [], CONFIG, Audited(audit()))


def test_hostile_words_of_an_audit_are_text(tmp_path):
    mark = "<!--/told--><!--/headline--></ul></h1></title>"
    hostile = arm(
        "per-image-invariant", found(HOSTILE, "coordinator", scores(0.4)), note=HOSTILE + mark
    )
    bad = replace(hostile, labels=(labels(None, note=HOSTILE + mark),))
    given = replace(table(plain(), bad), key_search=HOSTILE + mark, made={HOSTILE: mark})
    path = report(tmp_path)
    for _ in range(2):
        assert tell_of_audit(path, SUMMARY, [], CONFIG, Audited(given, '"><script>'))
    text = path.read_text("utf-8")
    assert "<script" not in text
    assert text.count("<!--/told-->") == text.count("<!--/headline-->") == 1
    assert HOSTILE in Page(text).text


def test_the_run_and_its_audit_link_each_other(tmp_path):
    page = write_audit(tmp_path / "audit", audit())
    assert "report.html" not in page.read_text("utf-8"), "there is no run to link"
    run = report(tmp_path)
    page = write_audit(tmp_path / "audit", audit())
    assert 'href="../report.html"' in page.read_text("utf-8")
    assert 'href="./audit/report.html"' in run.read_text("utf-8")
    elsewhere = write_audit(tmp_path / "elsewhere", audit())
    assert "report.html" not in elsewhere.read_text("utf-8")
