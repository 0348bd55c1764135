"""Inventory of what simulations store in vaults: for which runs, in which clients, and how large.

    <vaults>/.nodes/<run>/run.json          the run folder that the policies in this folder serve
    <vaults>/.nodes/<run>/node_*.yaml       policies, which name shards and private embeddings
    <vaults>/<client>/simulation.json         marks a vault that a simulation made, not `vault new`
    <vaults>/<client>/shards, private         used by every run that names them
    <vaults>/.preparing                     locked by simulations while they prepare

A simulation's vaults are its own, but several runs share what they have in common.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from clients.policy.node_policy import NODES, is_policy, nodes_folder
from clients.vault.layout import LOCK, MARK, PRIVATE, SHARDS
from fl_ppseg.config.documents import parse_json
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import make_private_folder, write_atomically

NOTE: Final = "run.json"
PREPARING: Final = ".preparing"
KINDS: Final = (SHARDS, PRIVATE)
SCHEMA: Final = 1

RUN_NAME: Final = re.compile(r".+-[0-9a-f]{12}")
DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_NAMED: Final = re.compile(f"({'|'.join(KINDS)})/([0-9a-f]{{32}})(?![0-9a-f])".encode())
MAX_POLICY_BYTES: Final = 2**26


class Run(NamedTuple):
    """What is stored for one run."""

    name: str
    """Name of its folder under `.nodes`."""
    path: Path | None
    """Its run folder; None if an earlier version made it, which did not record that."""
    seconds: float
    """Time since it was last prepared."""
    named: frozenset[tuple[str, str]]
    """Kind and digest of everything that its policies name."""

    @property
    def is_gone(self) -> bool:
        """Whether its run folder is known and no longer exists."""
        return self.path is not None and not self.path.exists()


class StoredFolder(NamedTuple):
    """The folder of an encrypted shard or a private embedding in a vault."""

    client: str
    kind: str
    digest: str


@contextmanager
def lock_for_preparation(vault_dir: Path, run: Path) -> Iterator[None]:
    """Lock vaults against clearing while a simulation prepares, then record its run folder.

    Args:
        vault_dir: The folder of vaults.
        run: The run folder.

    Raises:
        InputError: The folder of vaults cannot be written, or is another user's.
    """
    with _lock(vault_dir, fcntl.LOCK_SH):
        yield
        nodes = nodes_folder(vault_dir, run)
        if nodes.is_dir():
            note = {"schema": SCHEMA, "run": str(run.resolve())}
            write_atomically(nodes / NOTE, json.dumps(note) + "\n", mode=0o600)


@contextmanager
def lock_for_clearing(vault_dir: Path) -> Iterator[None]:
    """Lock vaults against preparation while they are cleared.

    Raises:
        InputError: A simulation is being prepared.
    """
    try:
        with _lock(vault_dir, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError:
        raise InputError(
            f"{vault_dir}: a simulation is being prepared with these vaults; wait until its "
            "training starts"
        ) from None


def mark_simulated(vault: Path) -> None:
    """Mark an empty vault as made by a simulation. The caller holds its lock."""
    with Directory.open(vault) as folder:
        if {entry.name for entry in folder.entries()} <= {LOCK}:
            note = json.dumps({"schema": SCHEMA, "by": "fl_ppseg.simulate"})
            folder.write(MARK, note + "\n", exclusive=True)


def runs_in(vaults: Directory) -> list[Run]:
    """Runs that something is stored for, newest first."""
    nodes = vaults.find(NODES)
    if nodes is None:
        return []
    found = []
    with vaults.child(NODES) as folder:
        for entry in folder.entries():
            if entry.kind == "folder" and RUN_NAME.fullmatch(entry.name):
                with folder.child(entry.name) as place:
                    run = _run(place, time.time() - entry.status.st_mtime)
                found += [run] if run is not None else []
    return sorted(found, key=lambda run: run.seconds)


def stored_folders(vaults: Directory) -> dict[StoredFolder, int]:
    """Every shard and private embedding in the vaults, with its size in bytes."""
    found = {}
    for client in clients_in(vaults):
        with vaults.child(client) as vault:
            for kind in KINDS:
                if vault.find(kind) is None:
                    continue
                with vault.child(kind) as folder:
                    for entry in folder.entries():
                        if entry.kind == "folder" and DIGEST.fullmatch(entry.name):
                            with folder.child(entry.name) as one:
                                found[StoredFolder(client, kind, entry.name)] = num_bytes(one)
    return found


def clients_in(vaults: Directory) -> list[str]:
    """Names of the clients that have a vault."""
    return [
        entry.name
        for entry in vaults.entries()
        if entry.kind == "folder" and not entry.name.startswith(".")
    ]


def is_marked(vault: Directory) -> bool:
    """Whether a simulation made a vault, so that its keys belong to no owner."""
    with suppress(OSError, InputError):
        values = parse_json(vault.read(MARK, 4096), MARK)
        return isinstance(values, dict) and values.get("schema") == SCHEMA
    return False


def num_bytes(folder: Directory) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for entry in folder.entries():
        if entry.kind == "folder":
            with folder.child(entry.name) as inner:
                total += num_bytes(inner)
        else:
            total += entry.status.st_size
    return total


def _run(place: Directory, seconds: float) -> Run | None:
    """The run of a folder under `.nodes`; None if the folder is not a run's."""
    names = [entry.name for entry in place.entries() if entry.kind == "file"]
    policies = [name for name in names if is_policy(name)]
    if not policies and NOTE not in names:
        return None
    named = {
        (kind.decode(), digest.decode())
        for name in policies
        for kind, digest in _NAMED.findall(place.read(name, MAX_POLICY_BYTES))
    }
    return Run(place.path.name, _read_note(place), max(0.0, seconds), frozenset(named))


def _read_note(place: Directory) -> Path | None:
    """The run folder that was recorded; None if it was not, or cannot be read."""
    try:
        values = parse_json(place.read(NOTE, 2**16), NOTE)
    except (OSError, InputError):
        return None
    run = values.get("run") if isinstance(values, dict) else None
    if not isinstance(run, str) or not run.startswith("/") or "\0" in run:
        return None
    return Path(run)


@contextmanager
def _lock(vault_dir: Path, how: int) -> Iterator[None]:
    try:
        path = make_private_folder(vault_dir) / PREPARING
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(
            f"{vault_dir}: cannot be written ({error.strerror}), but keys and encrypted images of "
            "a simulation go there; give another --vault-dir, or set XDG_STATE_HOME"
        ) from None
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
