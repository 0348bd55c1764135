"""Options that several verbs share."""

from pathlib import Path

from fl_ppseg.config.client_names import deployed_name, folder_name
from fl_ppseg.system.command_line import Parser


def add_vault(parser: Parser, required: bool = True) -> None:
    """The option that names the folder of vaults."""
    parser.add_argument(
        "--vault", type=Path, required=required, metavar="DIR", help="folder of vaults, private"
    )


def add_client(parser: Parser, required: bool = True, *, deployed: bool = False) -> None:
    """The option that names the owner's client; --city is its spelling in earlier versions.

    Args:
        parser: Of the verb.
        required: Whether the verb needs it.
        deployed: Whether node and coordinator must accept the name too. Other verbs accept any
            name of a folder, so that keys of earlier versions stay usable.
    """
    parser.add_argument(
        "--client",
        "--city",
        type=deployed_name if deployed else folder_name,
        required=required,
        metavar="NAME",
        help="name of your client",
    )


def add_owner(parser: Parser, *, deployed: bool = False) -> None:
    """The options that name an owner's vault."""
    add_vault(parser)
    add_client(parser, deployed=deployed)


def add_node(parser: Parser, required: bool = True) -> None:
    """The option that names a node folder."""
    parser.add_argument(
        "--node", type=absolute, required=required, metavar="FOLDER", help="the node folder"
    )


def absolute(text: str) -> Path:
    """An absolute path, valid for other processes too."""
    return Path(text).absolute()
