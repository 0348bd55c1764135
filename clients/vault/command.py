"""The owner's command: which commands there are, and how they are found."""

import argparse
from collections.abc import Sequence

from clients.vault.commands import images, keys, nodes
from fl_ppseg.command_line import Parser, log_to

DESCRIPTION = """\
For the owner of the images, on a machine of its own: make a key, encrypt images for a training
node, look after both. Keys never leave the vault; the node gets a folder without any.
"""


class CommandParser(Parser):
    """The parser of one command; most options have no default to speak of."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog.removeprefix("python -m "), description)
        self.formatter_class = argparse.HelpFormatter


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns its exit status."""
    parser = Parser("clients.vault", DESCRIPTION)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=CommandParser
    )
    for group in (keys, images, nodes):
        group.add_commands(commands)
    options = parser.parse_args(argv)
    log_to(None)
    options.command(options)
    return 0
