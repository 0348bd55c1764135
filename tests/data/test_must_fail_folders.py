"""What no parser of the node folder and its shards may take: vectors for any implementation.

`tests/vectors/must_fail/<parser>.json` is a list of {name, why, content or hex, error}: the bytes
of a file, and a part of what our parser says of them.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from checkout import VECTORS as VECTORS_

from clients.vault.node_folders.directory import parse_owner
from clients.vault.node_folders.exports import parse_exports
from fl_ppseg.data.manifest import parse_manifest
from fl_ppseg.system.errors import InputError

VECTORS = VECTORS_ / "must_fail"
DIGEST = "0123456789abcdef" * 2
FILES = [
    f"{kind}/{part}/aachen.npy" for part in ("train", "val") for kind in ("leftImg8bit", "gtFine")
]
SHARD: dict[str, Any] = {
    "schema": 3,
    "city": "aachen",
    "settings": DIGEST,
    "block_size": 8,
    "num_images": 6,
    "num_views": 2,
    "heldout_sizes": [[128, 256]],
    "record": "f" * 32,
    "ciphers": {"shuffle-spatial": 1, "negative-positive": 2},
    "sha256": {},
}
PARSERS: dict[str, tuple[Callable[[bytes, str], object], dict[str, Any]]] = {
    "shard_manifest": (
        partial(parse_manifest, finished=True),
        SHARD | {"sha256": dict.fromkeys(FILES, "ab" * 32)},
    ),
    "shard_draft": (partial(parse_manifest, finished=False), SHARD),
    "owner": (parse_owner, {"schema": 1, "city": "aachen"}),
    "handed_over": (
        parse_exports,
        {"schema": 1, "shards": {DIGEST: []}, "private": [DIGEST]},
    ),
}


def vectors() -> list[Any]:
    return [
        pytest.param(parser, vector, id=f"{parser}: {vector['name']}")
        for parser in PARSERS
        for vector in json.loads((VECTORS / f"{parser}.json").read_text("utf-8"))
    ]


@pytest.mark.parametrize(("parser", "vector"), vectors())
def test_no_parser_takes_what_it_must_not(parser: str, vector: dict[str, str]) -> None:
    content = bytes.fromhex(vector["hex"]) if "hex" in vector else vector["content"].encode()
    parse, _ = PARSERS[parser]
    with pytest.raises(InputError) as refused:
        parse(content, "the file")
    said = str(refused.value)
    assert vector["error"] in said
    assert said.startswith("the file") and len(said) < 400 and said.isprintable()


@pytest.mark.parametrize("parser", PARSERS)
def test_every_parser_takes_what_is_right(parser: str) -> None:
    """The vectors differ from this by what each is about."""
    parse, good = PARSERS[parser]
    assert parse(json.dumps(good).encode(), "the file") is not None
    for name in ("aachen", "Weil am Rhein", "münchen"):
        if "city" in good and not good.get("sha256"):
            parse(json.dumps(good | {"city": name}, ensure_ascii=False).encode(), "the file")
