"""What simulations keep on the owners' side: for which runs, in whose vaults, and how large it is.

    <vaults>/.nodes/<run>/run.json          the run folder that the policies beside it belong to
    <vaults>/.nodes/<run>/node_*.yaml       they name shards and private embeddings by their digest
    <vaults>/<city>/simulation.json         a simulation made this vault, and no `vault new`
    <vaults>/<city>/shards, private         of any run that names them
    <vaults>/.preparing                     held by simulations while they prepare

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

from clients.policy.policy import NODES, is_policy, nodes_folder
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
    """What is kept for one run."""

    name: str
    """Of its folder under `.nodes`."""
    path: Path | None
    """Its run folder; None: an earlier version made it, and did not write that down."""
    seconds: float
    """Since it was prepared last."""
    named: frozenset[tuple[str, str]]
    """Kind and digest of all that its policies name."""

    @property
    def is_gone(self) -> bool:
        """Whether its run folder is known and there no more."""
        return self.path is not None and not self.path.exists()


class Kept(NamedTuple):
    """An encrypted shard or a private embedding."""

    city: str
    kind: str
    digest: str


@contextmanager
def preparing(vault_dir: Path, run: Path) -> Iterator[None]:
    """While a simulation prepares, nothing is cleared that it may find; then its run is noted.

    Args:
        vault_dir: The folder of vaults.
        run: The run folder.

    Raises:
        InputError: The folder of vaults cannot be written, or is another user's.
    """
    with _held(vault_dir, fcntl.LOCK_SH):
        yield
        nodes = nodes_folder(vault_dir, run)
        if nodes.is_dir():
            note = {"schema": SCHEMA, "run": str(run.resolve())}
            write_atomically(nodes / NOTE, json.dumps(note) + "\n", mode=0o600)


@contextmanager
def clearing(vault_dir: Path) -> Iterator[None]:
    """While things are cleared, no simulation prepares.

    Raises:
        InputError: One does.
    """
    try:
        with _held(vault_dir, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError:
        raise InputError(
            f"{vault_dir}: a simulation is being prepared with these vaults; wait until it trains"
        ) from None


def mark(vault: Path) -> None:
    """Note in a vault that is empty yet that a simulation makes it. The caller has its lock."""
    with Directory.open(vault) as folder:
        if {entry.name for entry in folder.entries()} <= {LOCK}:
            note = json.dumps({"schema": SCHEMA, "by": "fl_ppseg.simulate"})
            folder.write(MARK, note + "\n", exclusive=True)


def runs_in(vaults: Directory) -> list[Run]:
    """Runs that something is kept for, newest first."""
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


def kept_in(vaults: Directory) -> dict[Kept, int]:
    """Bytes of every shard and private embedding in the vaults."""
    found = {}
    for city in cities_in(vaults):
        with vaults.child(city) as vault:
            for kind in KINDS:
                if vault.find(kind) is None:
                    continue
                with vault.child(kind) as folder:
                    for entry in folder.entries():
                        if entry.kind == "folder" and DIGEST.fullmatch(entry.name):
                            with folder.child(entry.name) as one:
                                found[Kept(city, kind, entry.name)] = num_bytes(one)
    return found


def cities_in(vaults: Directory) -> list[str]:
    """Names of the cities that have a vault."""
    return [
        entry.name
        for entry in vaults.entries()
        if entry.kind == "folder" and not entry.name.startswith(".")
    ]


def is_marked(vault: Directory) -> bool:
    """Whether a simulation made a vault, so that its keys are nobody's."""
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
    """What a folder under `.nodes` says; None where it is none of ours."""
    names = [entry.name for entry in place.entries() if entry.kind == "file"]
    policies = [name for name in names if is_policy(name)]
    if not policies and NOTE not in names:
        return None
    named = {
        (kind.decode(), digest.decode())
        for name in policies
        for kind, digest in _NAMED.findall(place.read(name, MAX_POLICY_BYTES))
    }
    return Run(place.path.name, _noted(place), max(0.0, seconds), frozenset(named))


def _noted(place: Directory) -> Path | None:
    """The run folder that was written down."""
    try:
        values = parse_json(place.read(NOTE, 2**16), NOTE)
    except (OSError, InputError):
        return None
    run = values.get("run") if isinstance(values, dict) else None
    if not isinstance(run, str) or not run.startswith("/") or "\0" in run:
        return None
    return Path(run)


@contextmanager
def _held(vault_dir: Path, how: int) -> Iterator[None]:
    try:
        path = make_private_folder(vault_dir) / PREPARING
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(
            f"{vault_dir}: keys and encrypted images of a simulation go there, but it cannot be "
            f"written ({error.strerror}); give another --vault-dir, or set XDG_STATE_HOME"
        ) from None
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
