"""A folder that is whole or absent, also where the power fails, and what a kill left of it."""

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
"""File of a draft that names what it was to become."""


def require_free(out: Path) -> None:
    """Check that a new folder can be made: nothing is there, or an empty folder.

    Raises:
        InputError: It cannot.
    """
    is_empty = out.is_dir() and not any(out.iterdir())
    if out.is_symlink() or (out.exists() and not is_empty):
        raise InputError(f"{out}: exists already; remove it, or choose another --out")
    if not out.name:
        raise InputError(f"{out}: expected a new folder")
    check_writable(out.parent)


@contextmanager
def draft_folder(out: Path) -> Iterator[Path]:
    """A draft that becomes `out` at the end, or leaves no trace; drafts of killed calls go.

    Of several calls for one folder at once the others wait, and are then refused.

    Raises:
        InputError: Something is there already.
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
            draft.rename(out)  # refused by the system where something came meanwhile
            (out / MARK).unlink()
            sync(out.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def write(path: Path, content: bytes) -> None:
    """A new file, on disk when this returns."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_drafts(out: Path) -> None:
    """No process works on them any more: this one holds the lock."""
    for draft in out.parent.glob(".*.tmp"):
        mark = draft / MARK
        is_own = not draft.is_symlink() and draft.is_dir() and draft.stat().st_uid == os.geteuid()
        if is_own and mark.is_file() and mark.read_bytes()[:1_024] == out.name.encode():
            shutil.rmtree(draft, ignore_errors=True)
