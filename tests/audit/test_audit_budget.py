"""A quick audit looks like one in every output, and numbers stand beside what was spent on them."""

import io
import json
import re
from dataclasses import asdict, replace

from html_page import Page
from made_leaks import labels, table, usual
from rich.console import Console

from fl_ppseg.audit.labels import WITHIN
from fl_ppseg.audit.page.html import write_audit
from fl_ppseg.audit.page.terminal import leak_table_plain, leak_table_text
from fl_ppseg.audit.procedure import Effort
from fl_ppseg.leaks.findings import findings, headline
from fl_ppseg.leaks.table import UNCHECKED
from fl_ppseg.leaks.words import SPENT
from fl_ppseg.report.audited import Audited

QUICK = SPENT["quick"]


def given(effort):
    made = {"config": "default, SHA-256 00", "seeds": "0", "rounds": "10", "commit": "0123abc"}
    return replace(usual(), budget=effort.budget, effort=asdict(effort), made=made)


def shown(leaks):
    stream = io.StringIO()
    Console(file=stream, width=100).print(leak_table_text(leaks))
    return " ".join(stream.getvalue().split())


def test_what_a_budget_is_called_is_decided_by_its_numbers():
    assert (Effort().budget, Effort.quick().budget) == ("full", "quick")
    assert Effort(num_targets=3).budget == "full"
    assert replace(Effort.quick(), num_targets=16).budget == "quick"
    for name in ("num_public", "num_heard", "num_rounds", "network_steps", "num_requests"):
        assert replace(Effort(), **{name: 1}).budget == "other"
        assert getattr(Effort.quick(), name) < getattr(Effort(), name)


def test_a_quick_audit_is_told_from_a_full_one_in_every_output(tmp_path):
    quick, full = given(Effort.quick()), given(Effort())
    for text in (shown(quick), leak_table_plain(quick)):
        assert QUICK.upper() in text and "40 steps" in text and "0123abc" in text
    for text in (shown(full), leak_table_plain(full)):
        assert "quick" not in text.lower() and "full audit" in text and "600 steps" in text
    assert headline(quick).startswith("Quick budget: ")
    assert "quick" not in headline(full).lower()
    assert "weaker than they can be" in findings(quick)[0]
    page = write_audit(tmp_path / "quick", quick)
    words = Page(page.read_text("utf-8")).text
    assert words.count(QUICK) >= 3
    assert "100 public images" in words and "40 steps" in words
    whole = Page(write_audit(tmp_path / "full", full).read_text("utf-8")).text
    assert "quick" not in whole.lower()
    for name, leaks in (("quick", quick), ("full", full)):
        told = json.loads((tmp_path / name / "leaks.json").read_text("utf-8"))
        assert told["budget"] == name
        assert told["effort"] == asdict(Effort.quick() if name == "quick" else Effort())
        assert all(f["budget"] for each in told["arms"] for f in each["findings"])
        figures = sorted((tmp_path / name / "figures").glob("frontier_*.svg"))
        assert figures and all(leaks.budget in figure.read_text("utf-8") for figure in figures)
        pictures = [path.name for path in (tmp_path / name / "figures").glob("*.png")]
        assert pictures and all(("quick" in each) == (name == "quick") for each in pictures)


def test_the_report_of_the_run_and_the_model_card_say_whose_figures_they_are():
    quick, full = given(Effort.quick()), given(Effort())
    for arm in quick.arms:
        told = Audited(quick).most(arm.arm)
        assert told is not None and QUICK in told and "full" not in told
        told = Audited(full).most(arm.arm)
        assert told is not None and "full audit" in told and "quick" not in told
    for leaks, name in ((quick, "quick"), (full, "full")):
        audited = Audited(leaks)
        facts = " ".join(value for _, value in audited.facts)
        assert SPENT[name] in facts and f"network steps {leaks.effort['network_steps']}" in facts
        assert ("uick" in audited.headline) == (name == "quick")
        assert any("Quick audit" in each for each in audited.findings) == (name == "quick")


def test_no_output_calls_the_network_a_floor_or_says_that_nothing_can_hide_less(tmp_path):
    leaks = given(Effort())
    outputs = [write_audit(tmp_path, leaks).read_text("utf-8"), leaks.to_json(), shown(leaks)]
    outputs += [figure.read_text("utf-8") for figure in (tmp_path / "figures").glob("*.svg")]
    for text in outputs:
        assert not re.search(r"\bfloor\b|hide less", text)
    assert "400 public images" in outputs[0] and "600 steps" in outputs[0]


def test_what_was_read_of_label_maps_stands_beside_what_needs_no_request(tmp_path):
    refused = labels(None, model="a model of its own", note="refused: another [/] model")
    one, *others = usual().arms
    leaks = replace(table(), arms=(replace(one, labels=(refused, labels())), *others))
    told = " ".join(findings(leaks))
    assert "a model of its own reads nothing of held-out" in told
    assert re.search(r"73\.2\u00a0% .* 2 held-out .* 12\.2", told)
    assert re.search(r"13 evaluations .*1 of 1 arms.* 45\.8\u00a0% right without", told)
    text = write_audit(tmp_path, leaks).read_text("utf-8")
    matrix = text[text.index('<table class="leaks">') : text.index("</table>")] + "</table>"
    words = Page(matrix).text
    assert "73.2 % of held-out pixels right; without a request 45.8 %" in words
    assert words.count("not attacked") >= len(others)
    assert "of training pixels right" not in words
    assert "another [/] model" in shown(leaks)


def test_training_label_maps_stand_beside_held_out_ones(tmp_path):
    one, *others = usual().arms
    trained = labels(0.868, maps="training", note="")
    refused = labels(None, maps="training", model="a model of its own", note="refused: another")
    leaks = replace(table(), arms=(replace(one, labels=(labels(), refused, trained)), *others))
    told = " ".join(findings(leaks))
    assert "a model of its own reads nothing of training" in told
    assert re.search(r"86\.8\u00a0% .* 2 training ", told)
    assert "by 13 updates of an arm" in told and "by 13 evaluations of an arm" in told
    text = write_audit(tmp_path, leaks).read_text("utf-8")
    matrix = text[text.index('<table class="leaks">') : text.index("</table>")] + "</table>"
    words = Page(matrix).text
    assert "73.2 % of held-out pixels right" in words
    assert "86.8 % of training pixels right" in words
    assert "label-update, the model as agreed" in words
    assert "training" in [found["maps"] for found in _written(tmp_path)]


def test_what_a_node_without_a_trust_region_tells_is_not_in_the_matrix(tmp_path):
    one, *others = usual().arms
    refused = labels(None, note="refused: weights in norms.0.weight lie 3 from the start")
    control = labels(0.81, model=UNCHECKED, note="")
    moved = labels(0.37, model=WITHIN, note="")
    leaks = replace(table(), arms=(replace(one, labels=(refused, moved, control)), *others))
    assert "the model as agreed reads nothing" in " ".join(findings(leaks))
    text = write_audit(tmp_path, leaks).read_text("utf-8")
    matrix = text[text.index('<table class="leaks">') : text.index("</table>")] + "</table>"
    words = Page(matrix).text
    assert "37.0 % of held-out pixels right" in words and "81.0 %" not in words
    assert "81.0" in Page(text).text and "lie 3 from the start" in Page(text).text


def _written(place):
    return json.loads((place / "leaks.json").read_text("utf-8"))["arms"][0]["labels"]
