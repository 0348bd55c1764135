"""The live view fits its terminal, times are those measured, nothing that matters is lost."""

import io
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fl_ppseg.progress.events import (
    ArmFinished,
    ArmResumed,
    ArmStarted,
    Notice,
    Replied,
    RoundFinished,
    RoundScores,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from fl_ppseg.progress.live import LiveView, choose_view, picture
from fl_ppseg.progress.observer import LogObserver, SilentObserver
from fl_ppseg.progress.state import RunProgress, sparkline
from fl_ppseg.progress.steps import steps

SCORES = RoundScores(aAcc=81.26, mIoU=33.33, mAcc=44.44)
ARMS = ("plain", "per-client", "per-image")
CLIENTS = tuple(f"client{i:02}" for i in range(18))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def play(observer, clock, num_rounds=4, seconds=(10.0, 2.0), stop_after=None):
    """Runs all arms: the first round takes seconds[0], each later one seconds[1]."""
    tell = observer.on_event
    tell(RunStarted(ARMS, (0,), num_rounds, 18, 3))
    for arm in ARMS:
        tell(ArmStarted(arm, 0))
        for number in range(1, num_rounds + 1):
            tell(RoundStarted(arm, 0, number))
            for i, client in enumerate(CLIENTS):
                tell(Replied(arm, 0, number, client, "train", i + 1, 18, 1.0))
            clock.now += seconds[number > 1]
            tell(Replied(arm, 0, number, CLIENTS[0], "evaluate", 1, 21, None))
            tell(RoundFinished(arm, 0, number, 3.0 / number, SCORES))
            if (arm, number) == stop_after:
                return
        tell(ArmFinished(arm, 0))
    tell(RunFinished())


def drawn(progress, clock, width, height, **options):
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, color_system=None)
    console.print(picture(progress, clock.now, width, height, **options))
    return stream.getvalue()


@pytest.mark.parametrize("stop_after", [None, ("plain", 1), ("per-client", 3)])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (48, 20), (30, 16)])
def test_picture_fits_the_terminal(width, height, stop_after):
    clock = Clock()
    view = LiveView(Console(file=io.StringIO(), width=width), clock)
    play(view, clock, stop_after=stop_after)
    lines = drawn(view.progress, clock, width, height).splitlines()
    assert max(map(len, lines)) == width
    assert len(lines) < height


def test_many_arms_are_cropped_around_the_one_under_way():
    arms = tuple(f"arm{i:02}" for i in range(40))
    progress = RunProgress(arms, (0,), 4, 18, 3, started_at=100.0)
    progress.note(ArmStarted("arm23", 0), 100.0)
    shown = drawn(progress, Clock(), 80, 24)
    assert len(shown.splitlines()) < 24
    assert shown.count("arm23") == 2  # headline and row


def test_picture_shows_what_happened():
    clock = Clock()
    view = LiveView(Console(file=io.StringIO()), clock)
    play(view, clock, stop_after=("per-client", 3))
    shown = drawn(view.progress, clock, 100, 24)
    for text in ("arm 2 of 3", "3/4", "1/21", "1.00", "33.3", "done", "waiting", "client00"):
        assert text in shown


def test_ascii_terminals_get_ascii_trends():
    clock = Clock()
    view = LiveView(Console(file=io.StringIO()), clock)
    play(view, clock)
    assert not set("▁▂▃▄▅▆▇█") & set(drawn(view.progress, clock, 80, 24, ascii_only=True))


def test_time_left_counts_first_rounds_apart():
    clock = Clock()
    observer = LogObserver(io.StringIO(), clock)
    play(observer, clock, num_rounds=4, seconds=(10.0, 2.0), stop_after=("plain", 2))
    # two rounds of this arm at 2 s; two more arms at 10 + 3 * 2 s
    assert observer.progress.seconds_left(clock.now) == pytest.approx((4.0, 36.0))
    clock.now += 1.5  # into the third round
    assert observer.progress.seconds_left(clock.now) == pytest.approx((2.5, 34.5))


def test_no_time_is_guessed_before_a_round_was_measured():
    progress = RunProgress(ARMS, (0,), 4, 18, 3, started_at=0.0)
    progress.note(ArmStarted("plain", 0), 0.0)
    assert progress.seconds_left(5.0) is None


@settings(max_examples=30)
@given(
    num_rounds=st.integers(1, 6),
    first=st.floats(0.1, 50),
    later=st.floats(0.1, 50),
)
def test_steady_rounds_are_foretold_exactly(num_rounds, first, later):
    clock = Clock()
    observer = LogObserver(io.StringIO(), clock)
    play(observer, clock, num_rounds, (first, later), stop_after=("per-client", 1))
    arm, whole = observer.progress.seconds_left(clock.now)
    if num_rounds > 1:
        assert arm == pytest.approx((num_rounds - 1) * later)
    assert whole == pytest.approx(first + 2 * (num_rounds - 1) * later)


def test_log_has_a_line_a_round_and_no_control_codes():
    clock, stream = Clock(), io.StringIO()
    play(LogObserver(stream, clock), clock)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(ARMS) * 4 + 1
    assert "plain round 2/4  loss 1.500  mIoU 33.3 aAcc 81.3 mAcc 44.4  2.0 s" in lines[1]
    assert lines[-1] == "done in 0:48"
    assert "\x1b" not in stream.getvalue()


def test_messages_survive_in_every_observer(caplog):
    text = "ulm: reply rejected [red]NaN[/red]"
    log, terminal = io.StringIO(), Terminal()
    LogObserver(log).on_event(Notice(text))
    with LiveView(Console(file=terminal, force_terminal=True, width=80)) as view:
        view.on_event(Notice(text))
    with caplog.at_level(logging.WARNING):
        SilentObserver().on_event(Notice(text))
    assert text in log.getvalue()
    assert text in terminal.getvalue()
    assert text in caplog.text


def test_interrupt_gives_the_cursor_back():
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=80, height=24)
    with pytest.raises(KeyboardInterrupt), LiveView(console):
        raise KeyboardInterrupt
    written = terminal.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "stopped" in written


def test_observer_follows_the_stream(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose_view(False, Terminal()), LiveView)
    assert isinstance(choose_view(False, io.StringIO()), LogObserver)
    assert type(choose_view(True, Terminal())) is SilentObserver


def test_steps_without_a_terminal_are_a_few_lines():
    stream = io.StringIO()
    with steps(stream) as progress:
        for done in range(1, 601):
            progress.update("scenes", done, 600)
    assert stream.getvalue().splitlines() == [
        "scenes 150/600",
        "scenes 300/600",
        "scenes 450/600",
        "scenes 600/600",
    ]


def test_quiet_steps_write_nothing():
    for stream in (Terminal(), io.StringIO()):
        with steps(stream, quiet=True) as progress:
            progress.update("scenes", 1, 1)
        assert stream.getvalue() == ""


@settings(max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6), max_size=50), st.integers(0, 20))
def test_sparkline_is_monotone_in_its_values(values, width):
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    if len(values) == len(line) and len(values) > 1:
        by_value = [mark for _, mark in sorted(zip(values, line, strict=True))]
        assert by_value == sorted(line)


def test_a_resumed_run_knows_what_was_finished_before():
    """One arm is done, one has two rounds of four, one has not begun."""
    clock = Clock()
    stream = io.StringIO()
    observer = LogObserver(stream, clock)
    observer.on_event(RunStarted(ARMS, (0,), 4, 18, 3))
    scores = RoundScores(aAcc=80.0, mIoU=41.5, mAcc=50.0)
    rounds = [
        tuple(
            RoundFinished(arm, 0, n, 3.0 / n, scores if n == last else None)
            for n in range(1, last + 1)
        )
        for arm, last in zip(ARMS, (4, 2), strict=False)
    ]
    observer.on_event(ArmResumed(ARMS[0], 0, 4, rounds[0]))
    observer.on_event(ArmResumed(ARMS[1], 0, 2, rounds[1]))
    observer.on_event(ArmResumed(ARMS[2], 0, 0, (RoundFinished(ARMS[2], 0, 0, None, scores),)))
    assert stream.getvalue().splitlines() == [
        f"{ARMS[0]}: 4 of 4 rounds done before",
        f"{ARMS[1]}: 2 of 4 rounds done before",
    ]
    progress = observer.progress
    first = drawn(progress, clock, 80, 24)
    assert [row.split()[2] for row in first.splitlines() if ARMS[0] in row] == ["done"]
    assert "41.5" in first
    assert "2/4" in first
    observer.on_event(ArmStarted(ARMS[1], 0))
    observer.on_event(RoundStarted(ARMS[1], 0, 3))
    clock.now += 10
    observer.on_event(RoundFinished(ARMS[1], 0, 3, 1.5, SCORES))
    assert progress.current.num_rounds_done == 3
    left = progress.seconds_left(clock.now)
    others = len(ARMS) - 2  # arms that wait, of four rounds of 10 s each
    assert left == (pytest.approx(10), pytest.approx(10 + others * 40))
