"""A folder written atomically, also across a power failure, and the drafts of killed commands."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fl_ppseg.system.atomic_file import random_name
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import check_writable, hold_lock, make_folders, sync

MARK: Final = ".draft-of"
"""File of a draft that holds the name of its target."""


def require_free(out: Path) -> None:
    """Check that a new folder can be made: nothing is there, or an empty folder.

    Raises:
        InputError: The folder exists and is not empty, or it is not a folder.
    """
    is_empty = out.is_dir() and not any(out.iterdir())
    if out.is_symlink() or (out.exists() and not is_empty):
        raise InputError(f"{out}: exists already; remove it, or choose another --out")
    if not out.name:
        raise InputError(f"{out}: expected a new folder")
    check_writable(out.parent)


@contextmanager
def draft_folder(out: Path) -> Iterator[Path]:
    """Yield a draft folder that is renamed to `out` at the end, or removed after an error.

    Drafts of killed calls are removed. Concurrent calls for one folder wait, and are then refused.

    Raises:
        InputError: `out` exists already.
    """
    make_folders(out.parent)
    with hold_lock(out.with_name(f".{out.name}.lock")):
        require_free(out)
        _remove_drafts(out)
        draft = out.with_name(random_name())
        draft.mkdir(0o755)
        try:
            write(draft / MARK, out.name.encode())
            yield draft
            for folder, _, _ in os.walk(draft):
                sync(Path(folder))
            draft.rename(out)  # refused by the system if `out` was made meanwhile
            (out / MARK).unlink()
            sync(out.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def write(path: Path, content: bytes) -> None:
    """Write a new file and flush it to disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_drafts(out: Path) -> None:
    """Remove the drafts of killed calls; the caller holds the lock."""
    for draft in out.parent.glob(".*.tmp"):
        mark = draft / MARK
        is_own = not draft.is_symlink() and draft.is_dir() and draft.stat().st_uid == os.geteuid()
        if is_own and mark.is_file() and mark.read_bytes()[:1_024] == out.name.encode():
            shutil.rmtree(draft, ignore_errors=True)
