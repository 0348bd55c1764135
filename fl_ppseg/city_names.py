"""What a city may be called: one rule for the machines of a federation, a wider one for folders.

A deployed city's name stands in file names, unit files and command lines of several machines: ASCII
letters, digits, dot, dash, underscore. In a simulation a city is a folder of a tree, and may have
any name that a folder has. Needs the standard library alone.
"""

import re
import unicodedata
from typing import Final

from fl_ppseg.errors import InputError

MAX_LETTERS: Final = 63
"""Of a deployed city's name, as of a host's."""
MAX_FOLDER_BYTES: Final = 255
"""Of any folder's name, as file systems have it."""
DEPLOYED: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_LETTERS - 1}}}")


def deployed_city(name: str) -> str:
    """A name that every machine of a federation takes, as it is.

    Raises:
        InputError: It is none; the message says what is wrong and suggests one.
    """
    if DEPLOYED.fullmatch(name):
        return name
    raise InputError(
        f"{_shown(name)} is no name of a city: expected 1 to {MAX_LETTERS} ASCII letters, digits, "
        f"dots, dashes and underscores, the first a letter or digit{_suggestion(name)}"
    )


def folder_city(name: str) -> str:
    """A name that a folder of a tree or a vault can have, as it is.

    Raises:
        InputError: It leads elsewhere, is hidden, or cannot be read on a terminal.
    """
    if is_folder_name(name):
        return name
    raise InputError(
        f"{_shown(name)} is no folder of a city: expected a plain, visible name such as aachen, "
        "without / and not beginning with a dot"
    )


def is_folder_name(name: str) -> bool:
    """Whether a folder of a city can be called so."""
    is_visible = name.isprintable() and bool(name.strip()) and not name.startswith(".")
    return is_visible and "/" not in name and len(name.encode()) <= MAX_FOLDER_BYTES


def _suggestion(name: str) -> str:
    """What to do, with a name that is near where there is one."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    kept = re.sub(r"[^A-Za-z0-9._-]", "", re.sub(r"\s+", "-", plain))
    near = kept.lstrip("._-")[:MAX_LETTERS]
    example = f" (for example {near})" if near else ""
    return f"; choose another{example}, and name the city's folders in the tree of images alike"


def _shown(name: str) -> str:
    """A name in a message: nothing that moves the cursor, nothing without end."""
    return ascii(name) if not name.isprintable() else repr(name if len(name) < 80 else name[:80])
