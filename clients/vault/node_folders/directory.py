"""Safe access to a node folder for its owner's commands: marked as theirs, and free of links.

    <node>/owner.json    {"schema": 2, "client": ...}, written first; version 1 has "city"

A node folder comes back from rented machines, and `--out` may name any folder. A folder without the
marker is left alone; what the vault has not recorded is never removed.
"""

import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from pydantic import ConfigDict, TypeAdapter

from clients.policy.fresh_views import ROUNDS
from clients.policy.start_weights import START
from clients.vault.assignment import file_mode, folder_mode
from clients.vault.layout import PRIVATE, SHARDS
from clients.vault.node_folders.exports import ExportList, Kind
from fl_ppseg.config.names import ClientOrCity
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.plain_json import read_as

MARKER: Final = "owner.json"
MAX_BYTES: Final = 4096
SCHEMA: Final = 2
READABLE: Final = (1, SCHEMA)
"""Markers of version 1 are read: their folders may hold ciphertexts and embeddings that are nowhere
else, and are decrypted, verified and withdrawn as before."""
CONTENT: Final[tuple[Kind, ...]] = (SHARDS, PRIVATE, START)
"""What every node folder has a folder for."""
KINDS: Final[tuple[Kind, ...]] = (*CONTENT, ROUNDS)
LEFT: Final = re.compile(r"\..*\.tmp")
"""Incomplete files and folders that a killed command leaves."""


HALF: Final = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""Incomplete files that our own writer leaves when it is killed."""


@dataclass(frozen=True)
class Owner:
    """The marker of a node folder."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    schema: int
    client: ClientOrCity


_FORM = TypeAdapter(Owner)


def parse_owner(content: bytes, source: str) -> Owner:
    """Parse the marker in the bytes of a file.

    Raises:
        InputError: It is damaged, or of another version.
    """
    found = read_as(_FORM, content, f"{source}: damaged marker of a node folder", MAX_BYTES)
    if found.schema not in READABLE:
        raise InputError(f"{source}: expected version {SCHEMA}, got version {found.schema}")
    return found


class NodeDirectory:
    """An open node folder."""

    def __init__(self, folder: Directory, client: str) -> None:
        self.folder = folder
        self.client = client

    @classmethod
    @contextmanager
    def open(cls, path: Path, client: str | None = None) -> Iterator[Self]:
        """Open an existing node folder.

        Args:
            path: The folder.
            client: The client that it must belong to; None: any.

        Raises:
            InputError: It is not a node folder, belongs to another client or user, or holds a link.
        """
        with _open(path) as folder:
            found = _owner(folder)
            if found is None:
                raise InputError(
                    f"{path}: not a node folder ({MARKER} is missing); expected one that `encrypt "
                    "--out` made"
                )
            if client is not None and found.client != client:
                raise InputError(
                    f"{path}: is the node folder of {found.client}, not of {client}; check --node "
                    "and --client"
                )
            refuse_links(folder)
            yield cls(folder, found.client)

    @classmethod
    @contextmanager
    def prepare(
        cls, path: Path, client: str, readers: int | None, kinds: Collection[Kind] = CONTENT
    ) -> Iterator[Self]:
        """Open the node folder of a client; make it if it is missing.

        Args:
            path: The folder.
            client: The client that it belongs to.
            readers: Id of a group that may read it; None: only its owner may.
            kinds: What it has folders for.

        Raises:
            InputError: As `check`.
        """
        check(path, client)
        with Directory.open(path, make=0o700) as folder:
            group = -1 if readers is None else readers
            if _owner(folder) is None:
                folder.chown(group=group, mode=folder_mode(readers))
                text = json.dumps(asdict(Owner(SCHEMA, client)))
                folder.write(MARKER, text, file_mode(readers), group=readers, exclusive=True)
            for kind in kinds:
                folder.make_child(kind, folder_mode(readers), group=readers).close()
            yield cls(folder, client)

    def unnamed(self, named: Collection[Path]) -> list[Path]:
        """What lies among shards, private embeddings and start weights, but is not named.

        Args:
            named: Known folders by kind and digest, relative to the node folder.
        """
        return [path for _, path in self._unnamed(named)]

    def remove(
        self,
        recorded: ExportList,
        kept: Collection[Path] = (),
        kinds: Collection[Kind] = KINDS,
    ) -> list[Path]:
        """Remove what the vault recorded, and what killed commands left incomplete.

        Args:
            recorded: What the vault has exported.
            kept: Folders to keep, by kind and digest.
            kinds: What is looked at.

        Returns:
            The recorded folders that were removed.
        """
        gone = []
        for kind, path in self._unnamed(kept):
            name = path.name
            is_recorded = name in recorded.names(kind)
            if kind in kinds and (is_recorded or LEFT.fullmatch(name)):
                with self.folder.child(kind) as place:
                    place.remove_tree(name)
                gone += [path] * is_recorded
        for entry in self.folder.entries():
            if entry.kind == "file" and LEFT.fullmatch(entry.name):
                self.folder.remove(entry.name)
        return gone

    def grant(self, readers: int | None) -> None:
        """Give the readers' group access to all of it."""
        grant(self.folder, readers)

    def _unnamed(self, named: Collection[Path]) -> list[tuple[Kind, Path]]:
        found = ((kind, Path(kind, name)) for kind in KINDS for name in self._names(kind))
        return sorted(each for each in found if each[1] not in named)

    def _names(self, kind: Kind) -> list[str]:
        if self.folder.find(kind) is None:
            return []
        with self.folder.child(kind) as place:
            return [entry.name for entry in place.entries()]


def check(path: Path, client: str) -> None:
    """Check that a folder can be the node folder of a client; writes nothing.

    Raises:
        InputError: It is not empty and not a node folder, belongs to another client, holds a link,
            or somebody else could replace it.
    """
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(
            f"{path}: nothing can be written there ({there} is not a folder); choose another --out"
        )
    if there != path:
        Directory.open(there).close()
        return
    with _open(path) as folder:
        found = _owner(folder)
        if found is None and not _is_empty(folder):
            raise InputError(
                f"{path}: is not empty and not a node folder ({MARKER} is missing); choose a new "
                "or empty folder"
            )
        if found is not None and found.client != client:
            raise InputError(
                f"{path}: is the node folder of {found.client}, not of {client}; choose another "
                "--out"
            )
        refuse_links(folder)


def readers_of(path: Path) -> int | None:
    """Id of the group that may read a node folder; None if it has none or does not exist yet."""
    if not (path / MARKER).is_file():
        return None
    found = path.stat()
    return found.st_gid if stat.S_IMODE(found.st_mode) == 0o750 else None


def refuse_links(folder: Directory) -> None:
    """Check recursively that a folder contains only files and folders that its owner controls.

    Raises:
        InputError: There is a link, something that is neither file nor folder, or a folder that
            others could change.
    """
    for entry in folder.entries():
        if entry.kind == "folder":
            with folder.child(entry.name) as child:
                refuse_links(child)
        elif entry.kind != "file":
            what = "a link" if entry.kind == "link" else "neither file nor folder"
            raise InputError(
                f"{folder.path / entry.name}: is {what}, which does not belong in a node folder; "
                "find out who put it there, remove it, and check what else was changed"
            )


def grant(folder: Directory, readers: int | None) -> None:
    """Give the readers' group access to a folder and its content, unless it already has it."""
    found = os.fstat(folder.descriptor)
    _give(folder.descriptor, found, readers, folder_mode(readers))
    for entry in folder.entries():
        if entry.kind == "folder":
            with folder.child(entry.name) as child:
                grant(child, readers)
        elif entry.kind == "file":
            with folder.reading(entry.name) as file:
                _give(file.fileno(), entry.status, readers, file_mode(readers))


def _give(descriptor: int, found: os.stat_result, readers: int | None, mode: int) -> None:
    if readers is not None and found.st_gid != readers:
        os.fchown(descriptor, -1, readers)
    if stat.S_IMODE(found.st_mode) != mode:
        os.fchmod(descriptor, mode)


def _open(path: Path) -> Directory:
    """Open the folder itself, never through a link.

    Raises:
        InputError: It does not exist, or is not a folder that its owner controls.
    """
    try:
        return Directory.open(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such folder; expected an existing node folder") from None


def _is_empty(folder: Directory) -> bool:
    """Whether a folder is empty, except for an incomplete marker."""
    entries = folder.entries()
    return all(entry.kind == "file" and HALF.fullmatch(entry.name) for entry in entries)


def _owner(folder: Directory) -> Owner | None:
    if folder.find(MARKER) is None:
        return None
    content = folder.read(MARKER, MAX_BYTES, own=True)
    return parse_owner(content, str(folder.path / MARKER))
