"""leaks.json and summary.json as the audit and the report read them again: what must be refused."""

import json
import os
from pathlib import Path

import must_fail
import pytest

from fl_ppseg.federation.run_summary import SCHEMA, parse_summary, read_summary
from fl_ppseg.leaks.file import MAX_BYTES, parse_leaks, read_leaks
from fl_ppseg.system.errors import InputError

CONTROL = must_fail.FOLDER.parent / "control"


def refused(caught: pytest.ExceptionInfo[InputError], error: str) -> bool:
    told = str(caught.value)
    return told.startswith("a file: ") and error in told and "\n" not in told and len(told) < 400


@must_fail.of("leaks")
def test_leaks_that_must_fail_fail_in_one_line(vector: must_fail.Vector) -> None:
    with pytest.raises(InputError) as caught:
        parse_leaks(vector.content, "a file")
    assert refused(caught, vector.error)


@must_fail.of("summary")
def test_summaries_that_must_fail_fail_in_one_line(vector: must_fail.Vector) -> None:
    with pytest.raises(InputError) as caught:
        parse_summary(vector.content, "a file")
    assert refused(caught, vector.error)


def test_the_controls_are_read() -> None:
    assert read_leaks(CONTROL / "leaks.json").num_targets == 8
    assert read_summary(CONTROL / "summary.json").arms["plain"].mIoU == 48.0


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    whole = (CONTROL / "leaks.json").read_text("utf-8")
    good, link, pipe, huge = (tmp_path / name for name in ("good", "link", "pipe", "huge"))
    good.write_text(whole, "utf-8")
    link.symlink_to(good)
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert read_leaks(good).num_targets == 8
    cases = ((link, "cannot be read"), (pipe, "not a regular file"), (huge, "at most"))
    for path, reason in (*cases, (tmp_path, "cannot be"), (tmp_path / "none", "cannot be")):
        for read in (read_leaks, read_summary):
            if path is huge and read is read_summary:
                continue
            with pytest.raises(InputError, match=reason):
                read(path)


def test_ratios_are_those_that_are_known() -> None:
    arms = {"a": {"ratio_to_plain": 0.5, "new": 1}, "b": {"error": "x"}, "c": {}}
    text = json.dumps({"schema": SCHEMA, "arms": arms})
    assert parse_summary(text, "summary.json").ratios == {"a": 0.5}
