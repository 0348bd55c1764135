"""What a node has bound itself to: one answer for ever, on disk before it is given."""

from pathlib import Path
from typing import Any

import pytest

from clients.policy import journal
from clients.policy.ledger import make_ledger
from clients.policy.node_policy import RefusedError
from clients.policy.pledges import (
    MAX_SESSIONS,
    PLEDGES,
    Pledge,
    check_pledged,
    pledge,
    read_salt,
)
from fl_ppseg.system.errors import InputError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_ledger(tmp_path)
    return tmp_path


def made(**changes: Any) -> Pledge:
    values = {
        "run": "run",
        "arm": "plain",
        "seed": 0,
        "round": 1,
        "step": "share",
        "session": "00" * 32,
        "answer": "aa" * 32,
    }
    return Pledge.model_validate(values | changes)


OTHER = {"answer": "bb" * 32}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("share", "shares for another roster of this session were already dealt"),
        ("members", "already masked for other members"),
        ("train", "another update of this session was already masked"),
        ("survivors", "this round was already summed over other clients"),
    ],
)
def test_a_question_has_one_answer(state: Path, step: str, words: str) -> None:
    session = None if step == "survivors" else "00" * 32
    pledge(state, made(step=step, session=session))
    pledge(state, made(step=step, session=session))  # the same again
    with pytest.raises(RefusedError, match=words):
        pledge(state, made(step=step, session=session, **OTHER))
    assert len((state / PLEDGES).read_text().splitlines()) == 2


def test_a_session_has_one_answer_whatever_run_it_is_said_to_be_of(state: Path) -> None:
    pledge(state, made())
    for other in ({"run": "other"}, {"arm": "other"}, {"round": 2}):
        with pytest.raises(RefusedError, match="another roster"):
            pledge(state, made(**other, **OTHER))


def test_the_clients_of_a_sum_are_those_of_its_round_in_every_session(state: Path) -> None:
    for number in range(2):
        pledge(state, made(session=f"{number:064x}"))
        pledge(state, made(step="survivors", session=None))
    pledge(state, made(step="survivors", session=None, round=2, **OTHER))
    with pytest.raises(RefusedError, match="over other clients"):
        pledge(state, made(step="survivors", session=None, **OTHER))


def test_a_round_is_begun_a_bounded_number_of_times(state: Path) -> None:
    for number in range(MAX_SESSIONS):
        pledge(state, made(session=f"{number:064x}"))
    with pytest.raises(RefusedError, match="round 1 was begun 100 times, which is the most"):
        pledge(state, made(session="ff" * 32))


def test_an_update_needs_a_roster_that_was_answered(state: Path) -> None:
    with pytest.raises(RefusedError, match="has not agreed to this step's roster"):
        check_pledged(state, made())
    pledge(state, made())
    check_pledged(state, made())
    with pytest.raises(RefusedError, match="has not agreed"):
        check_pledged(state, made(**OTHER))


def test_it_is_on_disk_before_the_answer(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(journal.os, "fsync", lambda _: synced.append((state / PLEDGES).read_text()))
    pledge(state, made())
    assert len(synced) == 1
    assert made().model_dump_json() in synced[0]


def test_each_record_has_its_own_salt_and_keeps_it(tmp_path: Path) -> None:
    salts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for _ in range(2):
            make_ledger(tmp_path / name)
            salts.append(read_salt(tmp_path / name))
    assert salts[0] == salts[1] != salts[2] == salts[3]


def test_a_missing_or_damaged_record_answers_nothing(state: Path) -> None:
    pledge(state, made())
    path = state / PLEDGES
    whole = path.read_text()
    for content, line in (("", 1), (whole + "{}\n", 3), (whole.replace("plain", "p" * 300), 2)):
        path.write_text(content)
        with pytest.raises(InputError, match=f"line {line} is damaged"):
            pledge(state, made(**OTHER))
    path.unlink()
    with pytest.raises(RefusedError, match="has no record of its pledges"):
        pledge(state, made())


def test_a_torn_last_line_was_never_answered(state: Path) -> None:
    path = state / PLEDGES
    path.write_text(path.read_text() + made().model_dump_json()[:40])
    pledge(state, made(**OTHER))
    assert len(path.read_text().splitlines()) == 2
