"""Spans: nested ones never count twice, and all threads and processes are read."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from fl_ppseg.system import spans
from fl_ppseg.system.spans import Span, Spans, begin_of_process, recorded_spans, span, within

NAP = 0.02


def seconds(found: list[Span]) -> Counter[str]:
    sums = Counter[str]()
    for part, begin, end in found:
        sums[part] += (end - begin) / 1e9  # type: ignore[assignment]
    return sums


def test_nothing_is_noted_and_no_clock_is_read_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic_ns", pytest.fail)
    items = iter([1, 2])
    with span("data") as nothing:
        assert nothing is None
    assert span("data") is span("compute")  # one object for all: nothing is made
    assert within("data", items) is items


def test_an_inner_span_interrupts_the_outer_one() -> None:
    with recorded_spans() as read:
        with span("wire"):
            time.sleep(NAP)
            with span("compute"):
                time.sleep(3 * NAP)
                for _ in within("data", (time.sleep(NAP) for _ in range(2))):
                    time.sleep(NAP)
        found = read.new()
        assert read.new() == []
    assert [part for part, _, _ in found][:2] == ["wire", "compute"]
    assert all(one.end == other.begin for one, other in pairwise(found))  # no gap, no twice
    taken = seconds(found)
    assert NAP <= taken["wire"] < 2 * NAP
    assert 2 * NAP <= taken["data"] < 3.5 * NAP
    assert 5 * NAP <= taken["compute"] < 7 * NAP


def test_a_span_ends_with_an_error_too() -> None:
    with recorded_spans() as read:
        with pytest.raises(KeyError), span("data"), span("encryption"):
            raise KeyError
        with span("wire"):
            pass
        assert [part for part, _, _ in read.new()] == ["data", "encryption", "data", "wire"]


def test_threads_and_processes_are_told_apart() -> None:
    code = "from fl_ppseg.system.spans import span\nwith span('encryption'): pass"
    with recorded_spans() as read:
        with span("wire"):
            thread = threading.Thread(target=lambda: span("data").__enter__())
            thread.start()
            thread.join()
            subprocess.run([sys.executable, "-c", code], check=True)
            assert [part for part, _, _ in read.new()] == ["encryption"]  # the others are open
        assert [part for part, _, _ in read.new()] == ["wire"]
    assert spans.FOLDER not in os.environ


def test_a_half_written_line_waits_for_its_rest(tmp_path: Path) -> None:
    file, read = tmp_path / "1-1", Spans(tmp_path)
    file.write_text("data 1 2\nwire 3")
    assert read.new() == [Span("data", 1, 2)]
    with file.open("a") as more:
        more.write("00 400\n")
    assert read.new() == [Span("wire", 300, 400)]


def test_a_worker_that_outlives_the_command_goes_on() -> None:
    with recorded_spans():
        late = span("data")
        late.__enter__()
    late.__exit__(None, None, None)


def test_what_is_noted_is_this_users_alone() -> None:
    with recorded_spans(), span("data"):
        folder = Path(os.environ[spans.FOLDER])
        with span("wire"):
            pass
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_the_process_began_a_while_ago() -> None:
    began = time.monotonic_ns()
    code = (
        "import time; from fl_ppseg.system.spans import begin_of_process; "
        "time.sleep(0.3); print(begin_of_process())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert -0.02e9 < int(told.stdout) - began < 1e9 * 2
    assert begin_of_process() < began
