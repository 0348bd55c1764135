"""A command with verbs: `python -m <module> <verb> ...`, each verb with a parser of its own."""

from argparse import REMAINDER, SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fl_ppseg.system.command_line import Parser

Act = Callable[[Parser, Sequence[str]], int]
"""Adds a verb's options to the parser, parses and acts; returns the exit status."""


class Verb(NamedTuple):
    """One verb of a command."""

    does: str
    """What it does, in a line."""
    main: Act


def dispatch(
    module: str, description: str, verbs: Mapping[str, Verb], argv: Sequence[str] | None
) -> int:
    """Run the verb that the arguments name.

    Args:
        module: What stands behind `python -m`.
        description: Of the whole command.
        verbs: By name, in the order in which a person needs them.
        argv: Arguments without the program's name; None reads `sys.argv`.

    Returns:
        The exit status of the verb.

    Raises:
        InputError: The verb does not exist.
    """
    width = max(map(len, verbs))
    table = "\n".join(f"  {name:{width}}  {verb.does}" for name, verb in verbs.items())
    parser = Parser(module, description)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.usage = "%(prog)s [-h] VERB ..."
    parser.epilog = f"verbs (each has -h):\n{table}"
    parser.add_argument("verb", choices=list(verbs), metavar="VERB", help=SUPPRESS)
    parser.add_argument("options", nargs=REMAINDER, metavar="...", help=SUPPRESS)
    given = parser.parse_args(argv)
    verb = verbs[given.verb]
    own = Parser(f"{module} {given.verb}", f"{verb.does[0].upper()}{verb.does[1:]}.")
    return verb.main(own, given.options)
