"""Where a command may write, found out before the work: apart from keys, writable, and free."""

from pathlib import Path

from fl_ppseg.errors import InputError
from fl_ppseg.files import check_writable


def lie_apart(one: Path, other: Path) -> bool:
    """Whether neither of two folders lies in the other."""
    places = one.resolve(), other.resolve()
    return not any(a.is_relative_to(b) for a, b in (places, places[::-1]))


def check_apart(keys: Path, others: Path, options: str) -> None:
    """Find out whether keys lie apart from what is published or handed over.

    Args:
        keys: Folder of the vaults.
        others: Folder of results, or of what a node is given.
        options: What to choose another place with, e.g. `--vault-dir or --out`.

    Raises:
        InputError: One of the folders lies in the other.
    """
    if not lie_apart(keys, others):
        raise InputError(
            f"{keys} and {others} lie in one another, but keys must not lie with what others see; "
            f"choose another {options}"
        )


def check_vaults(folder: Path) -> None:
    """Find out whether keys can be kept in a folder that need not be there yet.

    Raises:
        InputError: They cannot.
    """
    try:
        check_writable(folder)
    except InputError as error:
        raise InputError(
            f"{str(error).removesuffix('; choose another folder')}; name a folder for the owners' "
            "keys and shards with --vault-dir (or set XDG_STATE_HOME)"
        ) from None


def check_file(path: Path) -> None:
    """Find out whether a new file can be written, in a folder that need not be there yet.

    Raises:
        InputError: It cannot.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    if path.exists():
        raise InputError(f"{path}: is there already; remove it, or choose another file")
    check_writable(path.parent)
