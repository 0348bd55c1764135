"""What a vault exported: the folders in a node folder that its owner's commands may remove.

    <vault>/<client>/handed_over.json    {"schema": 1, "shards": {digest: [record, ...]},
                                        "private": [digest, ...], "start": [digest, ...]}

A name is recorded before the folder is made. What is not recorded is never removed: somebody else
may have put it into the node folder. The vault itself knows which salts belong to a shard; it does
not trust the node folder for that.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter

from clients.vault.assignment import Assignment, folder_mode
from clients.vault.layout import HANDED_OVER
from fl_ppseg.data.manifest import Digest
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.plain_json import read_as

MAX_BYTES: Final = 2**26
SCHEMA: Final = 1

Kind = Literal["shards", "private", "start", "rounds"]


@dataclass(frozen=True)
class ExportList:
    """Digests of what was exported to node folders. A shard has a list of its records of salts: one
    for each time that it was encrypted, none if no key is derived."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    schema: int
    shards: Mapping[Digest, Sequence[Digest]]
    private: Sequence[Digest]
    start: Sequence[Digest] = ()

    def names(self, kind: Kind) -> frozenset[str]:
        """Digests of a kind; shards of rounds are shards."""
        shards = {"shards": self.shards, "rounds": self.shards}
        return frozenset({**shards, "private": self.private, "start": self.start}[kind])


_FORM = TypeAdapter(ExportList)


def parse_exports(content: bytes, source: str) -> ExportList:
    """Parse the bytes of a file.

    Raises:
        InputError: It is damaged, or of another version.
    """
    found = read_as(_FORM, content, f"{source}: damaged list of exports", MAX_BYTES)
    if found.schema != SCHEMA:
        raise InputError(f"{source}: expected version {SCHEMA}, got version {found.schema}")
    return found


def read_exports(vault: Path) -> ExportList:
    """Read what a vault has exported.

    Args:
        vault: A client's vault.

    Raises:
        InputError: The file is damaged, or another user's.
    """
    with Directory.open(vault) as folder:
        if folder.find(HANDED_OVER) is None:
            return ExportList(SCHEMA, {}, ())
        content = folder.read(HANDED_OVER, MAX_BYTES, own=True)
    return parse_exports(content, str(vault / HANDED_OVER))


def record_shard(vault: Path, digest: str, record: str | None) -> None:
    """Record a shard that is about to be exported, with the name of its record of salts."""
    before = read_exports(vault)
    known = before.shards.get(digest, ())
    if digest not in before.shards or (record is not None and record not in known):
        records = [*known, *([] if record is None else [record])]
        _write(vault, replace(before, shards={**before.shards, digest: records}))


def record_private(vault: Path, digest: str) -> None:
    """Record a private embedding that is about to be exported."""
    before = read_exports(vault)
    if digest not in before.private:
        _write(vault, replace(before, private=[*before.private, digest]))


def record_start(vault: Path, digest: str) -> None:
    """Record start weights that are about to be exported."""
    before = read_exports(vault)
    if digest not in before.start:
        _write(vault, replace(before, start=[*before.start, digest]))


def record_mismatch(vault: Path, digest: str, record: str | None) -> str | None:
    """Why a shard is not the exported one, judged by its record of salts; None if it is."""
    known = read_exports(vault).shards.get(digest)
    if known is None or (record in known if record is not None else not known):
        return None
    expected = ", ".join(known) or "none"
    return f"expected the salts {expected}, got {record}; the shard was changed after its export"


def _write(vault: Path, content: ExportList) -> None:
    with Directory.open(vault) as folder:
        folder.write(HANDED_OVER, json.dumps(asdict(content)))


def make_private_folder(vault: Path, job: Assignment, digest: str) -> Path:
    """Make the folder of a private embedding; one that is exported is recorded first."""
    folder, mode = job.private_folder(digest), folder_mode(job.readers)
    if job.out is not None:
        record_private(vault, digest)
    with Directory.open(folder.parent, make=mode) as parent:
        parent.make_child(folder.name, mode, group=job.readers).close()
    return folder
