"""Ray's own files: in a folder of this user's, with names that its sockets can have."""

import stat
import tempfile
from pathlib import Path

import pytest

from fl_ppseg.flower import scratch
from fl_ppseg.flower.scratch import RAYS_OWN, SOCKET_BYTES, make_scratch
from fl_ppseg.system.errors import InputError


def temporary(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", place)


def test_the_folder_is_closed_to_others_and_its_sockets_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary(monkeypatch, "/tmp")
    made = make_scratch()
    try:
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        session = "session_2026-11-26_15-29-47_583502_4194304/sockets/plasma_store"
        assert len(f"/{session}") <= RAYS_OWN
        assert len(str(made / "r" / session)) <= SOCKET_BYTES
    finally:
        made.rmdir()


def test_a_long_tmpdir_is_left_for_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a" * 100)
    long.mkdir()
    temporary(monkeypatch, str(long))
    made = make_scratch()
    made.rmdir()
    assert made.parent in map(Path, scratch.ELSEWHERE)


def test_without_a_short_place_the_line_names_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a" * 100)
    long.mkdir()
    temporary(monkeypatch, str(long))
    monkeypatch.setattr(scratch, "ELSEWHERE", (str(tmp_path / "none"),))
    with pytest.raises(InputError, match=r"TMPDIR .* is too long") as refused:
        make_scratch()
    assert len(str(refused.value).splitlines()) == 1
    assert list(long.iterdir()) == []
