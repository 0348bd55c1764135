"""identity.json, its page and its words: what is written is read again, and nothing else."""

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from fl_ppseg.audit.identity.effort import IdentityEffort
from fl_ppseg.audit.identity.page import print_identity, sentences, write_identity
from fl_ppseg.audit.identity.procedure import identify
from fl_ppseg.leaks.identity import (
    Count,
    IdentityTable,
    parse_identity,
    plates_sentence,
    read_identity,
)
from fl_ppseg.progress.steps import steps
from fl_ppseg.system.errors import InputError

TINY = IdentityEffort(
    num_plates=3, num_faces=2, num_public=8, network_steps=1, reader_steps=1, num_scenes=1
)


@pytest.fixture(scope="module")
def table() -> IdentityTable:
    with steps(sys.stderr, quiet=True) as progress:
        return identify([(64, 128)], [8], ["magnitudes"], TINY, 0, progress)


def test_what_was_counted(table: IdentityTable) -> None:
    (frame,) = table.frames
    assert [reading.seen for reading in frame.readings] == [
        "plain",
        "one mean a block",
        "magnitudes",
    ]
    plain = frame.plain
    assert (plain.characters.of, plain.plates.of, plain.faces.of) == (18, 3, 2)
    assert plain.plate_ssim == plain.face_ssim == 1 > frame.readings[1].plate_ssim
    assert table.budget == "other" and table.effort["num_plates"] == 3
    assert table.thumbnails[0].ssim < 1


def test_the_file_is_read_again(table: IdentityTable, tmp_path: Path) -> None:
    page = write_identity(tmp_path, table)
    assert read_identity(tmp_path / "identity.json") == table
    shown = page.read_text("utf-8")
    assert "other numbers than the full one" in shown and "Of 3 plates" in shown


def test_a_quick_audit_says_so_in_file_page_and_terminal(
    table: IdentityTable, tmp_path: Path
) -> None:
    quick = table.model_copy(update={"budget": "quick"})
    page = write_identity(tmp_path, quick).read_text("utf-8")
    assert json.loads((tmp_path / "identity.json").read_text("utf-8"))["budget"] == "quick"
    console = Console(record=True, width=200)
    print_identity(console, quick)
    for shown in (page, console.export_text(), sentences(quick)[0]):
        assert "Quick audit: the attacks were weaker than they can be" in shown
    full = table.model_copy(update={"budget": "full"})
    assert "uick audit" not in write_identity(tmp_path, full).read_text("utf-8")


def test_one_sentence_tells_how_many(table: IdentityTable) -> None:
    frame = table.frames[0].model_copy(
        update={
            "readings": tuple(
                each.model_copy(update={"plates": Count(right=right, of=400)})
                for each, right in zip(table.frames[0].readings, (380, 0, 12), strict=True)
            )
        }
    )
    told = plates_sentence(frame, frame.readings[2])
    assert told == "Of 400 plates, 12 could be read (plain: 380, chance: 0)."


def test_wilsons_interval_as_worked_out_by_hand() -> None:
    low, high = Count(right=0, of=400).interval
    z2 = 1.959963984540054**2
    assert low == 0 and high == pytest.approx(z2 / (400 + z2))
    assert Count(right=5, of=10).interval == pytest.approx((0.2366, 0.7634), abs=1e-4)
    with pytest.raises(ValidationError, match="3 right of 2"):
        Count(right=3, of=2)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"schema": 2}, "Input should be 1"),
        ({"budget": "best"}, "'full', 'quick' or 'other'"),
        ({"extra": 1}, "Extra inputs"),
        ({"seconds": -1}, "greater than or equal to 0"),
        ({"made": {"a": "b" * 5000}}, "at most 4000"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    table: IdentityTable, change: dict[str, object], error: str
) -> None:
    content = json.dumps(json.loads(table.to_json()) | change)
    with pytest.raises(InputError, match=error) as caught:
        parse_identity(content, "a file")
    assert "\n" not in str(caught.value)


def test_readings_begin_with_plain_and_differ(table: IdentityTable) -> None:
    values = json.loads(table.to_json())
    readings = values["frames"][0]["readings"]
    for wrong, error in ((readings[1:], "expected plain"), ([*readings, readings[0]], "twice")):
        values["frames"][0]["readings"] = wrong
        with pytest.raises(InputError, match=error):
            parse_identity(json.dumps(values), "a file")
