"""Must-fail vectors: what a parser has to refuse, with a part of what it says."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent / "vectors" / "must_fail"


class Vector(NamedTuple):
    """A file and why it is refused."""

    content: bytes
    error: str


def vectors(parser: str) -> list[object]:
    """The vectors of `vectors/must_fail/<parser>.json`, as parameters of a test."""
    entries = json.loads((FOLDER / f"{parser}.json").read_text("utf-8"))
    assert entries and all(entry["why"] for entry in entries)
    return [pytest.param(Vector(_content(e), e["error"]), id=e["name"]) for e in entries]


def _content(entry: dict[str, str]) -> bytes:
    return bytes.fromhex(entry["hex"]) if "hex" in entry else entry["content"].encode()
