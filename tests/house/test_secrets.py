"""No key, permutation or private embedding leaves its owner: every byte of a whole run is searched.

All keys that come to be during the run are noted, derived and disposable ones too, with every
permutation, codebook and mask drawn from them and every version of a private embedding; then all
that others get to see, and all that the coordinator holds in memory, is searched for each of them.
That the search finds what is planted is shown in test_audit_key_search.

One exception: `domain-adaptation` publishes an embedding adapted to the shared key, as its authors
do. Byte for byte it holds no secret, but beside the public one it gives a permutation away: that of
a key which such arms have for themselves.
"""

import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import grimp
import numpy as np
import pytest
import small_federation as small
import torch
from checkout import CHECKOUT as ROOT
from flwr.common.serde import message_to_proto
from safetensors.numpy import load_file

from clients.policy.node_policy import load_policy, policy_path, state_path
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.audit.containers import opened
from fl_ppseg.audit.key_search import (
    needles_of_embedding,
    needles_of_key,
    needles_of_permutation,
    search,
)
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.crypto.adaptation import linear_form
from fl_ppseg.crypto.ciphers.etc import EtcParameters
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import ClientKey, _Secret
from fl_ppseg.experiment import simulation
from fl_ppseg.report.conclusion import conclude
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.command_line import log_to
from strategies.rounds.federated import FederatedStrategy

PRIVATE_ARMS = ["per-client-private", "trained"]
SHARED_ARMS = ["conventional-2", "domain-adaptation"]
OWN_ARMS = ["per-client", "per-image", "per-image-derived", "every-cipher"]
ARMS = ["plain", *OWN_ARMS, *SHARED_ARMS, *PRIVATE_ARMS]
TRAINED = builtin_arms()["per-client-private"].model_dump() | {"private_rate": 0.1}
DERIVED = {
    "note": "keys an owner can make again",
    "key_mode": "per-image",
    "cipher": "shuffle",
    "block_scope": "common",
    "key_lifetime": "derived",
}
EVERY_CIPHER = DERIVED | {
    "note": "all that a cipher may draw",
    "key_mode": "per-client",
    "cipher": "+".join(CIPHERS),
}


class Run:
    """A whole run with all that was secret in it, and all that anybody else saw."""

    def __init__(self, scenes: Path, place: Path) -> None:
        self.secrets: set[bytes] = set()
        self.permutations: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        self.memory: dict[str, bytes] = {}
        self.global_weights: dict[str, Arrays] = {}
        table = {
            "per-image-derived": DERIVED,
            "every-cipher": EVERY_CIPHER,
            "trained": TRAINED,
        }
        settings = small.config(scenes, arms=ARMS, arm_table=table)
        with pytest.MonkeyPatch.context() as patch:
            self._watch(patch)
            self.experiment = small.prepared(settings, place)
            self._break_a_node()
            log_to(self.experiment.folder.log)
            self.recorder = small.Recorder()
            self.folder = small.federate(self.experiment, client_app=self.recorder)
            trials = simulation._key_trials(self.experiment)
            counts = simulation._val_counts(self.experiment, quiet=True)
            summary = simulation._summarise(self.experiment, 1.0, 1.0, trials, counts)
            pictures = partial(simulation._pictures, self.experiment)
            classes = self.experiment.classes
            conclude(self.experiment.config, self.folder, summary, classes, pictures)

    def _break_a_node(self) -> None:
        """One client's shard is gone in one arm: its node fails, and its log says how."""
        policy = load_policy(policy_path(self.experiment.nodes, 0))
        assert policy.role == "train"
        shutil.rmtree(policy.arms["per-image"].shards[0][0])

    def _watch(self, patch: pytest.MonkeyPatch) -> None:
        make = _Secret.__init__

        def noted(key: _Secret, secret: bytes) -> None:
            make(key, secret)
            self.secrets.add(secret)

        def drawn(name: str, draw: Callable[..., Any], *arguments: Any) -> Any:
            """Every row of what a cipher draws, but for the masks of etc: these are 4 bits."""
            parameters = draw(*arguments)
            is_etc = isinstance(parameters, EtcParameters)
            for rows in parameters[:1] if is_etc else parameters:
                self.permutations[name] |= set(map(tuple, rows.tolist()))
            return parameters

        count = FederatedStrategy.aggregate_evaluate

        def counted(strategy: FederatedStrategy, *arguments: Any) -> Any:
            """What the coordinator holds at the end of a round."""
            arm = strategy.run.request.arm
            self.global_weights[arm] = strategy.weights
            held = [strategy.weights, *strategy._optimizer.state.values()]
            arrays = [value for group in held for value in group.values()]
            place = f"memory of arm {arm} in round {strategy.log.round}"
            self.memory[place] = b"".join(map(np.ndarray.tobytes, arrays))
            return count(strategy, *arguments)

        patch.setattr(FederatedStrategy, "aggregate_evaluate", counted)
        patch.setattr(_Secret, "__init__", noted)
        for name, cipher in CIPHERS.items():
            patch.setattr(cipher, "draw", partial(drawn, name, cipher.draw))

    @cached_property
    def needles(self) -> set[bytes]:
        keys = {needle for secret in self.secrets for needle in needles_of_key(secret)}
        permutations = map(np.array, set().union(*self.permutations.values()))
        keys |= {needle for p in permutations for needle in needles_of_permutation(p)}
        return keys | {needle for e in self.embeddings for needle in needles_of_embedding(e)}

    @property
    def private_files(self) -> list[Path]:
        vaults, states = self.experiment.vault_dir, self.experiment.nodes / "state"
        return [
            *vaults.glob("*/private/*/*.safetensors"),
            *states.glob("*/private/*/*.safetensors"),
        ]

    @property
    def embeddings(self) -> list[np.ndarray]:
        """Every version of every private embedding, and those of their biases that were trained."""
        public = small.final(self.folder, "plain")
        found = []
        for path in self.private_files:
            weight, bias = (load_file(path)[name] for name in EMBEDDING_TENSORS)
            found.append(weight.reshape(len(weight), -1))
            if int(path.stem.removeprefix("round_")):
                assert (bias != public[EMBEDDING_TENSORS[1]]).all()
                found.append(bias[None])
        return found

    @property
    def messages(self) -> dict[str, bytes]:
        """All messages in both directions, as they travel."""
        both = [*self.recorder.received, *self.recorder.sent]
        return {
            f"message {number}": message_to_proto(message).SerializeToString()
            for number, message in enumerate(both)
        }

    @property
    def files(self) -> dict[str, bytes]:
        """The run folder, what the nodes get (policies, encrypted shards), and what they write.

        Private embeddings, as the owner made them or as the node trained them, are key material.
        """
        vaults = self.experiment.nodes.parents[1]
        given = [*self.experiment.nodes.rglob("*"), *vaults.glob("*/shards/**/*")]
        found = {path for path in [*self.folder.path.rglob("*"), *given] if path.is_file()}
        files = sorted(found - set(self.private_files))
        return {str(path): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(scenes, tmp_path_factory.mktemp("run"))


# The search.


def test_secrets_of_every_kind_were_noted(run: Run) -> None:
    """5 owners: a master and a client key each; a key a view for derived and disposable ones."""
    masters = {ClientKey.load(path)._secret for path in run.experiment.vault_dir.glob("*/*.key")}
    assert len(masters) == 5 + 1  # and the shared one
    assert masters <= run.secrets
    train = sum(len(run.experiment.partition.split(c)[0]) for c in run.experiment.partition.clients)
    num_views = 2 * train + (16 - train) + 4
    assert len(run.secrets) >= 5 + 5 + 2 * num_views
    assert run.permutations.keys() == CIPHERS.keys()
    assert len(run.permutations["shuffle"]) >= 5 + 5 + 2 * num_views
    assert all(len(found) >= 5 for found in run.permutations.values())
    lengths = {len(row) for rows in run.permutations.values() for row in rows}
    assert lengths == {192, 256}  # values of a block; bytes of a codebook
    # both arms' starts, and 2 rounds of 3 clients in the arm that trains them
    assert len(run.private_files) == 2 * 5 + 2 * 3
    assert len(run.embeddings) == len(run.private_files) + 2 * 3


def test_no_message_holds_a_secret(run: Run) -> None:
    messages = run.messages
    # 2 directions, a discovery of 5; an arm has 5 that evaluate its start, and 2 rounds, in which 3
    # train and 5 evaluate
    assert len(messages) == 2 * (5 + len(ARMS) * (5 + 2 * (3 + 5)))
    weights = small.final(run.folder, "plain")["decoder.classifier.conv.bias"].tobytes()
    assert any(weights in message for message in messages.values())
    assert search(messages.items(), run.needles) == set()


def test_the_coordinator_never_holds_a_secret(run: Run) -> None:
    """Its weights keep the public embedding that every run began with."""
    assert len(run.memory) == len(ARMS) * 2
    assert search(run.memory.items(), run.needles) == set()
    start = small.weights_of(small.model())
    for arm in PRIVATE_ARMS:
        weights = run.global_weights[arm]
        same = {name for name in start if np.array_equal(weights[name], start[name])}
        assert same == set(EMBEDDING_TENSORS)


def test_no_file_of_the_run_or_of_a_node_holds_a_secret(run: Run) -> None:
    files = run.files
    names = {Path(name).name for name in files}
    assert {
        "config.yaml",
        "partition.json",
        "results.jsonl",
        "summary.json",
        "report.html",
        "log.txt",
        "node.log",
        "ledger.jsonl",
        "val_images.safetensors",
    } <= names
    assert {"round_0002.safetensors", "node_0000.yaml", "manifest.json", "aachen.npy"} <= names
    assert any(Path(name).suffix in {".png", ".svg"} for name in files)
    insides = (member for name, content in files.items() for member in opened(name, content))
    assert search(insides, run.needles) == set()


def test_an_adapted_embedding_gives_its_own_key_alone(run: Run) -> None:
    """Whoever matches columns learns one permutation, and none of another arm's images."""
    start = small.weights_of(small.model())[EMBEDDING_TENSORS[0]].flatten(1).T
    final = small.final(run.folder, "domain-adaptation")[EMBEDDING_TENSORS[0]]
    published = torch.from_numpy(final).flatten(1).T
    matched = torch.cdist(published, start).argmin(dim=1).numpy()
    table = builtin_arms()
    shared, adapted = (
        linear_form("shuffle", ensure_shared_subkey(run.experiment.vault_dir, table[arm]), 8).index
        for arm in SHARED_ARMS
    )
    np.testing.assert_array_equal(matched, adapted)
    assert tuple(adapted) in run.permutations["shuffle"]
    assert not np.array_equal(adapted, shared)
    assert tuple(shared) in run.permutations["shuffle"]


def test_paths_of_the_owners_stay_in_the_nodes_log(run: Run) -> None:
    vaults = str(run.experiment.nodes.parents[1])
    shown = {
        path.name: path.read_text(errors="replace")
        for path in run.folder.path.rglob("*")
        if path.suffix in {".txt", ".jsonl", ".json", ".html"}
    }
    assert "the node failed with InputError" in shown["log.txt"]
    assert [name for name, text in shown.items() if vaults in text] == []
    assert vaults in (state_path(run.experiment.nodes, 0) / "node.log").read_text()


def test_the_vault_does_hold_its_keys(run: Run) -> None:
    """The same search, where the keys are: it would find them."""
    vaults = run.experiment.nodes.parents[1]
    secret = [*vaults.glob("*/master.key"), *run.private_files]
    keys = {str(path): path.read_bytes() for path in secret}
    assert search(keys.items(), run.needles) == keys.keys()


# The app bundle.


def bundled() -> set[str]:
    """Files of the checkout that the allow-list of the bundle names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["flwr"]["app"]["fab-include"]
    return {str(path.relative_to(ROOT)) for p in patterns for path in ROOT.glob(p)}


def test_bundle_is_code_and_never_touches_keys_or_images() -> None:
    assert {Path(name).suffix for name in bundled()} <= {".py", ".yaml", ""}
    for module in ("keys", "adaptation", "dataset", "views", "preparation", "panels", "simulation"):
        assert f"fl_ppseg/{module}.py" not in bundled()
    for package in ("clients/vault", "fl_ppseg/crypto/ciphers"):
        assert list((ROOT / package).glob("*.py"))
        assert not any(name.startswith(package) for name in bundled())


def test_bundle_holds_all_that_the_two_apps_import() -> None:
    graph = grimp.build_graph(
        "fl_ppseg", "clients", "strategies", cache_dir=None, exclude_type_checking_imports=True
    )
    for app in ("clients.client_app", "strategies.server_app"):
        for module in {app} | graph.find_upstream_modules(app):
            path = module.replace(".", "/")
            assert {f"{path}.py", f"{path}/__init__.py"} & bundled(), module


@pytest.mark.federated
def test_the_app_bundle_holds_no_secret(run: Run, tmp_path: Path) -> None:
    """Built from a copy of the checkout in which a careless owner left a key."""
    copy = tmp_path / "checkout"
    for name in ("fl_ppseg", "clients", "strategies", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (file for file in ROOT.iterdir() if file.is_file()):
        shutil.copy(path, copy / path.name)
    careless = ClientKey.generate()
    for folder in ("clients", "strategies", "fl_ppseg/setr", "configs"):
        careless.save(copy / folder / "master.key")
    flwr = Path(sys.executable).with_name("flwr")
    subprocess.run([flwr, "build", "--app", copy], check=True, cwd=tmp_path, capture_output=True)
    (bundle,) = tmp_path.rglob("*.fab")
    assert {"clients/client_app.py", "strategies/server_app.py"} <= {*ZipFile(bundle).namelist()}
    needles = run.needles | set(needles_of_key(careless._secret))
    assert search(opened("the bundle", bundle.read_bytes()), needles) == set()
