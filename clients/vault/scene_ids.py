"""Ids of scenes: `split/city/stem`, three plain file names, wherever they are read."""

from typing import Final

from fl_ppseg.errors import InputError

MAX_BYTES: Final = 200
"""Of each name: a suffix and a number of a view have to fit into a file's name too."""


def split_scene_id(text: str) -> tuple[str, str, str]:
    """Split, city and stem of a scene.

    Raises:
        InputError: It is no id: it could lead to another folder, or cannot be a file's name.
    """
    names = text.split("/")
    if len(names) != 3 or not all(map(_is_plain, names)):
        raise InputError(
            f"{ascii(text)[:100]}: no id of a scene; expected split/city/stem, three plain names; "
            "the vault was changed, so restore its backup"
        )
    split, city, stem = names
    return split, city, stem


def _is_plain(name: str) -> bool:
    """Whether a name leads nowhere else, is visible and has room in a file's name."""
    is_visible = name.isprintable() and bool(name.strip()) and not name.startswith(".")
    return is_visible and len(name.encode("utf-8", "replace")) <= MAX_BYTES
