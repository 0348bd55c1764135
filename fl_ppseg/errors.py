"""The two ways a command can fail, each with one clear line for the person who ran it.

Every message says what was found, what was wanted and what to do; it never holds key material.
"""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when there is no space left, or no more of it for this user."""


class InputError(Exception):
    """Bad arguments, config or data: exit status 2."""


class RunError(Exception):
    """A run that could not be carried to its end: exit status 1."""


def describe(error: BaseException) -> str:
    """One line for a person: the message of our own errors, the plain cause of the system's."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some, or choose another folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
