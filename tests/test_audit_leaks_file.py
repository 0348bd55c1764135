"""leaks.json and summary.json as the audit and the report read them again: what must be refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_ppseg.audit.leaks_file import MAX_BYTES, parse_leaks, read_leaks
from fl_ppseg.audit.run_summary import parse_summary, ratios_in, read_summary
from fl_ppseg.errors import InputError

VECTORS = Path(__file__).parent / "vectors" / "must_fail"
PARSERS: dict[str, Callable[[bytes, str], Any]] = {"leaks": parse_leaks, "summary": parse_summary}


def vectors() -> list[Any]:
    found = []
    for parser in PARSERS:
        for entry in json.loads((VECTORS / f"{parser}.json").read_text("utf-8")):
            found.append(pytest.param(parser, entry, id=f"{parser}: {entry['name']}"))
    return found


@pytest.mark.parametrize(("parser", "entry"), vectors())
def test_what_must_fail_fails_in_one_line_and_the_control_does_not(
    parser: str, entry: dict[str, str]
) -> None:
    content = bytes.fromhex(entry["hex"]) if "hex" in entry else entry["content"].encode()
    if entry["error"] is None:
        assert PARSERS[parser](content, "a file")
        return
    with pytest.raises(InputError) as caught:
        PARSERS[parser](content, "a file")
    told = str(caught.value)
    assert told.startswith("a file: ") and entry["error"] in told
    assert "\n" not in told and len(told) < 400


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    whole = json.loads((VECTORS / "leaks.json").read_text("utf-8"))[0]["content"]
    good, link, pipe, huge = (tmp_path / name for name in ("good", "link", "pipe", "huge"))
    good.write_text(whole, "utf-8")
    link.symlink_to(good)
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert read_leaks(good).num_targets == 8
    cases = ((link, "cannot be read"), (pipe, "expected a file"), (huge, "larger than"))
    for path, reason in (*cases, (tmp_path, "expected a file"), (tmp_path / "none", "cannot be")):
        for read in (read_leaks, read_summary):
            if path is huge and read is read_summary:
                continue
            with pytest.raises(InputError, match=reason):
                read(path)


def test_ratios_are_those_that_are_known() -> None:
    text = '{"arms": {"a": {"ratio_to_plain": 0.5, "new": 1}, "b": {"error": "x"}, "c": {}}}'
    assert ratios_in(parse_summary(text, "summary.json")) == {"a": 0.5}
