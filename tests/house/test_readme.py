"""What the README shows exists: commands, options, arms, paths, version."""

import re
import tomllib
from collections.abc import Callable, Sequence
from importlib import import_module

import pytest
from checkout import CHECKOUT

from fl_ppseg import __version__
from fl_ppseg.config.loading import builtin_arms, configs_dir, load_config

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python -m (fl_ppseg\.\w+)", README)))


def help_of(module: str, capsys: pytest.CaptureFixture[str]) -> str:
    is_package = hasattr(import_module(module), "__path__")
    named = import_module(f"{module}.__main__" if is_package else module)
    main: Callable[[Sequence[str]], int] = named.main

    def shown(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "-h"])
        assert stop.value.code == 0
        return capsys.readouterr().out

    text = shown()
    verbs = re.findall(r"^  (\S+)  ", text.partition("verbs (each has -h):")[2], re.MULTILINE)
    return text + "".join(map(shown, verbs))


@pytest.mark.parametrize("module", COMMANDS)
def test_shown_options_exist(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = help_of(module, capsys)
    shown = re.findall(rf"python -m {re.escape(module)}([^\n`|]*)", README)
    for option in {word for line in shown for word in re.findall(r"--[\w-]+", line)}:
        assert option in known, f"{module} has no {option}"


def test_the_two_commands_stand_alone() -> None:
    run, test = (re.search(rf"<!-- {name} -->\n```\n(.+)\n```", README) for name in ("run", "test"))
    assert run is not None
    assert test is not None
    assert run[1].endswith("-m fl_ppseg.simulate --clients 18")
    assert test[1].endswith("-m pytest -n 2")
    assert all(
        "constraints.txt" in line[1] and "python3 -m venv" in line[1] for line in (run, test)
    )


def test_shown_arms_and_configs_exist() -> None:
    arms = builtin_arms()
    listed = re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE)
    assert set(load_config().arms) <= set(listed) & set(arms)
    for argument in re.findall(r"--arms ([\w,-]+)", README):
        assert set(argument.split(",")) <= set(arms)
    for name in re.findall(r"--config ([a-z][\w-]*)", README):
        assert (configs_dir() / f"{name}.yaml").is_file()


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (CHECKOUT / target).exists(), target


def test_one_version() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    changelog = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}]" in changelog


def test_constraints_pin_all_dependencies() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in wanted}
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (CHECKOUT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert names <= pinned
