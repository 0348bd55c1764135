"""Checks the owner of the policy: users who are bound by it must not be able to change it."""

import os
import stat
from collections.abc import Collection
from pathlib import Path

from fl_ppseg.system.errors import InputError
from fl_ppseg.system.trusted_path import user_name


def check_owner(policy: Path, bound: Collection[int]) -> None:
    """Check that users who are bound by a policy can neither write nor replace it.

    Args:
        policy: The file.
        bound: Ids of the users.

    Raises:
        InputError: They can: the file, a link to it, or a parent folder belongs to them, or others
            may write there.
    """
    way = [policy, *policy.parents]
    way += [] if policy.resolve() == policy else [policy.resolve(), *policy.resolve().parents]
    for place in way:
        found = os.lstat(place)
        if found.st_uid in bound:
            raise InputError(
                f"{place}: belongs to {user_name(found.st_uid)}, who is bound by the policy; it "
                "must belong to the images' owner or root (use clients.vault encrypt --readers to "
                "let the app read it)"
            )
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if shared and not (stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX):
            mode = stat.S_IMODE(found.st_mode)
            raise InputError(
                f"{place}: others may write there (mode {mode:04o}) and so change the policy; run "
                f"chmod go-w {place}"
            )
