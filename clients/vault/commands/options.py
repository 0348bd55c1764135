"""What the verbs' options have in common."""

from pathlib import Path

from fl_ppseg.command_line import Parser
from fl_ppseg.errors import InputError


def add_vault(parser: Parser, required: bool = True) -> None:
    """The option that names the folder of vaults."""
    parser.add_argument(
        "--vault", type=Path, required=required, metavar="DIR", help="folder of vaults, yours alone"
    )


def add_city(parser: Parser, required: bool = True) -> None:
    """The option that names the owner's city."""
    parser.add_argument(
        "--city", type=city_name, required=required, metavar="NAME", help="whose images: your city"
    )


def add_owner(parser: Parser) -> None:
    """The options that name an owner's vault."""
    add_vault(parser)
    add_city(parser)


def add_node(parser: Parser, required: bool = True) -> None:
    """The option that names a node folder."""
    parser.add_argument(
        "--node", type=absolute, required=required, metavar="FOLDER", help="the node folder"
    )


def absolute(text: str) -> Path:
    """A path as it stays when somebody else reads it."""
    return Path(text).absolute()


def city_name(text: str) -> str:
    """The name of a city, which is a folder's too.

    Raises:
        InputError: It cannot be one.
    """
    if not text.isprintable() or "/" in text or text.startswith(".") or not text.strip():
        raise InputError(f"--city {text!r} names no folder; give a plain name such as aachen")
    return text
