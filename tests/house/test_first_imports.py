"""What a process loads: no framework where keys are made, none for the help of a command.

And every command can be the first that its process imports of ours.
"""

import subprocess
import sys

from checkout import CHECKOUT

from fl_ppseg import __version__

FRAMEWORKS = ("fastapi", "flwr", "grpc", "matplotlib", "ray", "scipy", "skimage", "timm", "torch")
DOORS = ("clients.vault.shards.embedding", "clients.vault.shards.start_model")
"""The modules of the vault that need PyTorch: to adapt an embedding, to make the first model."""
NO_COMMANDS = ("clients.node.flower_supernode", "strategies.server_app")
"""Modules with a `main` that nobody types."""
VAULT = """
import importlib, pkgutil, sys
import clients.vault
for found in pkgutil.walk_packages(clients.vault.__path__, "clients.vault."):
    if found.name not in ("clients.vault.__main__", *sys.argv[1:]):
        importlib.import_module(found.name)
print(*sys.modules)
"""
FIRST = """
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
HELP = """
import contextlib, importlib, io, sys

def said(main, *argv):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(argv)
    return out.getvalue()

for name in sys.argv[1:]:
    main = importlib.import_module(name).main
    table = said(main, "-h").partition("verbs (each has -h):\\n")[2].splitlines()
    for verb in [[], *([line.split()[0]] for line in table)]:
        length, version = len(said(main, *verb, "-h")), said(main, *verb, "--version")
        print(name, *verb or "-", length, version.strip().replace(" ", "="), *sys.modules)
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout


def with_main() -> list[str]:
    """Modules that have a `main`."""
    found = [
        path
        for package in ("fl_ppseg", "clients", "strategies")
        for path in (CHECKOUT / package).rglob("*.py")
        if "\ndef main(" in path.read_text("utf-8")
    ]
    return [".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in sorted(found)]


def test_no_command_wants_another_module_to_be_imported_before_it() -> None:
    """Modules that import each other work from one side alone, which other tests do not see."""
    names = with_main()
    assert {"fl_ppseg.initialise", "clients.node.command", "clients.vault.command"} <= set(names)
    assert run(FIRST, *names) == ""


def test_the_vault_loads_no_framework() -> None:
    """Not even one that a type alias would need: this process makes and holds master keys."""
    loaded = run(VAULT, *DOORS).split()
    assert {"clients.vault.keys.backup", "clients.vault.commands.images"} <= set(loaded)
    assert not set(FRAMEWORKS) & set(loaded)


def test_pytorch_comes_through_two_doors_and_flower_through_none() -> None:
    loaded = set(run(VAULT).split())
    assert set(DOORS) <= loaded and "torch" in loaded
    assert not {"flwr", "grpc", "ray"} & loaded


def test_help_and_version_of_every_command_and_verb_load_no_framework() -> None:
    names = [name for name in with_main() if name not in NO_COMMANDS]
    assert len(names) == 15
    shown = [line.split() for line in run(HELP, *names).splitlines()]
    assert [name for name, verb, *_ in shown if verb == "-"] == names
    # With the verbs of fl_ppseg, vault, coordinator, node, convert and describe.
    assert len(shown) == 15 + 15 + 15 + 9 + 4 + 3 + 3
    for name, verb, length, version, *loaded in shown:
        assert int(length) > 150, (name, verb)
        assert version == f"fl-ppseg={__version__}", (name, verb)
        assert not set(FRAMEWORKS) & set(loaded), (name, verb)
