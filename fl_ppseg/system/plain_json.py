"""JSON files of this program, read strictly: one meaning, bounded, every field of its own type."""

from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from fl_ppseg.system.errors import InputError
from fl_ppseg.system.strict_json import parse_json

Form = TypeVar("Form")
SHOWN: Final = 60
"""Letters of a wrong value that a message has room for."""
MAX_PLACE: Final = 120
"""Letters of where it stands: names in a file are its writer's."""


def read_as(form: TypeAdapter[Form], content: bytes, source: str, max_bytes: int) -> Form:
    """What JSON says, in a form with a type for each field.

    Args:
        form: Of strict types that forbid what they do not name.
        content: UTF-8, without a byte order mark.
        source: Names it in messages, with what it is.
        max_bytes: How large it may be.

    Raises:
        InputError: It is larger or not JSON, says something twice, or is of another form.
    """
    try:
        parse_json(content, max_bytes=max_bytes)
    except ValueError as error:
        raise InputError(f"{source} ({error})") from None
    try:
        return form.validate_json(content)
    except ValidationError as error:
        raise InputError(f"{source} ({_explained(error)})") from None


def _explained(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(
        ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in first["loc"]
    )[:MAX_PLACE]
    if first["type"] == "missing" or first["type"] == "missing_argument":
        return f"{place} is missing"
    if first["type"].startswith("unexpected") or first["type"] == "extra_forbidden":
        return f"{place[:SHOWN]} is not a field of it"
    message = first["msg"].removeprefix("Value error, ")
    prefix = f"{place}: " if place else ""
    if first["type"] == "value_error":
        return f"{prefix}{message}"
    return f"{prefix}{message}, got {_shown(first['input'])}"


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
