"""Every command can be the first that its process imports of ours."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
CODE = """
import importlib, sys
for module in sys.argv[1:]:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("fl_ppseg", "clients", "strategies"):
            del sys.modules[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(module, error)
"""


def test_no_command_wants_another_module_to_be_imported_before_it() -> None:
    """Modules that import each other work from one side alone, which other tests do not see."""
    found = [
        path
        for package in ("fl_ppseg", "clients", "strategies")
        for path in (CHECKOUT / package).rglob("*.py")
        if "\ndef main(" in path.read_text("utf-8")
    ]
    names = [".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in sorted(found)]
    assert {"fl_ppseg.initialise", "clients.node.command", "clients.vault.command"} <= set(names)
    command = [sys.executable, "-c", CODE, *names]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
