"""A node folder as its owner's commands enter it: their own, marked as such, without any link.

    <node>/owner.json    {"schema": 1, "city": ...}, written first

A node folder comes back from rented machines, and `--out` may name any folder. What has no marker
is somebody's other folder, and is left alone; what the vault has not recorded is never removed.
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

from clients.policy.start_weights import START
from clients.vault.assignment import file_mode, folder_mode
from clients.vault.layout import PRIVATE, SHARDS
from clients.vault.node_folders.exports import Exports, Kind
from fl_ppseg.config.names import City
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.plain_json import read_as

MARKER: Final = "owner.json"
MAX_BYTES: Final = 4096
SCHEMA: Final = 1
CONTENT: Final[tuple[Kind, ...]] = (SHARDS, PRIVATE, START)
LEFT: Final = re.compile(r"\..*\.tmp")
"""What a command that was killed leaves: something that was not whole yet."""


HALF: Final = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""A file of ours that was not whole when its writer was killed."""


@dataclass(frozen=True)
class Owner:
    """What the marker of a node folder says."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    schema: int
    city: City


_FORM = TypeAdapter(Owner)


def parse_owner(content: bytes, source: str) -> Owner:
    """The marker in the bytes of a file.

    Raises:
        InputError: It is damaged, or of another version.
    """
    found = read_as(_FORM, content, f"{source}: damaged marker of a node folder", MAX_BYTES)
    if found.schema != SCHEMA:
        raise InputError(f"{source}: of version {found.schema}, expected {SCHEMA}")
    return found


class NodeDirectory:
    """An open node folder."""

    def __init__(self, folder: Directory, city: str) -> None:
        self.folder = folder
        self.city = city

    @classmethod
    @contextmanager
    def open(cls, path: Path, city: str | None = None) -> Iterator[Self]:
        """A node folder that is there.

        Args:
            path: The folder.
            city: Whose it is to be; None: anybody's.

        Raises:
            InputError: It is no node folder, of another city, somebody else's, or holds a link.
        """
        with _opened(path) as folder:
            found = _owner(folder)
            if found is None:
                raise InputError(
                    f"{path}: no node folder ({MARKER} is missing); expected what `encrypt --out` "
                    "made"
                )
            if city is not None and found.city != city:
                raise InputError(f"{path}: is the node folder of {found.city}, not of {city}")
            refuse_links(folder)
            yield cls(folder, found.city)

    @classmethod
    @contextmanager
    def prepare(cls, path: Path, city: str, readers: int | None) -> Iterator[Self]:
        """A node folder of a city, made where it is missing.

        Args:
            path: The folder.
            city: Whose it is.
            readers: Id of a group that may read it; None: nobody else may.

        Raises:
            InputError: As `check`.
        """
        check(path, city)
        with Directory.open(path, make=0o700) as folder:
            group = -1 if readers is None else readers
            if _owner(folder) is None:
                folder.chown(group=group, mode=folder_mode(readers))
                text = json.dumps(asdict(Owner(SCHEMA, city)))
                folder.write(MARKER, text, file_mode(readers), group=readers, exclusive=True)
            for kind in CONTENT:
                folder.make_child(kind, folder_mode(readers), group=readers).close()
            yield cls(folder, city)

    def unnamed(self, named: Collection[Path]) -> list[Path]:
        """What lies where shards, private embeddings and start weights do, and is none of these.

        Args:
            named: Folders by their kind and digest, from the node folder.
        """
        return [path for _, path in self._unnamed(named)]

    def remove(self, recorded: Exports, kept: Collection[Path] = ()) -> list[Path]:
        """Remove what the vault recorded, and what was not whole when a command was killed.

        Args:
            recorded: What the vault has handed over.
            kept: What stays, by its kind and digest.

        Returns:
            What was recorded and went.
        """
        gone = []
        for kind, path in self._unnamed(kept):
            name = path.name
            is_recorded = name in recorded.names(kind)
            if is_recorded or LEFT.fullmatch(name):
                with self.folder.child(kind) as place:
                    place.remove_tree(name)
                gone += [path] * is_recorded
        for entry in self.folder.entries():
            if entry.kind == "file" and LEFT.fullmatch(entry.name):
                self.folder.remove(entry.name)
        return gone

    def grant(self, readers: int | None) -> None:
        """Give all of it to those who may read it."""
        grant(self.folder, readers)

    def _unnamed(self, named: Collection[Path]) -> list[tuple[Kind, Path]]:
        found = ((kind, Path(kind, name)) for kind in CONTENT for name in self._names(kind))
        return sorted(each for each in found if each[1] not in named)

    def _names(self, kind: Kind) -> list[str]:
        if self.folder.find(kind) is None:
            return []
        with self.folder.child(kind) as place:
            return [entry.name for entry in place.entries()]


def check(path: Path, city: str) -> None:
    """Find out, without a trace, whether a folder can be the node folder of a city.

    Raises:
        InputError: It holds something and is no node folder of ours, is of another city, holds a
            link, or somebody else could replace it.
    """
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(f"{path}: nothing can be written there ({there} is no folder)")
    if there != path:
        Directory.open(there).close()
        return
    with _opened(path) as folder:
        found = _owner(folder)
        if found is None and not _is_empty(folder):
            raise InputError(
                f"{path}: holds something already and is no node folder ({MARKER} is missing); "
                "choose a new or empty folder"
            )
        if found is not None and found.city != city:
            raise InputError(
                f"{path}: is the node folder of {found.city}, not of {city}; choose another --out"
            )
        refuse_links(folder)


def readers_of(path: Path) -> int | None:
    """Id of the group that may read a node folder; None: it has none, or is not there yet."""
    if not (path / MARKER).is_file():
        return None
    found = path.stat()
    return found.st_gid if stat.S_IMODE(found.st_mode) == 0o750 else None


def refuse_links(folder: Directory) -> None:
    """See that a folder holds files and folders of its owner's alone, however deep.

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
                f"{folder.path / entry.name}: is {what}, and no node folder of ours holds any; "
                "look who put it there, remove it, and check what else was changed"
            )


def grant(folder: Directory, readers: int | None) -> None:
    """Give a folder and all that is in it to those who may read it, where it is not theirs yet."""
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


def _opened(path: Path) -> Directory:
    """The folder itself: whoever made a link of its name means another one."""
    try:
        return Directory.open(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such folder; expected a node folder") from None


def _is_empty(folder: Directory) -> bool:
    """Whether nothing lies in a folder, or no more than the half of a marker."""
    entries = folder.entries()
    return all(entry.kind == "file" and HALF.fullmatch(entry.name) for entry in entries)


def _owner(folder: Directory) -> Owner | None:
    if folder.find(MARKER) is None:
        return None
    content = folder.read(MARKER, MAX_BYTES, own=True)
    return parse_owner(content, str(folder.path / MARKER))
