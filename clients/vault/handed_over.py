"""What a vault handed over: the folders of a node folder that its owner's commands may remove.

    <vault>/<city>/handed_over.json    {"schema": 1, "shards": [digest, ...], "private": [...]}

A name stands there before the folder is made. What it does not name, no command removes: somebody
else may have put it into the node folder.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter

from clients.vault.assignment import PRIVATE, SHARDS, Assignment, folder_mode
from clients.vault.layout import HANDED_OVER
from fl_ppseg.directory import Directory
from fl_ppseg.errors import InputError
from fl_ppseg.manifest import Digest
from fl_ppseg.plain_json import read_as

MAX_BYTES: Final = 2**26
SCHEMA: Final = 1

Kind = Literal["shards", "private"]


@dataclass(frozen=True)
class HandedOver:
    """Digests of what lies, or lay, in node folders."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    schema: int
    shards: Sequence[Digest] = ()
    private: Sequence[Digest] = ()

    def names(self, kind: Kind) -> frozenset[str]:
        """Digests of a kind."""
        return frozenset(self.shards if kind == "shards" else self.private)


_FORM = TypeAdapter(HandedOver)


def parse_handed_over(content: bytes, source: str) -> HandedOver:
    """What the bytes of a file say.

    Raises:
        InputError: It is damaged, or of another version.
    """
    found = read_as(_FORM, content, f"{source}: damaged list of what was handed over", MAX_BYTES)
    if found.schema != SCHEMA:
        raise InputError(f"{source}: of version {found.schema}, expected {SCHEMA}")
    return found


def handed_over(vault: Path) -> HandedOver:
    """What a vault has handed over.

    Args:
        vault: A city's vault.

    Raises:
        InputError: The file is damaged, or another user's.
    """
    with Directory.open(vault) as folder:
        if folder.find(HANDED_OVER) is None:
            return HandedOver(SCHEMA)
        content = folder.read(HANDED_OVER, MAX_BYTES, own=True)
    return parse_handed_over(content, str(vault / HANDED_OVER))


def note(vault: Path, kind: Kind, digest: str) -> None:
    """Record a folder that is about to be made; the caller holds the vault's lock."""
    before = handed_over(vault)
    if digest in before.names(kind):
        return
    names = sorted({*before.names(kind), digest})
    after = replace(before, shards=names) if kind == SHARDS else replace(before, private=names)
    with Directory.open(vault) as folder:
        folder.write(HANDED_OVER, json.dumps(asdict(after)))


def private_place(vault: Path, job: Assignment, digest: str) -> Path:
    """The folder of a private embedding, recorded where it is handed over, then made."""
    folder, mode = job.private_folder(digest), folder_mode(job.readers)
    if job.out is not None:
        note(vault, PRIVATE, digest)
    with Directory.open(folder.parent, make=mode) as parent:
        parent.make_child(folder.name, mode, group=job.readers).close()
    return folder
