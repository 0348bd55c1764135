"""A line of results.jsonl, validated, so that a damaged line is reported by its number.

Lines of roles `train`, `val` and `heldout` are about one city in one round; one of role `round` is
about the round itself. Lines may say more than is asked for here.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from fl_ppseg.config.documents import parse_json

Line = dict[str, Any]
"""A line of results.jsonl."""
ROLES: Final = ("train", "val", "heldout", "round")
MAX_LINE_BYTES: Final = 8 * 2**20
_COUNTS: Final = ("seed", "round", "bytes_up", "bytes_down")


def parse_line(text: bytes, source: str) -> Line:
    """The values of a line.

    Raises:
        InputError: It is no JSON.
        ValueError: It is not a line of results; the text says why.
    """
    line = parse_json(text, source, MAX_LINE_BYTES)
    if not isinstance(line, dict):
        raise ValueError(f"expected an object, got {type(line).__name__}")
    role = line.get("role")
    if role not in ROLES:
        raise ValueError(f"expected role {', '.join(ROLES)}, got {role!r}")
    _require(isinstance(line.get("arm"), str), line, "arm")
    for name in _COUNTS:
        _require(_is_count(line.get(name)), line, name)
    _require(_is_number(line.get("seconds")), line, "seconds")
    _require(line.get("loss", 0) is None or _is_number(line.get("loss", 0)), line, "loss")
    _require("confusion" in line and _is_confusion(line["confusion"]), line, "confusion")
    if role == "round":
        _require(line.get("city") is None, line, "city")
        rejected = line.get("rejected", [])
        is_texts = isinstance(rejected, list) and all(isinstance(why, str) for why in rejected)
        _require(is_texts, line, "rejected")
    else:
        _require(isinstance(line.get("city"), str), line, "city")
        _require(_is_count(line.get("num_examples")), line, "num_examples")
    return line


def _require(is_right: bool, line: Mapping[str, Any], name: str) -> None:
    if not is_right:
        got = repr(line[name])[:80] if name in line else "nothing"
        raise ValueError(f"no {name} of a {line['role']} line: {got}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_confusion(value: object) -> bool:
    """None, or a square of counts: rows are the truth."""
    if value is None:
        return True
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == len(value) and all(map(_is_count, row))
        for row in value
    )
