"""Clears past simulations: what only their policies name, then the policies.

Only what is recognised is removed: folders named by 32 hex digits in `shards` and `private`, and
whole vaults that a simulation made and marked. A vault that an owner made keeps its keys and
records, and so does an unmarked one of an earlier version. No link is followed, and the next call
completes an interrupted one.
"""

import fcntl
import os
import re
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final, NamedTuple

from clients.policy.cohort_key import COHORT_KEY
from clients.policy.node_policy import NODES
from clients.vault.keys.erasure import erase
from clients.vault.keys.keyring import Vault
from clients.vault.layout import (
    FLOOR,
    HANDED_OVER,
    KEY_FILE,
    LOCK,
    MARK,
    NEXT_KEY,
    RECORDS,
    RETIRED,
    SHARED,
)
from clients.vault.simulations.inventory import (
    KINDS,
    Run,
    StoredFolder,
    clients_in,
    is_marked,
    lock_for_clearing,
    runs_in,
    stored_folders,
)
from fl_ppseg.data.manifest import read_manifest
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError

ORPHAN_SECONDS: Final = 86400
"""Minimum age of a shard that no policy names, left by an interrupted preparation."""
GONE: Final = re.compile(r"\.gone-[0-9a-f]{16}")
"""Folders that are being removed."""
OURS: Final = {LOCK, MARK, KEY_FILE, COHORT_KEY, RECORDS, *KINDS}
"""What a simulation writes into a vault that it made; a vault with anything else is kept."""
OWNERS: Final = (FLOOR, HANDED_OVER, RETIRED, NEXT_KEY)
"""What only an owner's commands write."""


class Clearance(NamedTuple):
    """What a clearance removes."""

    runs: list[Run]
    folders: dict[StoredFolder, int]
    """Shards and private embeddings, with their sizes in bytes."""

    @property
    def num_bytes(self) -> int:
        """Bytes that are freed."""
        return sum(self.folders.values())


def plan_clearance(vaults: Directory, names: Collection[str]) -> Clearance:
    """What clearing some runs would remove.

    Args:
        vaults: The folder of vaults.
        names: Names of runs, as in `runs_in`.

    Raises:
        InputError: One of the runs is in use.
    """
    runs = runs_in(vaults)
    chosen = [run for run in runs if run.name in names]
    for run in chosen:
        _refuse_running(run)
    needed = {each for run in runs if run.name not in names for each in run.named}
    to_remove = {each for run in chosen for each in run.named} - needed
    found = {
        stored: size
        for stored, size in stored_folders(vaults).items()
        if (stored.kind, stored.digest) in to_remove
        or ((stored.kind, stored.digest) not in needed and _is_orphan(vaults, stored))
    }
    return Clearance(chosen, found)


def clear(vaults: Directory, names: Collection[str]) -> tuple[Clearance, list[str]]:
    """Remove what `plan_clearance` lists, and simulated vaults that are empty afterwards.

    Returns:
        What was removed, and the clients whose vaults were removed.

    Raises:
        InputError: A simulation is being prepared, or one of the runs is in use.
    """
    with lock_for_clearing(vaults.path):
        _sweep(vaults)
        plan = plan_clearance(vaults, names)
        for client in sorted({stored.client for stored in plan.folders}):
            _clear_vault(
                vaults, client, [stored for stored in plan.folders if stored.client == client]
            )
        gone = [client for client in clients_in(vaults) if _remove_empty_vault(vaults, client)]
        for run in plan.runs:
            with vaults.child(NODES) as nodes:
                _discard(nodes, run.name)
        if not runs_in(vaults) and not stored_folders(vaults):
            _remove_shared_vault(vaults)
    return plan, gone


def _clear_vault(vaults: Directory, client: str, to_remove: list[StoredFolder]) -> None:
    vault = Vault(vaults.path / client)
    with vault.lock(), vaults.child(client) as folder:
        is_ours = is_marked(folder)
        for stored in to_remove:
            with folder.child(stored.kind) as place:
                if is_ours and stored.kind == "shards":
                    _drop_record(vault, stored)
                place.remove_tree(stored.digest)


def _drop_record(vault: Vault, stored: StoredFolder) -> None:
    """Remove the salts of a shard that is removed."""
    manifest = None
    with suppress(InputError):
        manifest = read_manifest(vault.folder / stored.kind / stored.digest)
    if manifest is not None and manifest.record is not None:
        with suppress(InputError):  # not a valid name of a record
            vault.drop_record(manifest.record)


def _remove_empty_vault(vaults: Directory, client: str) -> bool:
    """Remove a vault that a simulation made and that has no shard left; returns whether it was."""
    with vaults.child(client) as folder:
        names = {entry.name for entry in folder.entries()}
        if not is_marked(folder) or names & set(OWNERS) or not names <= OURS:
            return False
        for kind in KINDS:
            if folder.find(kind) is not None:
                with folder.child(kind) as place:
                    if place.entries():
                        return False
    vault = Vault(vaults.path / client)
    with vault.lock(), vaults.child(client) as folder:
        if folder.find(RECORDS) is not None:
            folder.remove_tree(RECORDS)
        if folder.find(KEY_FILE) is not None:
            erase(vault.key_path)
        _discard(vaults, client)
    return True


def _remove_shared_vault(vaults: Directory) -> None:
    """Remove the key that simulated owners shared; nothing is encrypted with it any longer."""
    if vaults.find(SHARED) is None:
        return
    vault = Vault(vaults.path / SHARED)
    with vault.lock():
        if vault.has_key:
            erase(vault.key_path)
        _discard(vaults, SHARED)


def _discard(folder: Directory, name: str) -> None:
    """Rename a folder, then remove it, so that an interrupted removal leaves no partial folder."""
    gone = f".gone-{secrets.token_hex(8)}"
    os.rename(name, gone, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
    folder.remove_tree(gone)


def _sweep(vaults: Directory) -> None:
    """Remove what interrupted calls have discarded."""
    for entry in vaults.entries():
        if entry.kind == "folder" and GONE.fullmatch(entry.name):
            vaults.remove_tree(entry.name)
    if vaults.find(NODES) is not None:
        with vaults.child(NODES) as nodes:
            for entry in nodes.entries():
                if entry.kind == "folder" and GONE.fullmatch(entry.name):
                    nodes.remove_tree(entry.name)


def _is_orphan(vaults: Directory, stored: StoredFolder) -> bool:
    with vaults.child(stored.client) as vault:
        if not is_marked(vault):
            return False
        with vault.child(stored.kind) as place:
            entry = place.find(stored.digest)
    return entry is not None and time.time() - entry.status.st_mtime > ORPHAN_SECONDS


def _refuse_running(run: Run) -> None:
    """Refuse a run whose folder is locked by a process.

    Raises:
        InputError: It is.
    """
    if run.path is None or not run.path.is_dir():
        return
    descriptor = os.open(run.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{run.path}: this run is in use by a process; wait until it ends, or leave it out"
        ) from None
    finally:
        os.close(descriptor)
