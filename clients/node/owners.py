"""Whose the policy is: not one of the programs' that it binds."""

import os
import stat
from collections.abc import Collection
from pathlib import Path

from fl_ppseg.system.errors import InputError
from fl_ppseg.system.trusted_path import user_name


def check_owner(policy: Path, bound: Collection[int]) -> None:
    """See that users who are bound by a policy can neither write nor replace it.

    Args:
        policy: The file.
        bound: Ids of the users.

    Raises:
        InputError: They can: it, a link to it, or a folder on the way is theirs, or others may
            write there.
    """
    way = [policy, *policy.parents]
    way += [] if policy.resolve() == policy else [policy.resolve(), *policy.resolve().parents]
    for place in way:
        found = os.lstat(place)
        if found.st_uid in bound:
            raise InputError(
                f"{place}: belongs to {user_name(found.st_uid)}, whom the policy is to bind; it "
                "has to be the owner's or root's (clients.vault encrypt --readers hands it over)"
            )
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if shared and not (stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX):
            mode = stat.S_IMODE(found.st_mode)
            raise InputError(
                f"{place}: others may write there (mode {mode:04o}), and so change the policy; "
                f"take that away: chmod go-w {place}"
            )
