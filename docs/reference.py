"""Pages of the site that are made from the code whenever it is built: a hook of MkDocs.

Commands come from argparse, settings and arms from the config's sections, the layers and import
rules from pyproject.toml. Nothing of them is written by hand, so nothing of them can go stale.
"""

import argparse
import os
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from typing import Any, NoReturn
from unittest.mock import patch

from fl_ppseg.config.reference import Setting, settings

CHECKOUT = Path(__file__).resolve().parent.parent
LAYERS_MARK, RULES_MARK = "<!-- layers -->", "<!-- import rules -->"
ARM = "arm_table.<id>."
"""Before the name of each field of an arm."""
EVERYWHERE = {"-h", "--version"}
"""Options of every command and verb, not worth a row each."""
FIRST = (
    "fl_ppseg.simulate", "fl_ppseg.audit", "fl_ppseg.evaluate", "fl_ppseg.predict",
    "fl_ppseg.convert",
)  # fmt: skip
"""Commands in the order in which a newcomer meets them; the others follow by name."""


def on_files(files: Any, config: Any) -> Any:
    """Add the made pages to those of the folder."""
    from mkdocs.structure.files import File

    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the layers and the import rules where a page marks them."""
    return markdown.replace(LAYERS_MARK, layers()).replace(RULES_MARK, rules())


def pages() -> dict[str, str]:
    """The made pages: path in the site -> Markdown."""
    return {
        "reference/commands.md": commands_page(),
        "reference/config.md": config_page(),
        "reference/arms.md": arms_page(),
    }


class HelpAskedError(BaseException):
    """Raised in place of printing a help text, with the parser that would have printed it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def commands() -> list[str]:
    """What stands behind `python -m`: modules of fl_ppseg that can be run, and packages."""
    packages = [path.parent for path in CHECKOUT.glob("*/*/__main__.py")]
    modules = [
        path.with_suffix("")
        for path in (CHECKOUT / "fl_ppseg").glob("*.py")
        if "__main__" not in path.stem and 'if __name__ == "__main__"' in path.read_text("utf-8")
    ]
    roots = ("fl_ppseg", "clients", "strategies")
    names = [".".join(path.relative_to(CHECKOUT).parts) for path in packages + modules]
    found = sorted(name for name in names if name.partition(".")[0] in roots)
    return sorted(found, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def parser_of(module: str, *verb: str) -> argparse.ArgumentParser:
    """The parser of a command, or of one of its verbs, as `-h` finds it."""
    is_package = hasattr(import_module(module), "__path__")
    main = import_module(f"{module}.command" if is_package else module).main

    def print_help(parser: argparse.ArgumentParser, file: object = None) -> NoReturn:
        raise HelpAskedError(parser)

    with (
        patch.object(argparse.ArgumentParser, "print_help", print_help),
        patch.dict(os.environ, {"COLUMNS": "96"}),
    ):
        try:
            main([*verb, "-h"])
        except HelpAskedError as asked:
            return asked.parser
    raise RuntimeError(f"python -m {module} {' '.join(verb)} -h shows no help")


def verbs_of(parser: argparse.ArgumentParser) -> list[str]:
    """The verbs of a command; none where it has options alone."""
    return [
        name
        for action in parser._actions
        if not action.option_strings and action.choices and action.metavar == "VERB"
        for name in action.choices
    ]


def commands_page() -> str:
    """Each command with its verbs and options, as `-h` tells them."""
    lines = [
        "# Commands",
        "",
        "Made from the commands' own `-h`. All end with status 0, 1 (the run failed or was "
        "interrupted) or 2 (bad arguments, config or data) and one clear line.",
        "",
    ]
    for module in commands():
        parser = parser_of(module)
        lines += [f"## {module}", "", *_described(parser)]
        for verb in verbs_of(parser):
            lines += [f"### {module} {verb}", "", *_described(parser_of(module, verb))]
    return "\n".join(lines)


def _described(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Description, usage and options of one parser."""
    with patch.dict(os.environ, {"COLUMNS": "96"}):
        usage = dedent(parser.format_usage().replace("usage: ", " " * 7)).rstrip()
    yield from (_escaped(parser.description or ""), "", "```text", usage, "```", "")
    rows = list(_options(parser))
    if rows:
        yield from ("| option | meaning |", "|---|---|", *rows, "")


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or EVERYWHERE & {*action.option_strings}:
            continue
        name = formatter._format_action_invocation(action).replace("|", "\\|")
        yield f"| `{name}` | {_escaped(formatter._expand_help(action))} |"


def config_page() -> str:
    """Each setting with what it may be, what it is by default, and its line of doc."""
    lines = [
        "# Config",
        "",
        "Made from the sections of `fl_ppseg/config`, as `python -m fl_ppseg.describe config` "
        "lists them. A config is their defaults, then a YAML file "
        "(`--config FILE`, or the name of one below), then `--set dotted.key=value`, then the "
        "command's own options. A key that does not exist, a value out of its bounds and a setting "
        "that the command would not read are refused in one line. [Arms](arms.md) have a page.",
        "",
    ]
    sections = groupby((s for s in settings() if not s.key.startswith(ARM)), _section_of)
    for section, found in sections:
        lines += [f"## {section or 'The experiment'}", "", *_table(found), ""]
    return "\n".join([*lines, *_named_configs()])


def _section_of(setting: Setting) -> str:
    return setting.key.rpartition(".")[0]


def _table(found: Iterable[Setting]) -> Iterator[str]:
    """Settings as a table."""
    yield from ("| setting | values | default | meaning |", "|---|---|---|---|")
    for each in found:
        values = _escaped(f"{each.type} {each.bounds}".strip())
        yield f"| `{each.key}` | {values} | `{_escaped(each.default)}` | {_escaped(each.doc)} |"


def _named_configs() -> Iterator[str]:
    """The files of configs/, with what each says of itself."""
    yield from ("## Named configs", "", "| `--config` | what it is |", "|---|---|")
    for path in sorted((CHECKOUT / "configs").glob("*.yaml")):
        if path.stem == "arms":
            continue
        about = []
        for line in path.read_text("utf-8").splitlines():
            if not line.startswith("#"):
                break
            about.append(line.removeprefix("#").strip())
        yield f"| `{path.stem}` | {_escaped(' '.join(about))} |"


def arms_page() -> str:
    """Each arm that ships, and each field of an arm."""
    from fl_ppseg.config.loading import builtin_arms

    columns = ("training", "key_mode", "cipher", "block_scope", "key_lifetime", "embedding")
    lines = [
        "# Arms",
        "",
        "Made from `configs/arms.yaml` and `fl_ppseg/config/arm.py`. An arm is one setting that a "
        "comparison trains. It is an entry of YAML, not a branch of code: one of your own goes "
        "into a config's `arm_table`. Settings that contradict themselves are refused with the "
        "reason.",
        "",
        "## Those that ship",
        "",
        f"| arm | {' | '.join(columns)} | what it stands for |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    for name, arm in builtin_arms().items():
        cells = [getattr(arm, column) or "-" for column in columns]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {_escaped(arm.note)} |")
    fields = [each for each in settings() if each.key.startswith(ARM)]
    named = (each._replace(key=each.key.removeprefix(ARM)) for each in fields)
    lines += ["", "## Fields of an arm", "", *_table(named)]
    return "\n".join([*lines, ""])


def contracts() -> list[dict[str, Any]]:
    """The import rules of pyproject.toml."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    found: list[dict[str, Any]] = project["tool"]["importlinter"]["contracts"]
    return found


def layers() -> str:
    """The layers of the whole program as boxes in a list, the highest first; see extra.css."""
    floors = next(each["layers"] for each in contracts() if "containers" not in each)
    names = [
        [room.strip().removeprefix("fl_ppseg.") for room in each.split("|")] for each in floors
    ]
    items = [f"<li>{' · '.join(each)}</li>" for each in names]
    return "\n".join(['<ol class="layers">', *items, "</ol>"])


def rules() -> str:
    """The other import rules: inner layers, and what may never be reached."""
    lines = ["| rule | rooms | may never reach, even indirectly |", "|---|---|---|"]
    for each in contracts():
        if each["type"] == "forbidden":
            about, never = each["source_modules"], each["forbidden_modules"]
            lines.append(f"| {each['name']} | {_codes(about)} | {_codes(never)} |")
    return "\n".join(lines)


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _escaped(text: str) -> str:
    """Text on one line, with nothing that a table or HTML would take for its own."""
    line = " ".join(text.split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
