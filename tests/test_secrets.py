"""No key, permutation or private embedding leaves its owner: every byte of a whole run is searched.

All keys that come to be during the run are noted, derived and disposable ones too, with every
permutation, codebook and mask drawn from them and every version of a private embedding; then all
that others get to see, and all that the coordinator holds in memory, is searched for each of them.

One exception: `domain-adaptation` publishes an embedding adapted to the shared key, as its authors
do. Byte for byte it holds no secret, but beside the public one it gives a permutation away: that of
a key which such arms have for themselves.
"""

import base64
import io
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import grimp
import numpy as np
import pytest
import small_federation as small
import torch
import yaml
from flwr.common.serde import message_to_proto
from safetensors.numpy import load_file

from clients.policy import load_policy, policy_path
from clients.vault import shared_subkey
from fl_ppseg import simulation
from fl_ppseg.adaptation import linear_form
from fl_ppseg.ciphers import CIPHERS
from fl_ppseg.ciphers.etc import EtcParameters
from fl_ppseg.command_line import log_to
from fl_ppseg.config import builtin_arms
from fl_ppseg.keys import ClientKey, _Secret
from fl_ppseg.messages import Arrays
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from strategies.city_strategy import CityStrategy

ROOT = Path(__file__).parents[1]
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
NON_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
TO_SPACES = bytes.maketrans(NON_DIGITS, b" " * len(NON_DIGITS))


def needles_of_key(secret: bytes) -> Iterator[bytes]:
    """A secret as raw bytes, hex, and base64 wherever it stands in what was encoded."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for skip in range(3):
        whole = base64.b64encode(bytes(skip) + secret)
        start, end = -(-8 * skip // 6), (8 * (skip + len(secret))) // 6
        yield whole[start:end]
        yield whole[start:end].translate(bytes.maketrans(b"+/", b"-_"))


def needles_of_permutation(permutation: np.ndarray) -> Iterator[bytes]:
    """How a permutation and its inverse begin: integers of any usual size, raw, hex or base64.

    And as decimal text, the way `numbers_in` renders all layouts of it. The inverse is what sorts:
    of a codebook the inverse too, of a mask the places that are not chosen, then those that are.
    """
    for order in (permutation, np.argsort(permutation, kind="stable")):
        begin = order[:64]  # of a restricted shuffle most values stay: less might be 0, 1, 2, ...
        for dtype in ("uint8", "<u2", ">u2", "<i4", ">i4", "<i8", ">i8"):
            yield from needles_of_key(begin.astype(dtype).tobytes())
        yield " ".join(map(str, begin.tolist())).encode()


def numbers_in(text: bytes) -> bytes:
    """The runs of digits alone, a space between any two: JSON, YAML and tables look the same."""
    return b" ".join(text.translate(TO_SPACES).split())


def needles_of_embedding(weight: np.ndarray) -> Iterator[bytes]:
    """A patch embedding (D, L) or its bias (1, D), whichever way it lies in memory.

    Every row and every column by how it begins: raw in half, single and double precision, and the
    single one as text.
    """
    for layout in (weight, weight.T) if len(weight) > 1 else (weight,):
        for dtype in ("<f2", "<f4", "<f8"):
            for row in layout.astype(dtype):
                begin = row.tobytes()[:48]
                yield begin
                if dtype == "<f4":
                    yield from list(needles_of_key(begin))[1:]


def anchor(needle: bytes) -> int:
    """Where those 8 bytes near a needle's start begin that are least like padding."""
    return max(
        range(min(64, len(needle) - 7)), key=lambda start: len(set(needle[start : start + 8]))
    )


def found_in(haystacks: Mapping[str, bytes], needles: Iterable[bytes]) -> set[str]:
    """Names of the haystacks that hold a needle, at any offset, as they are or as numbers."""
    anchored: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for needle in needles:
        start = anchor(needle)
        word = int.from_bytes(needle[start : start + 8], "little")
        anchored[word].append((start, needle))
    wanted = np.array(sorted(anchored), "<u8")
    return {
        name
        for name, text in haystacks.items()
        if any(_holds(form, wanted, anchored) for form in (text, numbers_in(text)))
    }


def _holds(text: bytes, wanted: np.ndarray, anchored: Mapping[int, Any]) -> bool:
    for offset in range(min(8, max(0, len(text) - 7))):
        words = np.frombuffer(text, "<u8", (len(text) - offset) // 8, offset)
        places = wanted.searchsorted(words).clip(max=len(wanted) - 1)
        for index in np.flatnonzero(wanted[places] == words).tolist():
            for start, needle in anchored[int(words[index])]:
                begin = offset + 8 * index - start
                if begin >= 0 and text.startswith(needle, begin):
                    return True
    return False


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
            summary = simulation._summarise(self.experiment, 1.0, 1.0, trials)
            simulation._report(self.experiment, summary)

    def _break_a_node(self) -> None:
        """One city's shard is gone in one arm: its node fails, and its log says how."""
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

        count = CityStrategy.aggregate_evaluate

        def counted(strategy: CityStrategy, *arguments: Any) -> Any:
            """What the coordinator holds at the end of a round."""
            arm = strategy.run.request.arm
            self.global_weights[arm] = strategy.weights
            held = [strategy.weights, *strategy._optimizer.state.values()]
            arrays = [value for group in held for value in group.values()]
            place = f"memory of arm {arm} in round {strategy.log.round}"
            self.memory[place] = b"".join(map(np.ndarray.tobytes, arrays))
            return count(strategy, *arguments)

        patch.setattr(CityStrategy, "aggregate_evaluate", counted)
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
        return list(self.experiment.vault_dir.glob("*/private/*/*.safetensors"))

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
        """The run folder, and what the nodes get: policies and encrypted shards."""
        vaults = self.experiment.nodes.parents[1]
        given = [*self.experiment.nodes.rglob("*"), *vaults.glob("*/shards/**/*")]
        files = [path for path in [*self.folder.path.rglob("*"), *given] if path.is_file()]
        return {str(path): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(scenes, tmp_path_factory.mktemp("run"))


# The search can find what it searches for.


@pytest.mark.parametrize("prefix", [b"", b"a", b"ab", b"abc"])
def test_search_finds_a_planted_key(prefix: bytes) -> None:
    secret = np.random.default_rng(0).bytes(32)
    data = prefix + secret + b"tail"
    for form in (
        data,
        data.hex().encode(),
        data.hex().upper().encode(),
        base64.b64encode(data),
        base64.urlsafe_b64encode(data),
        json.dumps({"key": secret.hex()}).encode(),
    ):
        planted = {"clean": bytes(100), "planted": b"before " + form + b" after"}
        assert found_in(planted, needles_of_key(secret)) == {"planted"}
    assert not found_in({"clean": bytes(1000)}, needles_of_key(secret))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", ">i4"])
def test_search_finds_a_planted_permutation(dtype: str) -> None:
    permutation = np.random.default_rng(0).permutation(192)
    array = permutation.astype(dtype)
    saved = io.BytesIO()
    np.save(saved, array)
    for form in (
        array.tobytes(),
        saved.getvalue(),
        base64.b64encode(b"x" + array.tobytes()),
        array.tobytes().hex().encode(),
        json.dumps(permutation.tolist()).encode(),
        json.dumps(permutation.tolist(), separators=(",", ":")).encode(),
        json.dumps({"order": permutation.tolist()}, indent=1).encode(),
        yaml.safe_dump({"order": permutation.tolist()}).encode(),
    ):
        planted = {"clean": bytes(1000), "planted": form}
        assert found_in(planted, needles_of_permutation(permutation)) == {"planted"}
        assert found_in(planted, needles_of_permutation(np.argsort(permutation))) == {"planted"}
    other = np.random.default_rng(1).permutation(192)
    assert not found_in({"another": form}, needles_of_permutation(other))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_search_finds_a_planted_embedding(dtype: str, order: Any) -> None:
    weight = np.random.default_rng(0).standard_normal((32, 192)).astype("float32")
    forms = [weight.astype(dtype).tobytes(order)]
    if dtype == "float32":
        forms += [forms[0].hex().encode(), base64.b64encode(b"x" + forms[0])]
    for form in forms:
        planted = {"clean": bytes(1000), "planted": b"before" + form}
        assert found_in(planted, needles_of_embedding(weight)) == {"planted"}


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
    # both arms' starts, and 2 rounds of 3 cities in the arm that trains them
    assert len(run.private_files) == 2 * 5 + 2 * 3
    assert len(run.embeddings) == len(run.private_files) + 2 * 3


def test_no_message_holds_a_secret(run: Run) -> None:
    messages = run.messages
    # 2 directions, a roll call of 5; an arm has 2 rounds, 3 that train and 5 that evaluate
    assert len(messages) == 2 * (5 + len(ARMS) * 2 * (3 + 5))
    weights = small.final(run.folder, "plain")["decoder.classifier.conv.bias"].tobytes()
    assert any(weights in message for message in messages.values())
    assert found_in(messages, run.needles) == set()


def test_the_coordinator_never_holds_a_secret(run: Run) -> None:
    """Its weights keep the public embedding that every run began with."""
    assert len(run.memory) == len(ARMS) * 2
    assert found_in(run.memory, run.needles) == set()
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
        "nodes.log",
    } <= names
    assert {"round_0002.safetensors", "node_0000.yaml", "manifest.json", "aachen.npy"} <= names
    assert any(Path(name).suffix in {".png", ".svg"} for name in files)
    assert found_in(files, run.needles) == set()


def test_an_adapted_embedding_gives_its_own_key_alone(run: Run) -> None:
    """Whoever matches columns learns one permutation, and none of another arm's images."""
    start = small.weights_of(small.model())[EMBEDDING_TENSORS[0]].flatten(1).T
    final = small.final(run.folder, "domain-adaptation")[EMBEDDING_TENSORS[0]]
    published = torch.from_numpy(final).flatten(1).T
    matched = torch.cdist(published, start).argmin(dim=1).numpy()
    table = builtin_arms()
    shared, adapted = (
        linear_form("shuffle", shared_subkey(run.experiment.vault_dir, table[arm]), 8).index
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
    assert vaults in (run.experiment.nodes / "nodes.log").read_text()


def test_the_vault_does_hold_its_keys(run: Run) -> None:
    """The same search, where the keys are: it would find them."""
    vaults = run.experiment.nodes.parents[1]
    secret = [*vaults.glob("*/master.key"), *run.private_files]
    keys = {str(path): path.read_bytes() for path in secret}
    assert found_in(keys, run.needles) == keys.keys()


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
    for package in ("clients/vault", "fl_ppseg/ciphers"):
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
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert {"clients/client_app.py", "strategies/server_app.py"} <= content.keys()
    needles = run.needles | set(needles_of_key(careless._secret))
    assert found_in({"the bundle itself": bundle.read_bytes()} | content, needles) == set()
