"""Counts and notes in words."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts, in the singular for one.

    Args:
        number: How many.
        noun: Of one.
        plural: Of several, where it is not the noun with an s, or with -ies for its -y.

    >>> counted(1, "round"), counted(3, "round"), counted(0, "client")
    ('1 round', '3 rounds', '0 clients')
    """
    if number == 1:
        return f"{number:,} {noun}"
    if plural is None:
        plural = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeou" else f"{noun}s"
    return f"{number:,} {plural}"


def sentence(note: str) -> str:
    """A note with a capital and a full stop; nothing of nothing.

    >>> sentence("one key a client")
    'One key a client.'
    """
    return f"{note[:1].upper()}{note[1:].rstrip('.')}." if note else ""
