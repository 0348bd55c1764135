"""Events through a file: what is played is what was told, whole lines only, and no run fails."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.learning.evaluation import Scores
from fl_ppseg.progress.observer import RunObserver, SilentObserver, TrackingObserver
from fl_ppseg.progress.recorded import RecordedObserver, replay

EVENTS: dict[str, tuple[Any, ...]] = {
    "run_started": (["plain", "per-image"], [0, 3], 5, 2, 1),
    "arm_resumed": ("plain", 0, 2, [0.5, 0.25], [40.0]),
    "arm_started": ("plain", 3),
    "round_started": (4,),
    "replied": ("aachen", "train", 1, 2, 0.25),
    "round_finished": (4, 0.5, None),
    "message": ('bochum: "no answer"\nin time, größer',),
    "arm_finished": ("plain", 3),
    "run_finished": (),
}


class Notebook:
    """Notes every call that the protocol allows."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.calls.append((name, values))


def played(path: Path, start: int = 0) -> tuple[list[tuple[str, tuple[Any, ...]]], int]:
    notebook = Notebook()
    end = replay(path, notebook, start)  # type: ignore[arg-type]
    return notebook.calls, end


def test_every_event_of_the_protocol_is_recorded_and_played(tmp_path: Path) -> None:
    known = {name for name in vars(RunObserver) if not name.startswith("_")}
    assert known == set(EVENTS)
    recorder = RecordedObserver(tmp_path / "progress.jsonl")
    for name, values in EVENTS.items():
        getattr(recorder, name)(*values)
    calls, _ = played(recorder.path)
    assert calls == list(EVENTS.items())


def test_scores_come_back_with_their_names(tmp_path: Path) -> None:
    recorder = RecordedObserver(tmp_path / "progress.jsonl")
    recorder.round_finished(1, math.nan, Scores(90.5, 41.25, 50.0, (None, 1.0)))
    ((_, (_, loss, scores)),), _ = played(recorder.path)
    assert loss is None  # JSON has no NaN
    assert (scores.aAcc, scores.mIoU, scores.mAcc) == (90.5, 41.25, 50.0)


@given(cut=st.integers(min_value=0))
def test_a_follower_sees_each_event_once_wherever_it_reads(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "progress.jsonl"
    recorder = RecordedObserver(path)
    for name, values in EVENTS.items():
        getattr(recorder, name)(*values)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    first, offset = played(path)
    path.write_bytes(whole)
    second, end = played(path, offset)
    assert first + second == list(EVENTS.items())
    assert end == len(whole)


def test_nothing_is_played_of_a_file_that_is_not_there_or_of_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    assert played(path) == ([], 0)
    path.write_text(
        '{"a": 1}\n["unheard of"]\n["round_started"]\n7\nno json\n["round_started", 2]\n'
    )

    class Strict(SilentObserver):
        rounds: list[int] = []  # noqa: RUF012

        def round_started(self, round: int) -> None:
            self.rounds.append(round)

    assert replay(path, Strict()) == path.stat().st_size
    assert Strict.rounds == [2]


def test_a_view_that_follows_counts_as_one_that_is_told(tmp_path: Path) -> None:
    recorder, told, shown = (
        RecordedObserver(tmp_path / "progress.jsonl"),
        TrackingObserver(lambda: 7.0),
        TrackingObserver(lambda: 7.0),
    )
    for name, values in EVENTS.items():
        getattr(recorder, name)(*values)
        getattr(told, name)(*values)
    replay(recorder.path, shown)
    assert shown.progress == told.progress


def test_a_file_that_cannot_be_written_fails_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RecordedObserver(tmp_path / "absent" / "progress.jsonl").round_started(1)
    assert "event round_started not written" in caplog.text


def test_events_of_another_form_are_left_out_whatever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    lines = ["[" * 5_000, '{"a": 1}', "[]", '["__init__"]', '["message"]', '["arm_started", 1, []]']
    path.write_text("\n".join([*lines, '["message", "good"]\n']))
    observer = TrackingObserver()
    replay(path, observer)
    assert played(path)[0][-1] == ("message", ("good",))
