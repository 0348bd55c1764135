"""Events through a file: what is played is what was told, whole lines only, and no run fails."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.progress.events import (
    ArmFinished,
    ArmResumed,
    ArmStarted,
    Event,
    Notice,
    Replied,
    RoundFinished,
    RoundScores,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from fl_ppseg.progress.observer import Observer, TrackingObserver
from fl_ppseg.progress.recorded import MAX_EVENT_BYTES, RecordedObserver, replay

EVENTS: list[Event] = [
    RunStarted(("plain", "per-image"), (0, 3), 5, 2, 1),
    ArmResumed("plain", 0, 1, (RoundFinished("plain", 0, 1, 0.25, RoundScores(80.0, 40.0, 50.0)),)),
    ArmStarted("plain", 3),
    RoundStarted("plain", 3, 4),
    Replied("plain", 3, 4, "aachen", "train", 1, 2, 0.25),
    RoundFinished("plain", 3, 4, 0.5, None),
    Notice('bochum: "no answer"\nin time, größer'),
    ArmFinished("plain", 3),
    RunFinished(),
]


class Notebook(Observer):
    """Notes every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def played(path: Path, start: int = 0) -> tuple[list[Event], int]:
    notebook = Notebook()
    end = replay(path, notebook, start)
    return notebook.events, end


def record(path: Path, events: Iterable[Event]) -> None:
    recorder = RecordedObserver(path)
    for event in events:
        recorder.on_event(event)


def test_every_kind_of_event_is_recorded_and_played(tmp_path: Path) -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    record(tmp_path / "progress.jsonl", EVENTS)
    assert played(tmp_path / "progress.jsonl")[0] == EVENTS


def test_what_is_not_finite_comes_back_as_nothing(tmp_path: Path) -> None:
    scores = RoundScores(90.5, 41.25, 50.0)
    record(tmp_path / "progress.jsonl", [RoundFinished("plain", 0, 1, math.nan, scores)])
    (event,), _ = played(tmp_path / "progress.jsonl")
    assert event == RoundFinished("plain", 0, 1, None, scores)  # JSON has no NaN


@given(cut=st.integers(min_value=0))
def test_a_follower_sees_each_event_once_wherever_it_reads(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "progress.jsonl"
    record(path, EVENTS)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    first, offset = played(path)
    path.write_bytes(whole)
    second, end = played(path, offset)
    assert first + second == EVENTS
    assert end == len(whole)


def test_a_view_that_follows_counts_as_one_that_is_told(tmp_path: Path) -> None:
    told, shown = TrackingObserver(lambda: 7.0), TrackingObserver(lambda: 7.0)
    record(tmp_path / "progress.jsonl", EVENTS)
    for event in EVENTS:
        told.on_event(event)
    replay(tmp_path / "progress.jsonl", shown)
    assert shown.progress == told.progress


def test_a_file_that_cannot_be_written_fails_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path / "absent" / "progress.jsonl", [RoundStarted("plain", 0, 1)])
    assert "event round_started not written" in caplog.text


def test_nothing_is_played_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert played(tmp_path / "progress.jsonl") == ([], 0)


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "7",
        "[]",
        "[" * 5_000,
        "{}",
        '{"event":"unheard of"}',
        '{"event":"notice"}',
        '{"event":"notice","text":7}',
        r'{"event":"notice","text":"\ud800"}',
        '{"event":"round_started","arm":"plain","seed":"0","round":1}',
        '{"event":"round_started","arm":"plain","seed":0,"round":1.5}',
        '{"event":"notice","text":"' + MAX_EVENT_BYTES * "a" + '"}',
    ],
)
def test_lines_of_another_form_are_skipped_with_one_line(
    line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text(line + '\n{"event":"notice","text":"good"}\n', "utf-8")
    assert played(path) == ([Notice("good")], path.stat().st_size)
    (record,) = caplog.records
    assert "an invalid event is skipped (" in record.getMessage()
    assert "\n" not in record.getMessage() and len(record.getMessage()) < 300
