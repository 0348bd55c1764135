"""What the verbs' options have in common."""

from pathlib import Path

from fl_ppseg.config.city_names import deployed_city, folder_city
from fl_ppseg.system.command_line import Parser


def add_vault(parser: Parser, required: bool = True) -> None:
    """The option that names the folder of vaults."""
    parser.add_argument(
        "--vault", type=Path, required=required, metavar="DIR", help="folder of vaults, yours alone"
    )


def add_city(parser: Parser, required: bool = True, *, deployed: bool = False) -> None:
    """The option that names the owner's city.

    Args:
        parser: Of the verb.
        required: Whether the verb needs it.
        deployed: Whether node and coordinator have to take the name too. Other verbs take what a
            folder can be called: keys of earlier versions stay of use.
    """
    parser.add_argument(
        "--city",
        type=deployed_city if deployed else folder_city,
        required=required,
        metavar="NAME",
        help="whose images: your city",
    )


def add_owner(parser: Parser, *, deployed: bool = False) -> None:
    """The options that name an owner's vault."""
    add_vault(parser)
    add_city(parser, deployed=deployed)


def add_node(parser: Parser, required: bool = True) -> None:
    """The option that names a node folder."""
    parser.add_argument(
        "--node", type=absolute, required=required, metavar="FOLDER", help="the node folder"
    )


def absolute(text: str) -> Path:
    """A path as it stays when somebody else reads it."""
    return Path(text).absolute()
