"""A command with verbs: `python -m <module> <verb> ...`, each verb with a parser of its own."""

from argparse import REMAINDER, SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fl_ppseg.system.command_line import ASK_FOR_PARSER, Parser, ParserFoundError

Act = Callable[[Parser, Sequence[str]], int]
"""Adds a verb's options to the parser, parses and acts; returns the exit status."""


class Verb(NamedTuple):
    """One verb of a command."""

    does: str
    """What it does, in a line."""
    main: Act


class VerbParser(Parser):
    """Parses the name of a verb; the rest of the arguments is the verb's."""

    def __init__(self, module: str, description: str, verbs: Mapping[str, Verb]) -> None:
        super().__init__(module, description)
        self.verbs = verbs
        width = max(map(len, verbs))
        table = "\n".join(f"  {name:{width}}  {verb.does}" for name, verb in verbs.items())
        self.formatter_class = RawDescriptionHelpFormatter
        self.usage = "%(prog)s [-h] [--version] VERB ..."
        self.epilog = f"verbs (each has -h):\n{table}"
        self.add_argument("verb", choices=list(verbs), metavar="VERB", help=SUPPRESS)
        self.add_argument("options", nargs=REMAINDER, metavar="...", help=SUPPRESS)


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
    given = VerbParser(module, description, verbs).parse_args(argv)
    verb = verbs[given.verb]
    own = Parser(f"{module} {given.verb}", f"{verb.does[0].upper()}{verb.does[1:]}.")
    return verb.main(own, given.options)


def parser_of(name: str, verb: Verb) -> Parser:
    """The parser that a verb reads its options with; the verb is not run.

    Args:
        name: What is typed.
        verb: A verb, or a command with verbs, whose parser is a `VerbParser`.
    """
    try:
        verb.main(Parser(name, verb.does), ASK_FOR_PARSER)
    except ParserFoundError as found:
        return found.parser
    raise AssertionError(f"{name} parses no arguments")
