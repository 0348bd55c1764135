"""Completion of a program's commands, verbs and options for a shell, as a script without Python.

The script is made once from the same parsers that read the arguments (by shtab), and knows all
names by itself: pressing the tab key starts no process.
"""

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path

import shtab

from fl_ppseg.system.verbs import Verb, VerbParser, parser_of


def completion(program: str, commands: Mapping[str, Verb], shell: str) -> str:
    """The script that completes a program.

    Args:
        program: As it is typed.
        commands: Its commands, by name.
        shell: bash, zsh, or another that shtab knows.
    """
    root = ArgumentParser(program)
    root.add_argument("--version", action="version", help="show the version")
    _add(root, commands)
    return shtab.complete(root, shell)


def _add(parser: ArgumentParser, verbs: Mapping[str, Verb]) -> None:
    below = parser.add_subparsers(parser_class=ArgumentParser)
    for name, verb in verbs.items():
        found = parser_of(name, verb)
        if isinstance(found, VerbParser):
            own = below.add_parser(name, help=verb.does)
            own.add_argument("--version", action="version", help="show the version")
            _add(own, found.verbs)
        else:
            own = below.add_parser(name, help=verb.does, parents=[found], add_help=False)
            _name_paths(own)


def _name_paths(parser: ArgumentParser) -> None:
    """Say which arguments are files and which are folders, by what the help calls them."""
    for action in parser._actions:
        if action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type is Path or action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
