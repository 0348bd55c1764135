"""Layout of a client's vault: file names, and size limits of what a backup contains.

master.key                             the current key
next.key                               the new key, while a rotation is under way
destroyed.key                          what is left of a key, while a retirement is under way
manifests/<record>.json                salts of what the current key encrypted
retired/<fingerprint>/master.key       a retired key
retired/<fingerprint>/manifests/...    and its salts
handed_over.json                       digests of what was exported to node folders
cohort.key                             what its node signs and masks with in secure aggregation
floor.yaml                             the least protection that its owner accepts
drafts/<digest>/                       shards that are being encrypted
decrypting                             where plain images are being written to, meanwhile
simulation.json                        marks a vault that a simulation made, not `vault new`
shards/<digest>/                       in a simulation: encrypted shards, as in a node folder
private/<digest>/                      in a simulation: private embeddings
"""

import re
from pathlib import Path
from typing import Final

from clients.policy import cohort_key

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
"""In the folder of vaults: belongs to no client, holds the key that all share in a comparison."""

RECORD_NAME: Final = re.compile(r"[0-9a-f]{32}")
FINGERPRINT: Final = re.compile(r"[0-9a-f]{16}")

MAX_KEY_BYTES: Final = 4096
"""Far more than a key file has; a larger one is rejected."""
MAX_RECORD_BYTES: Final = 2**28
"""Room for the salts of some two million views."""

_RECORD = rf"{RECORDS}/{RECORD_NAME.pattern}\.json"
_RETIRED = rf"{RETIRED}/{FINGERPRINT.pattern}"
KEPT: Final = {
    re.compile(rf"({_RETIRED}/)?{re.escape(KEY_FILE)}"): MAX_KEY_BYTES,
    re.compile(rf"({_RETIRED}/)?{_RECORD}"): MAX_RECORD_BYTES,
    re.compile(re.escape(HANDED_OVER)): 2**26,
    re.compile(re.escape(FLOOR)): 2**20,
    re.compile(re.escape(cohort_key.COHORT_KEY)): MAX_KEY_BYTES,
}
"""Files that a backup contains, with the maximum size of each."""


def kept_size(name: str) -> int | None:
    """Maximum size of a file in a backup; None for a name that cannot be in a backup.

    >>> kept_size("retired/0123456789abcdef/master.key"), kept_size("../master.key")
    (4096, None)
    """
    return next((size for pattern, size in KEPT.items() if pattern.fullmatch(name)), None)


def record_file(place: Path, name: str) -> Path:
    """The path of a record, or of the salt of a shared key, in the folder of its master key."""
    return place / RECORDS / f"{name}.json"


def record_files(place: Path) -> list[Path]:
    """The paths of all records and salts in a folder, sorted."""
    return sorted((place / RECORDS).glob("*.json"))
