"""profile.json: parts that add up whatever was noted, and files that are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.config.run_layout import PROFILE
from fl_ppseg.federation.profile import (
    ALL_PARTS,
    RoundTime,
    RunProfile,
    StartTime,
    TimeParts,
    load_profile,
    save_profile,
    shared_out,
    total,
)
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.spans import PARTS, Span

SECOND = 10**9
SPANS = st.lists(
    st.builds(
        lambda part, begin, length: Span(part, begin, begin + length),
        st.sampled_from(PARTS),
        st.integers(-5 * SECOND, 15 * SECOND),
        st.integers(0, 10 * SECOND),
    ),
    max_size=12,
)


def parts(compute: float = 0.0, waiting: float = 0.0, **others: float) -> TimeParts:
    given = dict.fromkeys(ALL_PARTS, 0.0) | {"compute": compute, "waiting": waiting} | others
    return TimeParts(wall=sum(given.values()), **given)


def a_round(number: int, arm: str = "plain", **seconds: float) -> RoundTime:
    return RoundTime(**parts(**seconds).model_dump(), arm=arm, seed=0, round=number)


def test_two_workers_of_which_one_waits() -> None:
    """Worked out by hand: 6 s of two workers; one computes for 4 s and encrypts for 1 s."""
    found = shared_out(
        [Span("compute", 0, 4 * SECOND), Span("encryption", 5 * SECOND, 9 * SECOND)],
        0,
        6 * SECOND,
        2,
    )
    assert found == parts(compute=2.0, encryption=0.5, waiting=3.5)


def test_more_spans_than_workers_share_what_there_is() -> None:
    """Two workers compute while the coordinator aggregates: a third of the time each."""
    busy = [Span("compute", 0, 3 * SECOND)] * 2 + [Span("aggregation", 0, 3 * SECOND)]
    assert shared_out(busy, 0, 3 * SECOND, 2) == parts(compute=2.0, aggregation=1.0)
    assert shared_out(busy, 0, 3 * SECOND, 4) == parts(compute=1.5, aggregation=0.75, waiting=0.75)


@given(SPANS, st.integers(1, 4))
def test_parts_add_up_to_the_wall_time(spans: list[Span], num_workers: int) -> None:
    found = shared_out(spans, 0, 10 * SECOND, num_workers)
    assert found.wall == pytest.approx(10, abs=1e-3)
    for part in PARTS:
        inside = [
            max(0, min(span.end, 10 * SECOND) - max(span.begin, 0))
            for span in spans
            if span.part == part
        ]
        assert found.of(part) <= sum(inside) / SECOND / num_workers + 1e-3


@given(SPANS, st.integers(1, 4), st.integers(1, 9))
def test_a_cut_changes_no_sum(spans: list[Span], num_workers: int, cut: int) -> None:
    """Rounds follow each other without a gap, and spans that lie across are cut."""
    whole = shared_out(spans, 0, 10 * SECOND, num_workers)
    first = shared_out(spans, 0, cut * SECOND, num_workers)
    rest = shared_out(spans, cut * SECOND, 10 * SECOND, num_workers)
    for part in ALL_PARTS:
        assert total([first, rest]).of(part) == pytest.approx(whole.of(part), abs=1e-3)


def test_a_round_that_is_done_again_takes_the_place_of_the_first() -> None:
    profile = RunProfile(rounds=(a_round(1, compute=1.0), a_round(2, compute=2.0)))
    again = profile.including(a_round(2, compute=3.0)).including(a_round(2, "other", compute=5.0))
    assert [(r.arm, r.round, r.compute) for r in again.rounds] == [
        ("plain", 1, 1.0), ("plain", 2, 3.0), ("other", 2, 5.0),
    ]  # fmt: skip


def test_the_whole_run_over_its_compute() -> None:
    start = StartTime(
        engine="ray",
        num_workers=2,
        preparation=parts(waiting=2.0),
        conclusion=parts(compute=1.0, waiting=1.0),
    )
    profile = RunProfile(starts=(start, start), rounds=(a_round(1, compute=2.0),))
    assert profile.total.wall == 10.0
    assert profile.over_compute == 2.5
    assert RunProfile().over_compute is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert load_profile(tmp_path) is None
    start = StartTime(engine="in-process", num_workers=1, preparation=parts(data=0.5))
    profile = RunProfile(starts=(start,), rounds=(a_round(0, wire=0.25),))
    save_profile(tmp_path, profile)
    assert load_profile(tmp_path) == profile


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"schema":1', '"schema":2', "schema: Input should be 1"),
        ('"wall":0.25', '"wall":0.5', "rounds.0: parts do not add up to their wall time of 0.5 s"),
        ('"wire":0.25', '"wire":-0.25', "rounds.0.wire: Input should be greater than or equal to"),
        ('"wire":0.25', '"wire":NaN', "rounds.0.wire"),
        ('"round":0', '"round":true', "rounds.0.round: Input should be a valid integer"),
        ('"round":0', '"round":0,"more":0', "rounds.0.more: Extra inputs are not permitted"),
        ('"arm":"plain"', '"arm":""', "rounds.0.arm"),
        ('"num_workers":1', '"num_workers":0', "starts.0.num_workers"),
        ("in-process", "fast", "starts.0.engine"),
        ("{", "", "Invalid JSON"),
    ],
)
def test_damaged_files_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    start = StartTime(engine="in-process", num_workers=1, preparation=parts(data=0.5))
    save_profile(tmp_path, RunProfile(starts=(start,), rounds=(a_round(0, wire=0.25),)))
    path = tmp_path / PROFILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        load_profile(tmp_path)
    assert said in str(refused.value) and str(path) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_round_named_twice_is_refused(tmp_path: Path) -> None:
    twice = RunProfile.model_construct(rounds=(a_round(1), a_round(1)))
    save_profile(tmp_path, twice)
    with pytest.raises(InputError, match="a round is named twice"):
        load_profile(tmp_path)
