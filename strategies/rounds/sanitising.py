"""Text from other machines, sanitised before it is shown or written down."""

MAX_REASON = 200
"""Longest text that is kept, in characters."""


def sanitise(text: str) -> str:
    r"""One line of at most `MAX_REASON` printable characters, which cannot control a terminal.

    >>> sanitise("a\n  b \x1b[2J")
    'a b ?[2J'
    """
    line = " ".join(text[: 4 * MAX_REASON].split())[:MAX_REASON]
    return "".join(character if character.isprintable() else "?" for character in line)
