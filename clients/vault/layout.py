"""Which files a city's vault has: names, and how large each can be.

master.key                             the key of today
next.key                               the key of tomorrow, while a rotation is under way
destroyed.key                          what is left of a key, while a retirement is under way
manifests/<record>.json                salts of what the key of today encrypted
retired/<fingerprint>/master.key       a key of earlier
retired/<fingerprint>/manifests/...    and its salts
handed_over.json                       digests of what node folders got
floor.yaml                             what its owner never goes below
"""

import re
from typing import Final

KEY_FILE: Final = "master.key"
NEXT_KEY: Final = "next.key"
DESTROYED_KEY: Final = "destroyed.key"
RECORDS: Final = "manifests"
RETIRED: Final = "retired"
HANDED_OVER: Final = "handed_over.json"
FLOOR: Final = "floor.yaml"

RECORD_NAME: Final = re.compile(r"[0-9a-f]{32}")
FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")

MAX_KEY_BYTES: Final = 4096
"""Far more than a key file has; a larger one is none."""
MAX_RECORD_BYTES: Final = 2**28
"""Salts of some two million views."""

_RECORD = rf"{RECORDS}/{RECORD_NAME.pattern}\.json"
_RETIRED = rf"{RETIRED}/{FINGERPRINT.pattern}"
KEPT: Final = {
    re.compile(rf"({_RETIRED}/)?{re.escape(KEY_FILE)}"): MAX_KEY_BYTES,
    re.compile(rf"({_RETIRED}/)?{_RECORD}"): MAX_RECORD_BYTES,
    re.compile(re.escape(HANDED_OVER)): 2**26,
    re.compile(re.escape(FLOOR)): 2**20,
}
"""What a backup holds, each with the most bytes that it has."""


def kept_size(name: str) -> int | None:
    """The most bytes that a file of a backup has; None for a name that no backup of ours has.

    >>> kept_size("retired/0123456789abcdef/master.key"), kept_size("../master.key")
    (4096, None)
    """
    return next((size for pattern, size in KEPT.items() if pattern.fullmatch(name)), None)
