"""The two ways a command can fail, each with one clear line for the user.

Every message says what was expected, what was found and what to do; it never holds key material.
"""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when there is no space left, or no more of it for this user."""
NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
)
"""What torch's allocators say in their errors, which have no class of their own on the CPU."""
MAX_LINE = 2_000
"""Characters of a line for a person; what others named may be longer."""


class InputError(Exception):
    """Bad arguments, config or data: exit status 2."""


class RunError(Exception):
    """A run that failed: exit status 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was kept and the command to resume."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left: Python's, numpy's, torch's or Ray's."""
    if isinstance(error, MemoryError) or "OutOfMemoryError" in type(error).__name__:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)


def describe(error: BaseException) -> str:
    """One line for a person: the message of our own errors, the plain cause of the system's."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some, or choose another folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if is_out_of_memory(error):
        return (
            "out of memory; use a smaller training.batch_size, data.image_size or model, or "
            f"fewer processes (num_workers) ({type(error).__name__})"
        )
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} …"
