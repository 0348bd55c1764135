"""The shape of the house: who may import whom, and how large a file may grow."""

import ast
from pathlib import Path

import grimp
import pytest

import fl_ppseg

ROOT = Path(fl_ppseg.__file__).parents[1]
PACKAGES = ("fl_ppseg", "clients", "strategies")
MAX_LINES = 300

SECRETS = ("fl_ppseg.keys", "fl_ppseg.ciphers", "fl_ppseg.adaptation")
IMAGES = (
    "fl_ppseg.dataset",
    "fl_ppseg.views",
    "fl_ppseg.preparation",
    "fl_ppseg.initial_weights",
)
FORBIDDEN = {
    "strategies": (*SECRETS, *IMAGES, "clients"),
    "clients": (
        "strategies",
        "fl_ppseg.initial_weights",
        "fl_ppseg.preparation",
        "fl_ppseg.simulate",
        "fl_ppseg.simulation",
    ),
    "fl_ppseg.messages": (*SECRETS, *IMAGES, "clients", "strategies"),
    "fl_ppseg.keys": ("fl_ppseg.ciphers", "fl_ppseg.config", "fl_ppseg.messages"),
    **{
        f"fl_ppseg.{name}": (*SECRETS, "clients", "strategies")
        for name in (
            "setr", "training", "evaluation", "classes", "config", "shard", "scores", "summary",
            "run_folder", "report", "progress", "dataset", "partition", "scenes", "convert",
        )
    },
}  # fmt: skip
"""Module or package -> what it may not reach, directly or through others."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None, exclude_type_checking_imports=True)


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("importer", FORBIDDEN)
def test_forbidden_imports(importer: str, graph: grimp.ImportGraph) -> None:
    assert importer in graph.modules
    for imported in FORBIDDEN[importer]:
        assert imported in graph.modules
        chains = graph.find_shortest_chains(importer, imported, as_packages=True)
        assert not chains, f"{importer} reaches {imported}: {sorted(chains)}"


def test_the_rule_can_fail(graph: grimp.ImportGraph) -> None:
    """What may reach keys does reach them, also through others."""
    for importer in ("clients", "fl_ppseg.ciphers", "fl_ppseg.simulation"):
        assert graph.find_shortest_chains(importer, "fl_ppseg.keys", as_packages=True)
    assert "fl_ppseg.keys" not in graph.find_modules_directly_imported_by("fl_ppseg.simulation")


def test_keys_need_the_standard_library_and_cryptography_alone() -> None:
    tree = ast.parse((ROOT / "fl_ppseg" / "keys.py").read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    assert found - {"cryptography", "fl_ppseg"} <= __import__("sys").stdlib_module_names
    own = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    named = [name for name in own if name.startswith("fl_ppseg")]
    assert named == ["fl_ppseg.atomic_file", "fl_ppseg.errors"]  # these need nothing else


def test_nothing_is_imported_where_the_graph_cannot_see() -> None:
    for path in files():
        text = path.read_text("utf-8")
        assert "importlib.import_module" not in text and "__import__" not in text, path


def test_packages_import_nothing_and_have_one_name_for_everything() -> None:
    """Whoever imports a module of a package loads that module alone."""
    for path in files():
        if path.name == "__init__.py":
            docstring, *rest = ast.parse(path.read_text("utf-8")).body
            assert isinstance(docstring, ast.Expr), path
            names = [ast.unparse(node).split(" = ")[0] for node in rest]
            assert names == (["__version__"] if path.parent == ROOT / "fl_ppseg" else []), path


def test_files_stay_short_and_are_nouns_of_the_field() -> None:
    for path in files():
        assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}, path
        assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES, path
