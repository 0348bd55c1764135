"""All commands under one name: which there are, how they are called, what a shell completes."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import shtab
from checkout import CHECKOUT
from test_first_imports import NO_COMMANDS, with_main

from fl_ppseg import __main__ as program
from fl_ppseg import __version__
from fl_ppseg.__main__ import COMMANDS, main
from fl_ppseg.system.command_line import PROGRAM, run
from fl_ppseg.system.verbs import VerbParser, parser_of

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
function=$(complete -p "$1" | sed "s/.* -F \\([^ ]*\\) .*/\\1/")
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}"
printf "%s\n" "${COMPREPLY[@]}"
"""
"""Bash completes the last of the words of a line."""


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the console script calls it."""
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{PROGRAM}"])


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_console_script_is_the_programs() -> None:
    assert PROJECT["name"] == PROGRAM
    assert PROJECT["scripts"] == {PROGRAM: f"{program.__name__}:{program.script.__name__}"}


def test_every_command_is_there() -> None:
    modules = {name.removesuffix(".command") for name in with_main()}
    modules -= {*NO_COMMANDS, "fl_ppseg.__main__"}
    called = {parser_of(name, command).prog for name, command in COMMANDS.items()}
    assert called == {f"python -m {name}" for name in {*modules, "completion"}}
    assert COMMANDS.keys() == {prog.replace(" ", ".").rpartition(".")[2] for prog in called}


def test_help_says_the_name_that_was_typed(
    by_name: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, "-h").startswith("usage: fl-ppseg [-h]")
    assert shown(capsys, "simulate", "-h").startswith("usage: fl-ppseg simulate [-h]")
    assert shown(capsys, "vault", "-h").startswith("usage: fl-ppseg vault [-h]")
    assert shown(capsys, "vault", "new", "-h").startswith("usage: fl-ppseg vault new [-h]")
    assert shown(capsys, "completion", "-h").startswith("usage: fl-ppseg completion [-h]")
    assert shown(capsys, "vault", "new", "--version") == f"fl-ppseg {__version__}\n"
    assert run(main, ["vault", "nwe"]) == 2
    assert capsys.readouterr().err.endswith("(see fl-ppseg vault -h)\n")


def test_a_command_runs_and_its_status_is_the_programs(
    by_name: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [PROGRAM, "describe", "config", "trainning"])
    assert program.script() == 2
    assert "trainning" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [PROGRAM, "describe", "config", "training.batch_size"])
    assert program.script() == 0
    assert capsys.readouterr().out.startswith("training.batch_size ")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `completion bash` prints."""
    command = [sys.executable, "-m", "fl_ppseg", "completion", "bash"]
    said = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    path = tmp_path_factory.mktemp("completion") / PROGRAM
    path.write_text(said.stdout, "utf-8")
    return path


def completed(script: Path, *words: str) -> set[str]:
    command = ["bash", "-c", ASK, "bash", str(script), PROGRAM, *words]
    said = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=True)
    assert said.stderr == ""
    return set(said.stdout.split())


def test_bash_completes_commands_verbs_and_options(script: Path) -> None:
    assert completed(script, "") >= COMMANDS.keys()
    assert completed(script, "s") == {"serve", "simulate", "synthesize"}
    vault = parser_of("vault", COMMANDS["vault"])
    assert isinstance(vault, VerbParser)
    assert completed(script, "vault", "re") == {"restore", "retire"}
    assert completed(script, "vault", "") >= vault.verbs.keys()
    assert completed(script, "simulate", "--en") == {"--engine"}
    assert completed(script, "simulate", "--engine", "") == {"ray", "in-process"}
    assert {"--vault", "--client", "--data-root"} <= completed(script, "vault", "encrypt", "--")
    assert completed(script, "coordinator", "template", "--home", "d", "sy") >= {"systemd"}


def test_bash_completes_files_and_folders(script: Path) -> None:
    (script.parent / "photos").mkdir(exist_ok=True)
    (script.parent / "phase.yaml").touch()
    assert completed(script, "simulate", "--data-root", "ph") == {"photos"}
    assert completed(script, "simulate", "--config", "ph") == {"photos", "phase.yaml"}


def test_every_shell_that_is_offered_can_be_completed(capsys: pytest.CaptureFixture[str]) -> None:
    offered = parser_of("completion", COMMANDS["completion"]).format_usage()
    assert "{bash,zsh}" in offered
    assert {"bash", "zsh"} <= {*shtab.SUPPORTED_SHELLS}
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith(f"#compdef {PROGRAM}")
