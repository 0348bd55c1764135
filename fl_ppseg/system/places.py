"""Checks of the folders that a command writes to: apart from keys, writable and not taken."""

from pathlib import Path
from typing import Final

from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import check_writable

KEYS_APART: Final = "keys must be kept apart from what others see"
"""Why vaults lie apart from results and from what is handed over."""


def check_apart(one: Path, other: Path, options: str, why: str = KEYS_APART) -> None:
    """Check that neither of two folders contains the other.

    Args:
        one: Folder of the vaults, or whatever must lie apart.
        other: Folder of results, or of what a node is given.
        options: What to choose another place with, e.g. `--vault-dir or --out`.
        why: The reason, as the end of a sentence.

    Raises:
        InputError: One of the folders lies in the other.
    """
    places = one.resolve(), other.resolve()
    if any(a.is_relative_to(b) for a, b in (places, places[::-1])):
        raise InputError(
            f"{one} and {other} must not contain each other: {why}; choose another {options}"
        )


def check_run(vault_dir: Path, run: Path) -> None:
    """Check that a simulation can write its vaults and its run folder, before it does.

    Raises:
        InputError: They do not lie apart, or one of them cannot be written.
    """
    check_apart(vault_dir, run, "--vault-dir or --out")
    try:
        check_writable(vault_dir)
    except InputError as error:
        raise InputError(
            f"{str(error).removesuffix('; choose another folder')}; name a folder for the owners' "
            "keys and shards with --vault-dir (or set XDG_STATE_HOME)"
        ) from None
    check_writable(run)


def check_file(path: Path) -> None:
    """Check that a new file can be written, in a folder that need not be there yet.

    Raises:
        InputError: It cannot.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    if path.exists():
        raise InputError(f"{path}: exists already; remove it, or choose another file")
    check_writable(path.parent)
