"""The file of a node's secret for secure aggregation: its owner makes it, its node reads it.

Three lines: a header, the secret in hex, the public cohort key. It encrypts no image; who has it
can sign as this node, and unmask what this node sent (`fl_ppseg.secure_sum.node_secret`).
"""

import re
import stat
from pathlib import Path
from typing import Final

from clients.policy.owned_file import read_owned
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.system.errors import InputError

COHORT_KEY: Final = "cohort.key"
"""Its name, in a vault and in a node folder."""
MAX_BYTES: Final = 4096
_HEADER: Final = "fl_ppseg/v1/cohort-key"
_FORM: Final = re.compile(rf"{re.escape(_HEADER)}\n([0-9a-f]{{64}})\n([0-9a-f]{{64}})\n")


def cohort_key_text(secret: NodeSecret) -> str:
    """The content of the file."""
    return f"{_HEADER}\n{secret.to_hex()}\n{secret.public_key}\n"


def read_cohort_key(path: Path) -> NodeSecret:
    """Read a node's secret.

    Raises:
        InputError: It is missing, damaged, a link, another user's, or others may read it.
    """
    text = read_owned(path, MAX_BYTES, "cohort key")
    if stat.S_IMODE(path.stat().st_mode) & 0o007:
        raise InputError(f"{path}: others may read this cohort key; run chmod o= on it")
    found = _FORM.fullmatch(text)
    if found is None:
        raise InputError(f"{path}: damaged cohort key; restore it from the vault")
    secret = NodeSecret(bytes.fromhex(found[1]))
    if secret.public_key != found[2]:
        raise InputError(f"{path}: damaged cohort key; restore it from the vault")
    return secret
