"""The cohort key of a vault: what its node signs and masks with in secure aggregation.

It is made once and never replaced, since the other owners consented to its public half. It encrypts
no image, and stays when master keys are rotated or retired.
"""

import os
from pathlib import Path

from clients.policy.cohort_key import COHORT_KEY, cohort_key_text, read_cohort_key
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.system.atomic_file import write_in


def ensure_cohort_key(vault: Path) -> Path:
    """The file of a vault's cohort key; made if there is none. The vault is locked.

    Raises:
        InputError: It is damaged, another user's, or open to others.
    """
    path = vault / COHORT_KEY
    if not has_cohort_key(vault):
        folder = os.open(vault, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            content = cohort_key_text(NodeSecret.new()).encode()
            write_in(folder, path.name, content, 0o600, exclusive=True)
            os.fsync(folder)
        finally:
            os.close(folder)
    read_cohort_key(path)
    return path


def has_cohort_key(vault: Path) -> bool:
    """Whether a vault has a cohort key."""
    return os.path.lexists(vault / COHORT_KEY)


def public_cohort_key(vault: Path) -> str:
    """The public cohort key of a vault, in hex.

    Raises:
        InputError: There is none, or it is damaged.
    """
    return read_cohort_key(vault / COHORT_KEY).public_key
