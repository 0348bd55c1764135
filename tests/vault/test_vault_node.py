"""The training node lives without the vault: another user, who cannot read it, trains a round."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
from fake_nodes import request
from flwr.app import Message, MessageType
from small_owner import Owner, files_in, python

from clients.client_app import REFUSED, app
from clients.policy.ledger import LEDGER, make_ledger, read_ledger
from clients.policy.node_policy import NODES_VARIABLE, state_path
from fl_ppseg.config.loading import load_config
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import pack_request
from fl_ppseg.flower.in_process import InProcessGrid

NOBODY = 65534
TRAIN = """
import json, os, sys
from pathlib import Path
import small_federation as small
from clients.client_app import app
from clients.policy.node_policy import NODES_VARIABLE
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.federation.messages import unpack_reply
from fl_ppseg.setr.names import EMBEDDING_TENSORS
sys.path.append("tests/vault")
from test_vault_node import ask, request_of

node, vault, config, warm = map(Path, sys.argv[1:])
def trained(folder):
    os.environ[NODES_VARIABLE] = str(folder)
    request = request_of(config, "train")
    reply = ask(InProcessGrid(app, 1), request)
    assert not reply.has_error(), reply.error.reason
    allowed = request.arrays.keys() - set(EMBEDDING_TENSORS)
    return small.bits(unpack_reply(reply.content, allowed).arrays)
first = trained(warm)  # imports what it needs, while it may
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
seen = {}
for path in (vault, vault / "master.key", vault / "manifests", config.parent / "tree"):
    try:
        seen[path.name] = bool(path.read_bytes() if path.suffix else list(path.iterdir()))
    except PermissionError:
        seen[path.name] = False
print(json.dumps({"uid": os.getuid(), "seen": seen, "equal": trained(node) == first}))
"""
"""Trains as root first, to have all imported, then as a user who may read its node folder alone."""


def request_of(config: Path, task: str) -> Request:
    """What a coordinator asks of a node in the first round."""
    settings = load_config(config)
    weights = {name: value.numpy() for name, value in small.model().state_dict().items()}
    return request(
        task=task,
        round=1,
        num_rounds=settings.federation.num_rounds,
        arm="per-client-private",
        embedding="private",
        num_classes=small.NUM_CLASSES,
        model=settings.model,
        training=settings.training,
        arrays=weights if task != "describe" else {},
    )


def ask(grid: InProcessGrid, request: Request) -> Message:
    kind = {"describe": MessageType.QUERY, "train": MessageType.TRAIN}.get(
        request.task, MessageType.EVALUATE
    )
    (reply,) = grid.send_and_receive([Message(pack_request(request), 2, kind)])
    return reply


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may walk through, unlike those of pytest."""
    found = Path(tempfile.mkdtemp(prefix="fl_ppseg-"))
    found.chmod(0o711)
    yield found
    shutil.rmtree(found)


@pytest.fixture
def owner(scenes: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    owner = Owner(scenes, place, capsys)
    owner.configure(training={"batch_size": 2})
    return owner.ready()


def as_node_0(owner: Owner, folder: Path) -> Path:
    """A copy of the node folder whose policy is that of partition 0."""
    shutil.copytree(owner.node, folder)
    (folder / "policy.yaml").rename(folder / "node_0000.yaml")
    state = state_path(folder, 0)
    state.mkdir(parents=True)
    make_ledger(state)
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_cannot_read_the_vault_trains_a_round(owner: Owner, place: Path) -> None:
    warm, node = (as_node_0(owner, place / name) for name in ("warm", "rented"))
    for path in (node, *node.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    tree = small.tree_of_links(owner.root, place / "tree")
    tree.chmod(0o700)
    keys = files_in(owner.vault)
    with python(TRAIN, node, owner.vault, owner.config, warm) as process:
        out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert json.loads(out.splitlines()[-1]) == {
        "uid": NOBODY,
        "seen": {"aachen": False, "master.key": False, "manifests": False, "tree": False},
        "equal": True,
    }
    assert files_in(owner.vault) == keys


def test_a_second_agreement_counts_anew_and_the_same_one_does_not(
    owner: Owner, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator gets no more questions for a run than its owner said yes to."""
    folder = as_node_0(owner, place / "node_0")
    monkeypatch.setenv(NODES_VARIABLE, str(folder))
    grid = InProcessGrid(app, 1)

    def granted() -> list[bool]:
        first = request_of(owner.config, "train")
        asked = [
            replace(first, arrays={n: v + np.float32(1e-5 * step) for n, v in first.arrays.items()})
            for step in range(5)
        ]
        return [not ask(grid, request).has_error() for request in asked]

    def hand_over() -> None:
        assert owner.encrypt()[0] == 0
        (folder / "node_0000.yaml").write_bytes((owner.node / "policy.yaml").read_bytes())

    assert granted() == [True] * 4 + [False]
    owner.configure(training={"batch_size": 3})
    hand_over()
    assert granted() == [True] * 4 + [False]
    owner.configure(training={"batch_size": 2})
    hand_over()
    assert granted() == [True] * 4 + [False]
    runs = {entry.run for entry in read_ledger(state_path(folder, 0) / LEDGER)}
    assert len(runs) == 2 and all(run and len(run) == 40 for run in runs)


@pytest.mark.parametrize("task", ["describe", "train", "evaluate"])
def test_a_withdrawn_client_answers_nothing_but_its_refusal(
    task: str, owner: Owner, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NODES_VARIABLE, str(as_node_0(owner, place / "before")))
    before = ask(InProcessGrid(app, 1), request_of(owner.config, task))
    assert not before.has_error()
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0
    monkeypatch.setenv(NODES_VARIABLE, str(as_node_0(owner, place / "after")))
    reply = ask(InProcessGrid(app, 1), request_of(owner.config, task))
    assert reply.has_error() and reply.error.code == REFUSED
    expected = "refused: aachen has withdrawn: its owner no longer takes part in training"
    assert reply.error.reason == expected
