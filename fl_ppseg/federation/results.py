"""A line of results.jsonl as a type, validated, so that a damaged line is reported by its number.

Lines of roles `train`, `val` and `heldout` are about one client in one round; one of role `round`
is about the round itself. Lines may say more than is asked for here, and keep it. Lines
of earlier versions, which call a client a city, are refused.
"""

from typing import Annotated, Final, Literal, NotRequired, cast

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from fl_ppseg.config.documents import parse_json

MAX_LINE_BYTES: Final = 8 * 2**20

Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _square(rows: list[list[int]]) -> list[list[int]]:
    if any(len(row) != len(rows) for row in rows):
        raise ValueError("expected a square of counts")
    return rows


Confusion = Annotated[list[list[Count]], AfterValidator(_square)]
"""(C, C) counts; rows are the truth."""


class _Line(TypedDict):
    """What every line says."""

    arm: str
    seed: Count
    round: Count
    confusion: Confusion | None
    """None where nothing was scored."""
    bytes_up: Count
    """Of a good reply: its weights, and what secure aggregation says; a round's line has those of
    the exchanges around training. Flower's framing and settings are not counted."""
    bytes_down: Count
    """Of the request of a good reply, in the same way."""
    seconds: Number
    loss: NotRequired[Number | None]


class ClientLine(_Line):
    """One client's local update or evaluation."""

    role: Literal["train", "val", "heldout"]
    client: str
    num_examples: Count
    model: NotRequired[str]
    """Client that the model belongs to, where every client has its own."""
    update_norm: NotRequired[Number]


class Release(TypedDict, total=False):
    """Central privacy: the release of the round's noisy weights, and what all so far have cost."""

    num_releases: Count
    epsilon: Number
    delta: Number


class RoundLine(_Line, Release):
    """The round itself: `loss` is the mean over its local updates."""

    role: Literal["round"]
    client: NotRequired[None]
    rejected: NotRequired[list[str]]
    """Names and reasons."""


Line = ClientLine | RoundLine
"""A line of results.jsonl."""
ROLES: Final = ("train", "val", "heldout", "round")
_LINE: Final[TypeAdapter[Line]] = TypeAdapter(Annotated[Line, Field(discriminator="role")])


def parse_line(text: bytes, source: str) -> Line:
    """The values of a line, as they stand there.

    Raises:
        InputError: It is not JSON.
        ValueError: It is not a line of results; the text says why.
    """
    line = parse_json(text, source, MAX_LINE_BYTES)
    if isinstance(line, dict) and "city" in line:
        raise ValueError("of an earlier version: city is now called client")
    try:
        _LINE.validate_python(line, strict=True)
    except ValidationError as error:
        raise ValueError(_why(error)) from None
    return cast(Line, line)  # as written: pydantic would make 1.0 of 1


def _why(error: ValidationError) -> str:
    """The first reason, in one short line."""
    first = error.errors(include_url=False)[0]
    role, *path = first["loc"] or ("",)
    name = ".".join(map(str, path))
    if first["type"] == "missing":
        return f"no {name} of a {role} line"
    if path:
        return f"{name} of a {role} line: {first['msg']}, got {first['input']!r:.80}"
    got = first["input"].get("role") if isinstance(first["input"], dict) else first["input"]
    return f"expected role {', '.join(ROLES)}, got {got!r:.80}"
