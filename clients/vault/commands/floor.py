"""The verb for the owner's floor: write it if it is missing, and show it."""

from collections.abc import Sequence

from clients.vault.commands.options import add_owner
from clients.vault.consent.floor import make_floor, read_floor
from clients.vault.keys.keyring import open_vault
from clients.vault.layout import FLOOR
from fl_ppseg.system.command_line import Parser


def _floor(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    options = parser.parse_args(argv)
    vault = open_vault(options.vault, options.client)
    with vault.lock():
        made = make_floor(vault.folder)
    read_floor(vault.folder)
    path = vault.folder / FLOOR
    print(f"# {path}{': written, with the defaults' if made else ''}")
    print(path.read_text("utf-8"), end="")
    return 0


VERBS = {"floor": _floor}
