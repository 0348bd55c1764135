"""The ledger: nothing is answered that was not counted, whatever becomes of the process or disk."""

import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import must_fail
import numpy as np
import pytest

from clients.policy import journal
from clients.policy.ledger import (
    LEDGER,
    MAX_BYTES,
    Limits,
    Question,
    check_ledger,
    grant,
    make_ledger,
    read_ledger,
)
from clients.policy.node_policy import RefusedError
from fl_ppseg.system.arrays import hash_of
from fl_ppseg.system.errors import InputError

LIMITS = Limits(per_round=2, total=4)


def question(weights: int = 0, **changes: Any) -> Question:
    asked = Question("run", "plain", 0, 1, "train", f"{weights:064x}")
    return asked._replace(**changes)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_ledger(tmp_path)
    return tmp_path


def ask(state: Path, *args: Any, **changes: Any) -> None:
    grant(state, question(*args, **changes), LIMITS, None)


def test_a_new_ledger_is_an_empty_file_of_its_owner(state: Path) -> None:
    path = state / LEDGER
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"", 0o600)
    ask(state)
    make_ledger(state)
    assert len(read_ledger(path)) == 1


def test_a_granted_request_is_one_line_that_says_what_was_asked(state: Path) -> None:
    ask(state, 7, round=3, task="evaluate", arm="a\nb\x1b[2J")
    (line,) = (state / LEDGER).read_text("utf-8").splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "run": "run", "arm": "a\nb\x1b[2J", "seed": 0, "round": 3, "task": "evaluate",
        "weights": f"{7:064x}", "is_release": False,
        "refused": None,
    }  # fmt: skip
    assert line.isprintable()


def test_distinct_questions_are_bounded_by_round_and_in_total(state: Path) -> None:
    for round_ in (1, 2):
        for weights in (0, 1):
            ask(state, weights, round=round_)
        with pytest.raises(RefusedError, match=f"2 different questions to train in round {round_}"):
            ask(state, 2, round=round_)
    with pytest.raises(RefusedError, match="4 different questions to train in this arm"):
        ask(state, 0, round=3)
    ask(state, 1, round=2)  # what was asked before is answered again


@pytest.mark.parametrize(
    "other", [{"arm": "per-image"}, {"seed": 1}, {"task": "evaluate"}, {"run": None}]
)
def test_arms_seeds_tasks_and_runs_are_counted_apart(other: dict[str, Any], state: Path) -> None:
    for weights in (0, 1):
        ask(state, weights)
    for weights in (2, 3):
        ask(state, weights, **other)
    for changes in ({}, other):
        with pytest.raises(RefusedError):
            ask(state, 9, **changes)


def test_no_question_at_all(state: Path) -> None:
    with pytest.raises(RefusedError, match="0 different questions"):
        grant(state, question(), Limits(0, 0), None)
    assert read_ledger(state / LEDGER) == []


def test_a_torn_last_line_was_never_answered(state: Path) -> None:
    path = state / LEDGER
    ask(state, 0)
    whole = path.read_bytes()
    ask(state, 1)
    both = path.read_bytes()
    for length in range(len(whole), len(both)):
        path.write_bytes(both[:length])
        assert len(read_ledger(path)) == 1
        ask(state, 1)
        assert path.read_bytes().count(b"\n") == 2
        assert len(read_ledger(path)) == 2


def test_a_disk_that_is_full_answers_nothing_and_leaves_no_part(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(state, 0)
    before = (state / LEDGER).read_bytes()

    def half(descriptor: int, rest: memoryview) -> int:
        if len(rest) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, rest[:-50])

    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "write", half)
        with pytest.raises(OSError, match="No space left") as caught:
            ask(state, 1)
    assert caught.value.filename == str(state / LEDGER)
    assert (state / LEDGER).read_bytes() == before


def test_the_line_is_on_disk_before_anything_is_answered(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(journal.os, "fsync", lambda _: synced.append((state / LEDGER).read_bytes()))
    ask(state, 0)
    assert synced == [(state / LEDGER).read_bytes()] and synced[0].endswith(b"\n")


def _ask_alone(state: Path, weights: int) -> bool:
    try:
        ask(state, weights)
    except RefusedError:
        return False
    return True


def test_processes_at_once_are_counted_one_by_one(state: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        granted = pool.starmap(_ask_alone, [(state, weights) for weights in range(24)])
    assert sum(granted) == 2
    assert len(read_ledger(state / LEDGER)) == 2


def test_a_missing_ledger_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for refuse in (lambda: ask(tmp_path), lambda: check_ledger(tmp_path)):
        with pytest.raises(RefusedError, match=r"no ledger; .*clients\.node init") as caught:
            refuse()
        assert str(tmp_path) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_ledger_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / LEDGER, tmp_path / "other"
    other.write_bytes(b"")
    {"link": lambda: path.symlink_to(other), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[
        kind
    ]()
    with pytest.raises((InputError, OSError)):
        ask(tmp_path)
    assert other.read_bytes() == b""
    if kind == "link":
        with pytest.raises(OSError, match="symbolic"):
            make_ledger(tmp_path)


def test_a_ledger_beyond_all_measure_is_not_read(state: Path) -> None:
    os.truncate(state / LEDGER, MAX_BYTES + 1)
    with pytest.raises(InputError, match=r"larger than .* bytes; inspect what was asked"):
        ask(state)


def test_weights_differ_by_a_bit_a_name_a_type_or_a_shape() -> None:
    value = np.arange(6, dtype=np.float32)
    kinds = [
        {"w": value},
        {"v": value},
        {"w": value.astype(np.float64)},
        {"w": value.reshape(2, 3)},
        {"w": np.nextafter(value, 9)},
        {"w": value, "v": value},
        {},
    ]
    assert len({hash_of(kind) for kind in kinds}) == len(kinds)
    swapped = {"w": value.reshape(3, 2).T}
    assert hash_of(swapped) == hash_of({"w": swapped["w"].copy()})


@must_fail.of("ledger")
def test_a_damaged_ledger_is_refused(vector: must_fail.Vector, state: Path) -> None:
    ask(state, 0)
    path = state / LEDGER
    whole = path.read_bytes()
    path.write_bytes(vector.content.replace(b"<good>\n", whole))
    with pytest.raises(InputError) as caught:
        ask(state, 1)
    assert vector.error in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
