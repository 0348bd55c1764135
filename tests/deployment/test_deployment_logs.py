"""Logs hold what programs wrote and nothing that it could do: no link, no escape, no flood."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.deployment import logs
from fl_ppseg.deployment.logs import MAX_LINE, Lines, Log, sanitise
from fl_ppseg.system.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "logs"
    made.mkdir(0o700)
    return made


@pytest.mark.parametrize(
    ("foreign", "kept"),
    [
        ("\x1b[92mINFO\x1b[0m :      x", "INFO :      x"),
        ("a\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1b]52;c;cm0gLXJm\x07b", "ab"),
        ("a\x1bP+q544e\x1b\\b", "ab"),
        ("a\x1b]0;never ended", "a"),
        ("a\rERROR forged", r"a\rERROR forged"),
        ("a\x9b31mb\x08\x7f", r"a\x9b31mb\x08\x7f"),
        ("\u202eabc\u2066\u2028\ufeff", r"\u202eabc\u2066\u2028\ufeff"),
        ("Grüße\taus Köln", "Grüße\taus Köln"),
    ],
)
def test_what_a_terminal_would_obey_is_gone(foreign: str, kept: str) -> None:
    assert sanitise(foreign) == kept


@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_bytes_become_clean_lines(data: bytes, step: int) -> None:
    lines = Lines()
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    found = [line for piece in pieces for line in lines.add(piece)] + lines.end()
    for line in found:
        assert line.replace("\t", "").isprintable()
    whole = Lines()
    assert found == whole.add(data) + whole.end()


def test_a_line_without_end_is_one_line_and_the_next_one_is_whole() -> None:
    lines = Lines()
    found = [line for _ in range(50) for line in lines.add(b"x" * 1000)]
    assert found == ["x" * MAX_LINE + "..."]
    assert lines.add(b"tail that would look like a line\nnext\n") == ["next"]


def test_a_log_that_is_large_is_turned_over_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 100)
    target = folder.parent / "precious"
    target.write_text("thesis")
    (folder / "it.log.1").symlink_to(target)
    log = Log(folder / "it.log")
    for number in range(30):
        log.write([f"line {number:03d}"])
    log.close()
    assert target.read_text() == "thesis"
    assert not (folder / "it.log.1").is_symlink()
    kept = (folder / "it.log.1").read_text() + (folder / "it.log").read_text()
    assert kept.endswith("line 028\nline 029\n")
    assert max(path.stat().st_size for path in folder.iterdir()) <= 100


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_a_link_in_the_place_of_a_log_is_not_written_through(make: object, folder: Path) -> None:
    target = folder.parent / "cron"
    target.write_text("")
    make(target, folder / "it.log")  # type: ignore[operator]
    log = Log(folder / "it.log")
    with pytest.raises((InputError, OSError)):
        log.write(["* * * * * root id"])
    log.close()
    assert target.read_text() == ""


def test_a_pipe_in_the_place_of_a_log_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "it.log")
    log = Log(folder / "it.log")
    with pytest.raises((InputError, OSError)):
        log.write(["a line"])
    log.close()


def test_a_folder_that_others_may_write_is_no_place_for_logs(folder: Path) -> None:
    folder.chmod(0o1777)
    with pytest.raises(InputError, match="expected a folder for logs that belongs to"):
        Log(folder / "it.log")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of another user, so root")
def test_another_users_folder_is_no_place_for_logs(folder: Path) -> None:
    os.chown(folder, 65534, 65534)
    with pytest.raises(InputError, match="belongs to"):
        Log(folder / "it.log")
