"""What the entries of messages are: each of one kind, bounded on both sides.

A check returns the value, or raises `FieldError` with what was expected; it never shows the value
of a text, which may be anything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fl_ppseg.config.client_names import MAX_CHARACTERS, is_client_name

MAX_NAME: Final = MAX_CHARACTERS
"""Characters of the name of a run, an arm or a client."""
MAX_ROUND: Final = 1_000_000
MAX_CLASSES: Final = 255
"""Label maps are bytes, and 255 is what is ignored."""
MAX_EXAMPLES: Final = 2**24
"""Images of a client: a thousand times the largest set of street scenes."""
MAX_PIXELS: Final = 2**28
"""Of one label map: 16384 x 16384."""
MAX_LOSS: Final = 1e12
"""Mean loss a pixel; sums of more would lose their digits."""
MAX_IDENTITY: Final = 128
"""Characters of a prepared run's name and hash; see `fl_ppseg.federation.run_identity`."""
MAX_SETTINGS: Final = 2**16
"""Characters of model or training settings in JSON."""
MAX_SUM: Final = 2**24
"""Characters that a step of secure aggregation says: shares for ten thousand clients."""
MAX_ATTEMPTS: Final = 1_000
MAX_ARRAY_BYTES: Final = 2**33
"""Of the arrays of one message, where the receiver knows no better: seven times ViT-L."""
MAX_SECONDS: Final = 1e8
"""Three years."""


class FieldError(ValueError):
    """An entry that is not of its kind."""


class Field(Protocol):
    """A kind of entry."""

    def check(self, name: str, value: object) -> Any:
        """The value; FieldError where it is none of this kind."""


@dataclass(frozen=True)
class Whole:
    """An integer from `low` to `high`, both included."""

    low: int
    high: int

    def check(self, name: str, value: object) -> int:
        """The integer."""
        if type(value) is not int:
            raise FieldError(f"{name} is not an int")
        if value < self.low and self.low == 0:
            raise FieldError(f"{name} is negative")
        if not self.low <= value <= self.high:
            raise FieldError(f"{name} is not between {self.low} and {self.high}")
        return value


@dataclass(frozen=True)
class Real:
    """A finite float from `low` to `high`, both included."""

    low: float
    high: float

    def check(self, name: str, value: object) -> float:
        """The float."""
        if type(value) is not float:
            raise FieldError(f"{name} is not a float")
        if not math.isfinite(value):
            raise FieldError(f"{name} is not finite")
        if not self.low <= value <= self.high:
            raise FieldError(f"{name} is not between {self.low:g} and {self.high:g}")
        return value


@dataclass(frozen=True)
class Maybe:
    """A value, or none: a list of one or of nothing, since Flower's records know no null."""

    of: Real

    def check(self, name: str, value: object) -> float | None:
        """The value, or None."""
        if type(value) is not list or len(value) > 1:
            raise FieldError(f"{name} is not a list of at most one value")
        return self.of.check(name, value[0]) if value else None


@dataclass(frozen=True)
class Counts:
    """A list of at most `most` integers from 0 to `high`."""

    most: int
    high: int

    def check(self, name: str, value: object) -> list[int]:
        """The list."""
        if type(value) is not list:
            raise FieldError(f"{name} is not a list")
        if len(value) > self.most:
            raise FieldError(f"{name} has {len(value)} entries, at most {self.most} are allowed")
        if not all(type(count) is int and 0 <= count <= self.high for count in value):
            raise FieldError(f"{name}: expected counts from 0 to {self.high}")
        return value


@dataclass(frozen=True)
class Text:
    """Any text of at most `most` characters."""

    most: int

    def check(self, name: str, value: object) -> str:
        """The text."""
        if type(value) is not str:
            raise FieldError(f"{name} is not a str")
        if len(value) > self.most:
            raise FieldError(f"{name} has {len(value)} characters, at most {self.most} are allowed")
        return value


@dataclass(frozen=True)
class Word:
    """A name: one short printable line that neither hides nor leads elsewhere as a path."""

    most: int = MAX_NAME

    def check(self, name: str, value: object) -> str:
        """The name."""
        if type(value) is not str:
            raise FieldError(f"{name} is not a str")
        if not 0 < len(value) <= self.most:
            raise FieldError(f"{name} has {len(value)} characters, 1 to {self.most} are allowed")
        if not value.isprintable():
            raise FieldError(f"{name} is not a printable name")
        if "/" in value or value.startswith("."):
            raise FieldError(f"{name} must not hold a slash or start with a dot")
        return value


class ClientWord(Word):
    """The name of a client, as folders and shards have it."""

    def check(self, name: str, value: object) -> str:
        """The name."""
        client = super().check(name, value)
        if not is_client_name(client):
            raise FieldError(f"{name} is not the name of a client")
        return client


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def check(self, name: str, value: object) -> str:
        """The word."""
        if type(value) is not str:
            raise FieldError(f"{name} is not a str")
        if value not in self.words:
            raise FieldError(f"unknown {name} {value[:40]!r}")
        return value


def checked(record: Mapping[str, object], expected: Mapping[str, Field]) -> dict[str, Any]:
    """The entries of a record, exactly the expected ones, each of its kind.

    Raises:
        FieldError: With the first that is not.
    """
    if len(record) != len(expected) or set(record) != set(expected):
        got = sorted(str(name)[:MAX_NAME] for name in list(record)[:20])
        raise FieldError(f"expected entries {sorted(expected)}, got {got}")
    return {name: kind.check(name, record[name]) for name, kind in expected.items()}


REQUEST: Final[dict[str, Field]] = {
    "task": Choice(("describe", "train", "evaluate", "advertise", "share", "confirm", "unmask")),
    "run": Text(MAX_IDENTITY),
    "run_id": Word(),
    "round": Whole(0, MAX_ROUND),
    "num_rounds": Whole(1, MAX_ROUND),
    "arm": Word(127),
    "seed": Whole(0, 2**63 - 1),
    "embedding": Choice(("uploaded", "frozen", "adapted", "private", "invariant")),
    "num_classes": Whole(1, MAX_CLASSES),
    "model": Text(MAX_SETTINGS),
    "training": Text(MAX_SETTINGS),
}
REPLY_SETTINGS: Final[dict[str, Field]] = {
    "run_id": Word(),
    "round": Whole(0, MAX_ROUND),
    "client": ClientWord(),
}
REPLY_FIGURES: Final[dict[str, Field]] = {
    "num_examples": Whole(0, MAX_EXAMPLES),
    "loss": Maybe(Real(-1.0, MAX_LOSS)),
    "seconds": Real(0.0, MAX_SECONDS),
    "confusion": Counts(MAX_CLASSES**2, MAX_EXAMPLES * MAX_PIXELS),
}
SUM_REQUEST: Final[dict[str, Field]] = {
    "attempt": Whole(0, MAX_ATTEMPTS),
    "content": Text(MAX_SUM),
}
SUM_REPLY: Final[dict[str, Field]] = {"content": Text(MAX_SUM)}
DESCRIPTION: Final[dict[str, Field]] = {
    "run_id": Word(),
    "client": ClientWord(),
    "role": Choice(("train", "val")),
}
