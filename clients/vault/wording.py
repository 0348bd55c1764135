"""Sizes, durations and counts as text for people."""

import math


def size_text(num_bytes: float) -> str:
    """A size in decimal units.

    >>> size_text(999), size_text(1_350_000), size_text(63_240_000_000)
    ('999 bytes', '1.35 MB', '63.2 GB')
    """
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"


def duration_text(seconds: float) -> str:
    """A duration, rounded as an estimate.

    >>> duration_text(0.2), duration_text(200), duration_text(9000)
    ('1 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def age_text(seconds: float) -> str:
    """An age in one unit.

    >>> age_text(20), age_text(7000), age_text(1.3e6)
    ('under 1 min', '2 h', '15 days')
    """
    for unit, size in (("day", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return (
                counted(round(seconds / size), unit)
                if unit == "day"
                else f"{seconds / size:.0f} {unit}"
            )
    return "under 1 min"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
