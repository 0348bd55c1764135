"""Which prepared run a run folder is of, so that its nodes can tell its requests from another's.

    <run folder>/nodes.json    a random name of the run, and the hash of what its nodes were given

A node that was prepared for a run holds the same two in its policy and refuses all others. Without
this a SuperLink that outlives its run serves the next one with the nodes of the first, whose
numbers then stand under the second's name.
"""

import json
import re
import secrets
from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.config.documents import parse_json, read_bytes
from fl_ppseg.config.run_layout import NODES
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

SCHEMA: Final = 1
MAX_BYTES: Final = 4096
REMEDY: Final = "remove it and prepare the run again"


class Identity(NamedTuple):
    """A run and what was prepared for it."""

    run: str
    """32 hex digits, drawn when the run was begun."""
    prepared: str
    """SHA-256 of the nodes' policies."""

    def __str__(self) -> str:
        """As requests and policies carry it."""
        return f"{self.run}/{self.prepared}"


def new_name() -> str:
    """A name that no other run has."""
    return secrets.token_hex(16)


def read_identity(run: Path) -> Identity | None:
    """The identity of a run folder; None where its nodes were not prepared on this machine.

    Raises:
        InputError: The file is damaged.
    """
    path = run / NODES
    if not path.exists():
        return None
    values = parse_json(read_bytes(path, MAX_BYTES), str(path))
    if (
        not isinstance(values, dict)
        or values.keys() != {"schema", "run", "prepared"}
        or values["schema"] != SCHEMA
    ):
        raise InputError(f"{path}: damaged (expected schema {SCHEMA}, run and prepared); {REMEDY}")
    if not (_is_hex(values["run"], 32) and _is_hex(values["prepared"], 64)):
        raise InputError(f"{path}: damaged (expected hex digits for run and prepared); {REMEDY}")
    return Identity(values["run"], values["prepared"])


def _is_hex(value: object, length: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None


def save_identity(run: Path, identity: Identity) -> None:
    """Write the identity of a run folder, where it is another than before."""
    if (run / NODES).exists() and read_identity(run) == identity:
        return
    write_atomically(run / NODES, json.dumps({"schema": SCHEMA, **identity._asdict()}) + "\n")
