"""Commands with verbs: help that a newcomer can read, and one line where a verb is none."""

from collections.abc import Callable, Sequence

import pytest

from clients.node.command import main as node
from clients.vault.command import main as vault
from fl_ppseg.convert.command import main as convert
from fl_ppseg.describe import main as describe
from fl_ppseg.system.command_line import Parser, run
from fl_ppseg.system.verbs import Verb, dispatch
from strategies.coordinator.command import main as coordinator

Main = Callable[[Sequence[str] | None], int]
COMMANDS = {
    "clients.vault": (
        vault,
        "new cohort floor backup restore rotate retire encrypt follow decrypt verify show "
        "withdraw list clear",
    ),
    "clients.node": (node, "init start app template"),
    "strategies.coordinator": (
        coordinator,
        "init enrol revoke start run stop status bundle template",
    ),
    "fl_ppseg.convert": (convert, "camvid labelme-facade folder"),
    "fl_ppseg.describe": (describe, "arms config ciphers"),
}
VERBS = [
    (module, main, verb) for module, (main, verbs) in COMMANDS.items() for verb in verbs.split()
]


def help_of(main: Main, *argv: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*argv, "-h"])
    assert end.value.code == 0


@pytest.mark.parametrize("module", COMMANDS)
def test_help_names_every_verb_with_what_it_does(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, verbs = COMMANDS[module]
    help_of(main)
    text = capsys.readouterr().out
    assert f"python -m {module}" in text
    _, table = text.split("verbs (each has -h):\n")
    lines = [line.split(maxsplit=1) for line in table.splitlines()]
    assert {name for name, does in lines if len(does) > 15} == set(verbs.split())
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(("module", "main", "verb"), VERBS)
def test_each_verb_has_help_of_its_own(
    module: str, main: Main, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    help_of(main, verb)
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m {module} {verb} [-h]")
    assert "(default: None)" not in text


@pytest.mark.parametrize("argv", [["dance"], ["dance", "-h"], [], ["--dance"]])
@pytest.mark.parametrize("module", COMMANDS)
def test_a_verb_that_is_none_is_one_line_with_the_way_out(
    module: str, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(COMMANDS[module][0], argv) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"(see python -m {module} -h)\n")
    assert error.count("\n") == 1


def test_a_verb_gets_what_stands_behind_it_and_its_status_is_the_commands() -> None:
    seen = []

    def act(parser: Parser, argv: Sequence[str]) -> int:
        parser.add_argument("--loud", action="store_true")
        parser.add_argument("names", nargs="*")
        seen.append(vars(parser.parse_args(argv)))
        return 7

    verbs = {"say": Verb("say something", act), "sing": Verb("sing it", lambda *_: 0)}
    assert dispatch("m", "Speaks.", verbs, ["say", "--loud", "a", "sing"]) == 7
    assert seen == [{"loud": True, "names": ["a", "sing"]}]
