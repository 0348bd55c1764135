"""How commands end: exit status, one line, no traceback."""

import argparse
import errno
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fl_ppseg.system.command_line import (
    LOGGERS,
    Parser,
    count,
    image_size,
    log_to,
    run,
    tree_of,
    usual_tree,
)
from fl_ppseg.system.errors import InputError, RunError, describe

Main = Callable[[Sequence[str] | None], int]


def raising(error: BaseException) -> Main:
    def main(argv: Sequence[str] | None) -> int:
        raise error

    return main


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_s_own_status_and_arguments_pass_through(status: int) -> None:
    seen: list[object] = []

    def main(argv: Sequence[str] | None) -> int:
        seen.append(argv)
        return status

    assert run(main, ["--seed", "1"]) == status
    assert seen == [["--seed", "1"]]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("no such\n  config"), 2, "no such config"),
        (RunError("round 3 failed"), 1, "round 3 failed"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), 2, "a.png: No such file"),
        (KeyboardInterrupt(), 1, "interrupted; finished work is kept"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "no space left on the disk while writing runs/x; free some",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "no space left on the disk; free some",
        ),
    ],
)
def test_failures_are_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), []) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {line}")
    assert printed.err.index("\n") == len(printed.err) - 1


def test_developers_may_ask_for_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_PPSEG_TRACEBACK", "1")
    with pytest.raises(InputError):
        run(raising(InputError("x")), [])


def test_a_defect_of_the_program_is_not_dressed_up_as_the_user_s() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()), [])


def test_an_error_without_words_is_still_named() -> None:
    assert describe(RunError()) == "RunError"


def parser() -> Parser:
    made = Parser("fl_ppseg.simulate", "Federates.", shows_defaults=True)
    made.add_argument("--size", type=image_size, default=(64, 128), help="Height and width.")
    made.add_argument("--engine", choices=["ray", "in-process"])
    made.add_argument("--workers", type=int, default=0, help="More processes.")
    return made


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--size", "64"], "expected HEIGHTxWIDTH"),
        (["--engine", "spark"], "in-process"),
        (["--sise", "1x1"], "--sise"),
        (["--siz", "1x1"], "--siz"),
        (["--size"], "expected one argument"),
    ],
)
def test_wrong_arguments_are_one_line_with_the_way_out(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: Sequence[str] | None) -> int:
        parser().parse_args(argv)
        return 0

    assert run(main, argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.endswith("(see python -m fl_ppseg.simulate -h)\n")
    assert error.count("\n") == 1


def test_help_shows_defaults_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["-h"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "Height and width. (default: (64, 128))" in said
    assert "More processes. (default: 0)" in said


def test_help_shows_no_default_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    made = Parser("fl_ppseg.serve", "Serves.", shows_defaults=True)
    made.add_argument("--model", required=True, help="The model.")
    made.add_argument("--proxy", action="append", default=[], help="One of several.")
    made.add_argument("--quiet", action="store_true", help="Say nothing.")
    made.print_help()
    assert "(default" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["128", "128x", "x128", "0x8", "8x0", "-8x8", "8.5x8", "axb"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected HEIGHTxWIDTH"):
        image_size(text)
    assert image_size("37x1024") == (37, 1024)


def test_a_run_s_log_goes_to_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.txt"
    log_to(path)
    assert set(LOGGERS) == {"fl_ppseg", "strategies", "flwr"}, "what nodes log stays with the owner"
    for name in LOGGERS:
        logging.getLogger(f"{name}.part").info("größer in %s", name)
    logging.getLogger("fl_ppseg").handlers[0].close()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [f"größer in {name}" for name in LOGGERS]
    assert [" INFO " in line for line in lines] == [True] * len(LOGGERS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("quiet", "shown"), [(False, "warned\nfailed\n"), (True, "failed\n")])
def test_the_terminal_gets_warnings_and_quiet_ones_errors(
    quiet: bool, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to(None, quiet)
    logger = logging.getLogger("strategies.part")
    logger.info("told")
    logger.warning("warned")
    logger.error("failed")
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "²", "", "01", "1000000"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected 1 or more"):
        count(text)
    assert count("12") == 12


def test_the_tree_is_the_one_given_or_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYSCAPES_DATASET", str(tmp_path / "usual"))
    assert tree_of(tmp_path) == tmp_path
    assert tree_of(None) == usual_tree() == tmp_path / "usual"
    monkeypatch.setenv("CITYSCAPES_DATASET", "")
    assert usual_tree() is None
    with pytest.raises(InputError, match="give --data-root, or set CITYSCAPES_DATASET"):
        tree_of(None)
