"""What others said, as it may be shown and kept: one short line that steers no terminal."""

MAX_REASON = 200
"""Characters of what is shown and kept."""


def plain(text: str) -> str:
    r"""One line of at most `MAX_REASON` printable characters.

    >>> plain("a\n  b \x1b[2J")
    'a b ?[2J'
    """
    line = " ".join(text[: 4 * MAX_REASON].split())[:MAX_REASON]
    return "".join(character if character.isprintable() else "?" for character in line)
