"""Where Ray may put its sockets and logs: a folder of this user's alone, with a short name."""

import os
import tempfile
from pathlib import Path
from typing import Final

from fl_ppseg.system.errors import InputError

SOCKET_BYTES: Final = 107
"""The longest name of a Unix socket on Linux."""
RAYS_OWN: Final = 66
"""What Ray appends: `/session_<date>_<time>_<micros>_<pid>/sockets/plasma_store`, and some."""
ELSEWHERE: Final = ("/tmp", "/var/tmp")


def make_scratch() -> Path:
    """A new folder (0700) in TMPDIR, or in /tmp where sockets in TMPDIR would have too long names.

    Ray makes the folder that it is given open to all (1777): it gets one inside this one.

    Raises:
        InputError: There is no place with a name that is short enough.
    """
    usual = tempfile.gettempdir()
    for place in dict.fromkeys((usual, *ELSEWHERE)):
        if len(os.fsencode(place)) + len("/ray-12345678/r") + RAYS_OWN > SOCKET_BYTES:
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="ray-", dir=place))
        except OSError:
            continue
    room = SOCKET_BYTES - RAYS_OWN - len("/ray-12345678/r")
    raise InputError(
        f"TMPDIR {usual!r} is too long for Ray's sockets (at most {room} bytes) and nothing can be "
        "written in /tmp; set TMPDIR to a shorter folder, or use --engine in-process"
    )
