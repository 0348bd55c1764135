"""JSON files of this program, read strictly: one meaning, bounded, every field of its own type."""

import json
from typing import NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from fl_ppseg.errors import InputError

Form = TypeVar("Form")
SHOWN = 60
"""Letters of a wrong value that a message has room for."""


def read_as(form: TypeAdapter[Form], content: bytes, source: str) -> Form:
    """What JSON says, in a form with a type for each field.

    Args:
        form: Of strict types that forbid what they do not name.
        content: UTF-8, without a byte order mark.
        source: Names it in messages, with what it is.

    Raises:
        InputError: It is no JSON, says something twice, or is of another form.
    """
    try:
        json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise InputError(f"{source}: not JSON of this program (too many brackets)") from None
    except ValueError as error:
        raise InputError(f"{source}: not JSON ({error})") from None
    try:
        return form.validate_json(content)
    except ValidationError as error:
        raise InputError(f"{source}: {_explained(error)}") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{_shown(twice)} stands there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _explained(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(
        ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in first["loc"]
    )
    if first["type"] == "missing" or first["type"] == "missing_argument":
        return f"{place} is missing"
    if first["type"].startswith("unexpected") or first["type"] == "extra_forbidden":
        return f"{place[:SHOWN]} is no field of it"
    message = first["msg"].removeprefix("Value error, ")
    prefix = f"{place}: " if place else ""
    if first["type"] == "value_error":
        return f"{prefix}{message}"
    return f"{prefix}{message}, got {_shown(first['input'])}"


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
