"""A process that runs one federation again and again, each time killed elsewhere, and resumes it.

    python killed_server.py PLACE BACKUP NODES     prints JSON: what came of each case

A case is a forked child that kills itself with SIGKILL at one point of round 2; another child goes
on with what is left. This process never computes: its children start from clean libraries.
"""

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import small_federation as small

from clients.client_app import app
from fl_ppseg.federation import run_folder
from fl_ppseg.federation.results import Line
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.files import sha256

ARM = "trained"
NUM_NODES = 5
Arm = Callable[[], object]
"""Sets the trap in the child."""
HERE = threading.Event()
"""Set while round 2 is under way."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Client:
    """The node's app; dies before or after the n-th update of round 2."""

    def __init__(self, dies_at: int = 0, after: bool = False) -> None:
        self.number, self.dies_at, self.after = 0, dies_at, after

    def __call__(self, message: Any, context: Any) -> Any:
        settings = message.content.config_records["settings"]
        if settings["round"] == 2:
            HERE.set()
        is_mine = (settings["task"], settings["round"]) == ("train", 2)
        self.number += is_mine
        if is_mine and self.number == self.dies_at and not self.after:
            die()
        reply = app(message, context)
        if is_mine and self.number == self.dies_at and self.after:
            die()
        return reply


def at_replace(of: str, after: bool) -> None:
    """Die when a file takes its place, with its new content there or not."""
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        is_mine = HERE.is_set() and str(target).endswith(of)
        if is_mine and not after:
            die()
        done = original(self, target)
        if is_mine:
            die()
        return done

    Path.replace = replace  # type: ignore[method-assign,assignment]


def at_unlink(of: str) -> None:
    """Die when a file has been removed."""
    original = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        original(self, missing_ok)
        if HERE.is_set() and str(self).endswith(of):
            die()

    Path.unlink = unlink  # type: ignore[method-assign]


def in_the_lines(part: float) -> None:
    """Die when a part of the lines of round 2 is written."""
    original = run_folder._append

    def append(path: Path, text: str) -> None:
        if not HERE.is_set():
            return original(path, text)
        original(path, text[: int(part * len(text))])
        return die()

    run_folder._append = append


PRIVATE = "0/round_0002.safetensors"
CASES: dict[str, tuple[Client, Arm]] = {
    "undisturbed": (Client(), lambda: None),
    "before the second update": (Client(2), lambda: None),
    "after the second update": (Client(2, after=True), lambda: None),
    "after the last update": (Client(3, after=True), lambda: None),
    "no line written": (Client(), lambda: in_the_lines(0.0)),
    "half of the lines written": (Client(), lambda: in_the_lines(0.5)),
    "all lines written, no checkpoint": (Client(), lambda: in_the_lines(1.0)),
    "weights written, not in place": (
        Client(),
        lambda: at_replace("seed_0/round_0002.safetensors", after=False),
    ),
    "weights without description": (
        Client(),
        lambda: at_replace("seed_0/round_0002.safetensors", after=True),
    ),
    "checkpoint in place": (Client(), lambda: at_replace("round_0002.json", after=True)),
    "old checkpoint half removed": (Client(), lambda: at_unlink("round_0001.json")),
}


def restore(place: Path, backup: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(backup, place, symlinks=True)


def in_child(work: Callable[[], object]) -> int:
    """Exit status of a forked child; minus the signal that ended it."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def federate(run: Any, client: Client, trap: Arm) -> None:
    trap()
    small.federate(run, client_app=client)


def outcome(run: Any, place: Path) -> dict[str, Any]:
    folder: RunFolder = run.folder
    last = folder.latest(ARM, 0)
    assert last is not None
    private = sorted(path for path in place.rglob("private/*/**/round_*.safetensors"))
    return {
        "round": last.round,
        "weights": small.bits(last.arrays),
        "optimizer": {name: small.bits(a) for name, a in last.optimizer.items()},
        "private": {str(path.relative_to(place)): sha256(path) for path in private},
        "lines": [without_time(line) for line in folder.lines()],
        "checkpoints": sorted(path.name for path in (folder.path / ARM / "seed_0").iterdir()),
        "left": [path.name for path in folder.path.rglob(".*")],
    }


def without_time(line: Line) -> Line:
    return {name: value for name, value in line.items() if name != "seconds"}


def main(arguments: Iterable[str]) -> None:
    place, backup, nodes = map(Path, arguments)
    run = SimpleNamespace(folder=RunFolder(place / "run"), nodes=nodes, num_nodes=NUM_NODES)
    found = {}
    for name, (client, trap) in CASES.items():
        restore(place, backup)
        status = in_child(lambda client=client, trap=trap: federate(run, client, trap))  # type: ignore[misc]
        if name != "undisturbed":
            again = in_child(lambda: federate(run, Client(), lambda: None))
        found[name] = {"status": status, "again": again if name != "undisturbed" else 0}
        found[name] |= outcome(run, place)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
