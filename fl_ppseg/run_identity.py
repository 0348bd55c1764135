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

from fl_ppseg.errors import InputError
from fl_ppseg.files import write_atomically

FILE: Final = "nodes.json"
SCHEMA: Final = 1
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


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
    path = run / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if set(values) != {"schema", "run", "prepared"} or values["schema"] != SCHEMA:
            raise ValueError(f"wanted schema {SCHEMA}, run and prepared")
        if not (_NAME.fullmatch(values["run"]) and _HASH.fullmatch(values["prepared"])):
            raise ValueError("run and prepared are hex digits")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged ({error}); remove it and prepare the run again"
        ) from None
    return Identity(values["run"], values["prepared"])


def save_identity(run: Path, identity: Identity) -> None:
    """Write the identity of a run folder, where it is another than before."""
    if (run / FILE).exists() and read_identity(run) == identity:
        return
    write_atomically(run / FILE, json.dumps({"schema": SCHEMA, **identity._asdict()}) + "\n")
