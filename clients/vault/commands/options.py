"""Options that several verbs share."""

from pathlib import Path

from fl_ppseg.config.city_names import deployed_city, folder_city
from fl_ppseg.system.command_line import Parser


def add_vault(parser: Parser, required: bool = True) -> None:
    """The option that names the folder of vaults."""
    parser.add_argument(
        "--vault", type=Path, required=required, metavar="DIR", help="folder of vaults, private"
    )


def add_city(parser: Parser, required: bool = True, *, deployed: bool = False) -> None:
    """The option that names the owner's city.

    Args:
        parser: Of the verb.
        required: Whether the verb needs it.
        deployed: Whether node and coordinator must accept the name too. Other verbs accept any
            name of a folder, so that keys of earlier versions stay usable.
    """
    parser.add_argument(
        "--city",
        type=deployed_city if deployed else folder_city,
        required=required,
        metavar="NAME",
        help="your city, the owner of the images",
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
    """An absolute path, valid for other processes too."""
    return Path(text).absolute()
