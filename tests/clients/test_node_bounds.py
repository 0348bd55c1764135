"""What the coordinator sends is bounded before anybody looks into it: bundles, answers, memory."""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from checkout import CHECKOUT
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supernode import fleet_http_connection, start_client_internal

from clients.node.app import BUNDLE, check_bundle
from clients.policy.node_policy import RefusedError
from fl_ppseg import __version__
from fl_ppseg.flower import supernode
from fl_ppseg.flower.superlink import read_bundle
from fl_ppseg.flower.supernode import (
    MAX_BODY,
    MAX_BUNDLE,
    NOTHING,
    BoundedTransport,
    Bundles,
    TooLargeError,
    bound,
    no_settings,
)
from fl_ppseg.flower.tasks import Bundle

VECTORS = CHECKOUT / "tests" / "vectors" / "must_fail" / "bundle.json"
OURS = read_bundle(CHECKOUT)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def run_of(content: bytes) -> Run:
    made = Run.create_empty(7)
    made.fab_hash = sha256(content)
    return made


def bomb(mebibytes: int) -> bytes:
    """A bundle whose pyproject.toml is short on the wire and long when it is unpacked."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
        file.open("pyproject.toml", "w") as project,
    ):
        project.write((CHECKOUT / "pyproject.toml").read_bytes())
        for _ in range(mebibytes):
            project.write(b"#" * (2**20 - 1) + b"\n")
    return packed.getvalue()


def taken(content: bytes, pin: str | None, claimed: str | None = None) -> tuple[Fab, Run]:
    """What Flower keeps of a bundle, and of the run whose bundle it is."""
    run = run_of(content)
    run.fab_hash = claimed or run.fab_hash
    sent = Fab(run.fab_hash, content, {"valid_license": "yes"})
    bundles = Bundles(lambda _: run, lambda *_: sent, pin)
    return bundles.bundle(bundles.run(7).fab_hash, 7), run


def test_the_bundle_that_is_pinned_is_kept() -> None:
    for pin in (None, sha256(OURS)):
        kept, run = taken(OURS, pin)
        assert (kept.content, kept.hash_str, run.fab_hash) == (OURS, sha256(OURS), sha256(OURS))
    assert 8 * len(OURS) < MAX_BUNDLE


def contents() -> dict[str, dict[str, Any]]:
    return {vector["name"]: vector for vector in json.loads(VECTORS.read_text())}


def content_of(vector: dict[str, Any]) -> bytes:
    """Some bytes, so many zeros, or this version's own bundle with something behind it."""
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    if "zeros" in vector:
        return bytes(vector["zeros"])
    return OURS + str(vector["appended"]).encode()


@pytest.mark.parametrize("name", contents())
def test_must_fail_vectors(name: str) -> None:
    """Each as `clients.node app` meets it: dropped by the SuperNode, or refused by the app."""
    vector = contents()[name]
    content = content_of(vector)
    pin = sha256(OURS) if vector["pinned"] else None
    kept, run = taken(content, pin, vector.get("claimed"))
    run.fab_id, run.fab_version = vector.get("app", BUNDLE), vector.get("version", __version__)
    with pytest.raises(RefusedError, match=vector["error"]):
        check_bundle(Bundle(run.fab_id, run.fab_version, kept.content), pin)


def test_a_dropped_bundle_is_found_where_flower_looks_for_it() -> None:
    """Its state stores a bundle under the hash of what it has, and looks under the run's."""
    kept, run = taken(b"another", sha256(OURS))
    assert (kept.content, kept.hash_str, run.fab_hash) == (b"", NOTHING, NOTHING)
    assert sha256(b"") == NOTHING


def test_no_bundle_is_opened() -> None:
    """Not even the pinned one: no setting of the coordinator's gets into a node this way."""
    assert no_settings(b"no zip file", run_of(b"")) == {}


BOMBED = """
import resource, sys
from pathlib import Path
sys.path[:0] = ["tests/support", "tests/clients"]
from fl_ppseg.flower.supernode import bound, start_client_internal
from test_node_bounds import bomb, run_of, taken
content = bomb(200)
assert len(content) < 2**19
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bound(None)
kept, run = taken(content, None)
print(start_client_internal.get_fused_config_from_fab(kept.content, run))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_bundle_that_unpacks_to_much_costs_nothing() -> None:
    """Flower's own way to a run's settings took twice what it unpacks to, before any pin."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBED], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    settings, mebibytes = done.stdout.split()
    assert settings == "{}"
    assert int(mebibytes) < 50


@pytest.fixture
def unbound() -> Iterator[None]:
    kept = [
        (start_client_internal, "_init_connection"),
        (start_client_internal, "get_fused_config_from_fab"),
        (start_client_internal, "pull_objects"),
        (start_client_internal, "time"),
        (fleet_http_connection, "FleetHttpClient"),
    ]
    before = [getattr(module, name) for module, name in kept]
    yield
    for (module, name), value in zip(kept, before, strict=True):
        setattr(module, name, value)


def test_flower_is_bound_where_it_takes_things_in(
    unbound: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(b"another")
    sent = Fab(run.fab_hash, b"another", {})

    class Connection:
        def __enter__(self) -> tuple[object, ...]:
            return (7, "receive", "send", lambda _: run, lambda *_: sent, "pull", "push", "confirm")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(start_client_internal, "_init_connection", lambda **_: Connection())
    bound(sha256(OURS))
    with start_client_internal._init_connection(server_address="x") as found:
        assert found[0] == 7
        assert (found[1], found[2], *found[5:]) == ("receive", "send", "pull", "push", "confirm")
        assert found[4](found[3](7).fab_hash, 7).content == b""
    assert fleet_http_connection.FleetHttpClient is supernode.BoundedFleetClient
    assert isinstance(start_client_internal.time, supernode.Pauses)
    assert "initial_backoff" in start_client_internal.pull_objects.keywords
    client = fleet_http_connection.FleetHttpClient.from_server_address("h:1", True, None, [])
    assert isinstance(client._client._transport, BoundedTransport)


def answer(**changes: Any) -> httpx.Response:
    """What a node reads of an answer."""
    given = httpx.Response(200, **changes)
    transport = BoundedTransport(httpx.MockTransport(lambda _: given))
    with httpx.Client(transport=transport) as client:
        return client.post("http://coordinator/")


def test_answers_that_are_small_and_plain_come_through() -> None:
    assert answer(content=b"x" * 2**20).content == b"x" * 2**20


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 2**20


@pytest.mark.parametrize(
    "changes",
    [
        {"content": gzip.compress(b"x" * 100), "headers": {"content-encoding": "gzip"}},
        {"content": b"x", "headers": {"content-encoding": "br"}},
        {"content": b"x", "headers": {"content-length": str(MAX_BODY + 1)}},
        {"content": b"x", "headers": {"content-length": "9" * 5000}},
        {"content": b"x", "headers": {"content-length": "-1"}},
        {"content": endless()},
    ],
)
def test_answers_that_are_packed_or_too_large_are_cut_off(changes: dict[str, Any]) -> None:
    with pytest.raises(TooLargeError):
        answer(**changes)


def test_the_process_has_no_more_memory_than_it_is_given() -> None:
    code = (
        "import sys; from clients.node import flower_supernode as f;"
        "from fl_ppseg.flower import supernode;"
        "supernode.flower_supernode = lambda: print(len(bytearray(int(sys.argv[1]))));"
        "raise SystemExit(f.main(['--max-memory', '1', '--', sys.argv[1]]))"
    )
    for size, status in ((2**20, 0), (2**31, 1)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(size)], cwd=CHECKOUT, capture_output=True, check=False
        )
        assert done.returncode == status
    assert b"MemoryError" in done.stderr
