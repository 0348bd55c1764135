"""JSON from a file that may be damaged or hostile: of bounded size and depth, and nothing lenient.

Python's reader takes `NaN`, keeps the last of two equal names, and may go as deep as its stack.
"""

import json
import re
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 64
"""Brackets in one another: far more than any file of this program has."""

_TEXT_OR_BRACKET: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A text, even one without end, or a bracket outside of texts."""


def parse_json(text: str | bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """Read a JSON value.

    Args:
        text: UTF-8 where it is bytes.
        max_bytes: How large it may be.
        max_depth: How many brackets may stand in one another.

    Raises:
        ValueError: It is larger, deeper, or not JSON; the message says which, and nothing of the
            content.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > max_bytes:
        raise ValueError(f"expected at most {max_bytes:,} bytes, got more")
    _check_depth(data, max_depth)
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not JSON: not UTF-8 text") from None
    try:
        return json.loads(
            decoded, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None


def _check_depth(data: bytes, max_depth: int) -> None:
    depth = 0
    for token in _TEXT_OR_BRACKET.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group(), 0)
        if depth > max_depth:
            raise ValueError(f"expected values nested at most {max_depth} deep, got more")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name!a} is given twice")
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("expected integers of at most 20 digits, got more")
    return int(digits)
