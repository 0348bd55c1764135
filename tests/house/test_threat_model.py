"""The threat model's table names a test for each boundary: the tests must be there."""

import ast
import re

import pytest
from checkout import CHECKOUT as ROOT

TEXT = (ROOT / "docs/threat-model.md").read_text("utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "test_" in line]
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", TEXT)))


def test_every_boundary_names_a_test() -> None:
    section = TEXT.split("## Boundaries", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    bare = [row for row in rows if not re.search(r"`test_\w+\.py", row) and "---" not in row]
    heads = [row for row in bare if row.startswith("| what crosses")]
    assert bare == heads
    assert len(rows) - len(bare) > 30


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_the_named_test_exists(file: str, function: str) -> None:
    (path,) = (ROOT / "tests").rglob(file)
    tree = ast.parse(path.read_text("utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not function or function in functions
