"""Where everything lies in a city's vault: names, and how large what a backup keeps can be.

master.key                             the key of today
next.key                               the key of tomorrow, while a rotation is under way
destroyed.key                          what is left of a key, while a retirement is under way
manifests/<record>.json                salts of what the key of today encrypted
retired/<fingerprint>/master.key       a key of earlier
retired/<fingerprint>/manifests/...    and its salts
handed_over.json                       digests of what node folders got
floor.yaml                             what its owner never goes below
drafts/<digest>/                       shards that are being encrypted
decrypting                             where plain images are being written to, meanwhile
simulation.json                        a simulation made this vault, and no `vault new`
shards/<digest>/                       of a simulation: encrypted shards, as in a node folder
private/<digest>/                      of a simulation: private embeddings, there too
"""

import re
from pathlib import Path
from typing import Final

KEY_FILE: Final = "master.key"
NEXT_KEY: Final = "next.key"
DESTROYED_KEY: Final = "destroyed.key"
RECORDS: Final = "manifests"
RETIRED: Final = "retired"
HANDED_OVER: Final = "handed_over.json"
FLOOR: Final = "floor.yaml"
LOCK: Final = ".lock"
DRAFTS: Final = "drafts"
DECRYPTING: Final = "decrypting"
MARK: Final = "simulation.json"
SHARDS: Final = "shards"
PRIVATE: Final = "private"
SHARED: Final = ".shared"
"""In the folder of vaults: one of no city, with the key that all share in a comparison."""

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


def record_file(place: Path, name: str) -> Path:
    """A record, or the salt of a shared key, beside the master key in a folder."""
    return place / RECORDS / f"{name}.json"


def record_files(place: Path) -> list[Path]:
    """All of them, sorted."""
    return sorted((place / RECORDS).glob("*.json"))
