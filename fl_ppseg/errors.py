"""The two ways a command can fail, each with one clear line for the person who ran it.

Every message says what was found, what was wanted and what to do; it never holds key material.
"""


class InputError(Exception):
    """Bad arguments, config or data: exit status 2."""


class RunError(Exception):
    """A run that could not be carried to its end: exit status 1."""
