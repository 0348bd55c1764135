"""What a client may be called; every door asks here, before any work.

A client's name is that of its folder in a tree of images, part of file names and a word in
messages: one visible line, as long as the narrowest of them takes. Where owners work on machines of
their own, its name also stands in unit files, certificates and command lines of several machines:
ASCII letters, digits, dot, dash, underscore, from `vault new` on. Needs the standard library alone.
"""

import re
import unicodedata
from typing import Final

from fl_ppseg.system.errors import InputError

MAX_LETTERS: Final = 63
"""Of a deployed client's name, as of a host's."""
MAX_CHARACTERS: Final = 100
"""Of any client's name, as messages have it."""
MAX_FILE_BYTES: Final = 255
"""Of any file's name, as file systems have it."""
MAX_BYTES: Final = MAX_FILE_BYTES - len(".npy")
"""Of any client's name: arrays of a shard are called after it."""
_DEPLOYED: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_LETTERS - 1}}}")


def deployed_name(name: str) -> str:
    """A name that every machine of a federation takes, as it is.

    Raises:
        InputError: It is none; the message says what is wrong and suggests one.
    """
    if _DEPLOYED.fullmatch(name):
        return name
    raise InputError(
        f"{_shown(name)} is not the name of a client: expected 1 to {MAX_LETTERS} ASCII "
        f"letters, digits, "
        f"dots, dashes and underscores, the first a letter or digit{_suggestion(name)}"
    )


def folder_name(name: str) -> str:
    """A name that a folder of a tree or a vault can have, as it is.

    Raises:
        InputError: It leads elsewhere, is hidden, or cannot be read on a terminal.
    """
    if is_client_name(name):
        return name
    raise InputError(
        f"{_shown(name)} is not the name of a folder: expected a plain, visible name such as "
        f"aachen, without /, not beginning with a dot, of at most {MAX_CHARACTERS} characters and "
        f"{MAX_BYTES} bytes"
    )


def is_client_name(name: str) -> bool:
    """Whether a client can be called so in a simulation, a tree, a vault, a shard and a message."""
    return len(name) <= MAX_CHARACTERS and is_file_name(name) and len(name.encode()) <= MAX_BYTES


def is_file_name(name: str) -> bool:
    """Whether it is visible, and leads nowhere else, as part of a path."""
    is_visible = name.isprintable() and bool(name.strip()) and not name.startswith(".")
    return is_visible and "/" not in name and len(name.encode()) <= MAX_FILE_BYTES


def folded(name: str) -> str:
    """Equal for names that a person, or a disk, may take for one.

    >>> folded("K\u00d6LN") == folded("ko\u0308ln")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _suggestion(name: str) -> str:
    """What to do, with a name that is near where there is one."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    kept = re.sub(r"[^A-Za-z0-9._-]", "", re.sub(r"\s+", "-", plain))
    near = kept.lstrip("._-")[:MAX_LETTERS]
    example = f" (for example {near})" if near else ""
    alike = "and name the client's folders in the tree of images alike"
    return f"; choose another{example}, {alike}"


def _shown(name: str) -> str:
    """A name in a message: nothing that moves the cursor, nothing without end."""
    return ascii(name) if not name.isprintable() else repr(name if len(name) < 80 else name[:80])
