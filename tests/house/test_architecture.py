"""The shape of the house: who may import whom, and how large a file may grow."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import fl_ppseg
from clients.policy.node_policy import NODES
from clients.vault import layout as vault_layout
from fl_ppseg.config import run_layout

ROOT = Path(fl_ppseg.__file__).parents[1]
PACKAGES = ("fl_ppseg", "clients", "strategies")
MAX_LINES = 300

LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
OUTCOME = re.compile(r"^(.+) (KEPT|BROKEN)(?: \(\d+ ignored imports?\))?$", re.MULTILINE)
ATTACKS = "An attack knows what it is given: no key, no vault, no truth"
KEY_IN_AN_ATTACK = {"fl_ppseg/audit/attacks/colours.py": "fl_ppseg.crypto.keys"}
ONE_FOR_EACH = KEY_IN_AN_ATTACK | {
    "fl_ppseg/audit/identity/plates.py": "fl_ppseg.crypto.keys",
    "fl_ppseg/system/errors.py": "fl_ppseg.config.names",
    "clients/policy/ledger.py": "clients.private_state",
    "clients/vault/layout.py": "clients.vault.keys.erasure",
    "strategies/aggregation/robust.py": "strategies.rounds.registry",
    "strategies/aggregation/norms.py": "fl_ppseg.crypto.ciphers.registry",
    "fl_ppseg/federation/message_fields.py": "fl_ppseg.data.views",
    "fl_ppseg/learning/scores.py": "fl_ppseg.crypto.adaptation",
    "fl_ppseg/crypto/keys.py": "fl_ppseg.config.names",
    "fl_ppseg/secure_sum/shares.py": "fl_ppseg.data.blocks",
    "clients/vault/keys/backup.py": "flwr.app",
    "clients/vault/wording.py": "torch",
    "fl_ppseg/service/queries.py": "clients.query",
    "clients/node/limits.py": "clients.vault.keys.keyring",
}
"""Imports, of which each breaks a contract: file -> what it would import."""


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def contracts() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return {each["name"] for each in settings["tool"]["importlinter"]["contracts"]}


def broken(root: Path) -> set[str]:
    """Names of the import contracts of pyproject.toml that the packages in a folder break."""
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "200"}
    command = [sys.executable, "-c", LINT]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    outcomes = dict(OUTCOME.findall(done.stdout))
    assert outcomes.keys() == contracts(), done.stdout + done.stderr
    return {name for name, outcome in outcomes.items() if outcome == "BROKEN"}


def copied(folder: Path, imports: Mapping[str, str]) -> Path:
    """A copy of the packages in which some files import more than they do."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, module in imports.items():
        file = folder / name
        file.write_text(f"{file.read_text('utf-8')}\n\nimport {module}\n", "utf-8")
    return folder


def test_the_import_contracts_are_kept() -> None:
    assert broken(ROOT) == set()


def test_a_key_in_an_attack_breaks_the_contract_of_attacks_alone(tmp_path: Path) -> None:
    assert broken(copied(tmp_path, KEY_IN_AN_ATTACK)) == {ATTACKS}


def test_every_contract_can_be_broken(tmp_path: Path) -> None:
    assert broken(copied(tmp_path, ONE_FOR_EACH)) == contracts()


def test_keys_need_the_standard_library_and_cryptography_alone() -> None:
    tree = ast.parse((ROOT / "fl_ppseg" / "crypto" / "keys.py").read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    assert found - {"cryptography", "fl_ppseg"} <= sys.stdlib_module_names
    own = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    named = [name for name in own if name.startswith("fl_ppseg")]
    assert named == [
        "fl_ppseg.system.atomic_file",
        "fl_ppseg.system.errors",
    ]  # these need nothing else


LIBRARY = ROOT / "fl_ppseg" / "__init__.py"
"""What `import fl_ppseg` offers: the one module that passes on what others define, when it is asked
for. It names them for type checkers and for the graph of imports as well, and
`tests/inference/test_library.py` holds both to be the same."""


def test_nothing_is_imported_where_the_graph_cannot_see() -> None:
    for path in files():
        text = path.read_text("utf-8")
        assert path == LIBRARY or ("import_module" not in text and "__import__" not in text), path
        is_door = path == ROOT / "fl_ppseg" / "progress" / "plug_ins.py"  # of the user's own code
        assert is_door or "resolve_name" not in text, path


def test_packages_import_nothing_and_have_one_name_for_everything() -> None:
    """Whoever imports a module of a package loads that module alone."""
    for path in files():
        if path.name == "__init__.py":
            docstring, *rest = ast.parse(path.read_text("utf-8")).body
            assert isinstance(docstring, ast.Expr), path
            assert path == LIBRARY or not rest, path


LAYOUTS = {
    "fl_ppseg/config/run_layout.py": {
        *run_layout.TAKEN,
        run_layout.LEAKS,
        run_layout.RELEASES,
        run_layout.SUMS,
    },
    "clients/vault/layout.py": [
        value for name, value in vars(vault_layout).items() if name.isupper() and name != "LOCK"
    ],
    "clients/policy/node_policy.py": {NODES},
}
"""The one file that knows where things lie in a run folder, in a vault, and beside the vaults."""


def test_no_room_imports_the_library_that_is_made_of_them() -> None:
    for path in {*files()} - {LIBRARY}:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert "fl_ppseg" not in [alias.name for alias in node.names], path
            elif isinstance(node, ast.ImportFrom):
                assert node.module != "fl_ppseg", path


def test_every_name_is_imported_from_the_module_that_defines_it() -> None:
    for path in {*files()} - {LIBRARY}:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert all(alias.asname != alias.name for alias in node.names), path
            elif isinstance(node, ast.Assign):  # mypy refuses what else would be passed on
                assert ast.unparse(node.targets[0]) != "__all__", path


def test_layouts_are_written_down_once() -> None:
    """By names that mean nothing else: words such as figures and shards are not looked for."""
    homes = {ROOT / home for home in LAYOUTS}
    for home, values in LAYOUTS.items():
        names = {value for value in values if isinstance(value, str)}
        names = {name for name in names if name.count(".") == 1 or name == vault_layout.RECORDS}
        assert names
        for path in {*files()} - homes:
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            texts = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
            assert not names & texts, (path, home)


def test_one_room_knows_what_flower_does_not_promise() -> None:
    """Outside it stand Flower's public names alone."""
    promised = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
    for path in files():
        if (ROOT / "fl_ppseg" / "flower") in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flwr"):
                assert node.module in promised, path
                assert not any(alias.name.startswith("_") for alias in node.names), path
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("flwr") for alias in node.names), path


def test_a_folder_is_a_room_and_a_file_of_fl_ppseg_a_command() -> None:
    for path in (ROOT / "fl_ppseg").glob("*.py"):
        text = path.read_text("utf-8")
        assert path.name == "__init__.py" or "def main(" in text, path


def test_files_stay_short_and_are_nouns_of_the_field() -> None:
    for path in files():
        assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}, path
        assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES, path
