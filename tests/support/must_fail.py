"""The must-fail vectors: what each parser has to refuse, and with which words.

`tests/vectors/must_fail/<parser>.json` is a list of {"name", "why", "content" (text) or "hex",
"error"}, for any implementation of the parser; `error` is a part of our own line.
"""

import json
from typing import NamedTuple

import pytest
from checkout import VECTORS

FOLDER = VECTORS / "must_fail"


class Vector(NamedTuple):
    name: str
    why: str
    content: bytes
    error: str


def vectors(parser: str) -> list[Vector]:
    entries = json.loads((FOLDER / f"{parser}.json").read_text("utf-8"))
    found = []
    for entry in entries:
        assert len({"content", "hex"} & entry.keys()) == 1, entry
        text = entry.get("content")
        content = bytes.fromhex(entry["hex"]) if text is None else text.encode("utf-8")
        found.append(Vector(entry["name"], entry["why"], content, entry["error"]))
    assert len({vector.name for vector in found}) == len(found)
    return found


def of(parser: str) -> pytest.MarkDecorator:
    """Runs a test with each vector of a parser, under its name."""
    found = vectors(parser)
    return pytest.mark.parametrize("vector", found, ids=[vector.name for vector in found])
