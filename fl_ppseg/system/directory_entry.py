"""What lies in a folder, each itself and not what it may point to."""

import os
import stat
from typing import Literal, NamedTuple

Kind = Literal["folder", "file", "link", "other"]


class Entry(NamedTuple):
    """Something in a folder, itself and not what it may point to."""

    name: str
    kind: Kind
    status: os.stat_result


def kind_of(mode: int) -> Kind:
    """The kind of what has a mode (`st_mode`)."""
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "other"
