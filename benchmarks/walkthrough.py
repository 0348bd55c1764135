"""The walk-through, typed as it stands, on three machines that are network namespaces of this one.

    sudo python -m benchmarks.walkthrough [--folder DIR]

Reads the blocks of docs/walkthrough.md that name a machine, and runs them in their
order, each machine with an address and a /srv of its own. What people send each other is copied
between the blocks. Says the seconds of each block, and what every command said at the end.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.network import Network
from benchmarks.faults.programs import CHECKOUT, Program

DOCUMENT = CHECKOUT / "docs" / "walkthrough.md"
BLOCK = re.compile(
    r'^```sh title="(?P<machine>\w+)(?: \((?P<how>stays|asks)\))?"\n(?P<lines>.*?)^```$',
    re.M | re.S,
)
AGREEMENT = re.compile(r"--agree ([0-9a-f]+)")
ASKED = 2
"""Exit status of a command that wants somebody to agree."""
COORDINATOR = "coordinator"
HOST = "coordinator.example"
READY = {COORDINATOR: "ready: nodes call", "aachen": "connected to", "bochum": "connected to"}
SECONDS = 600.0


class Block(NamedTuple):
    """Commands for one machine."""

    machine: str
    lines: str
    how: str | None
    """`stays`: they run until they are stopped; `asks`: they end with what is to be agreed to."""


def blocks(text: str) -> list[Block]:
    """The blocks of a document that name a machine, in order."""
    return [Block(found["machine"], found["lines"], found["how"]) for found in BLOCK.finditer(text)]


class Machines:
    """Three machines; use them in a `with`."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.network = Network(names, "walk", "10.78.0")
        for name in names:
            self.files(name).mkdir(parents=True)
        (folder / "hosts").write_text(
            f"127.0.0.1 localhost\n{self.network.address(COORDINATOR)} {HOST}\n"
        )
        self.variables: dict[str, str] = {}

    def files(self, machine: str) -> Path:
        """Where a machine's /srv/work lies, in which its person types."""
        return self.folder / machine / "work"

    def type(self, machine: str, lines: str, name: str) -> Program:
        """Run lines of a shell on a machine."""
        own = self.folder / machine
        python = Path(sys.executable).parent
        script = "\n".join(
            (
                f"set -e; mount --bind {own} /srv; mount --bind {self.folder}/hosts /etc/hosts",
                f"PATH={python}:$PATH; cd /srv/work; umask 022",
                lines,
            )
        )
        shell = ["unshare", "--mount", "bash", "-c", script]
        output = self.folder / f"{name}.txt"
        return Program(self.network.on(machine, shell), output, self.variables)

    def send(self, path: str, source: str, target: str, name: str | None = None) -> None:
        """Copy a file of one machine's /srv to where another's person works."""
        found = self.folder / source / path
        shutil.copyfile(found, self.files(target) / (name or found.name))


def walk(folder: Path) -> Iterator[str]:
    """Type all blocks; yields a line for each."""
    typed = blocks(DOCUMENT.read_text(encoding="utf-8"))
    machines = Machines(folder, list(dict.fromkeys(block.machine for block in typed)))
    with machines.network, ExitStack() as running:
        for number, block in enumerate(typed, 1):
            begin = time.monotonic()
            program = machines.type(block.machine, block.lines, f"{number:02d}-{block.machine}")
            if block.how == "stays":
                running.callback(program.stop)
                wait_for(program, READY[block.machine])
            elif program.wait(SECONDS) != (ASKED if block.how == "asks" else 0):
                raise SystemExit("\n".join([block.lines, *program.said()]))
            seconds = time.monotonic() - begin
            yield f"{number}. {block.machine}: {seconds:.0f} s: {block.lines.splitlines()[0]}"
            yield from (f"    {line}" for line in program.said())
            deliver(machines, block, program)


def deliver(machines: Machines, block: Block, program: Program) -> None:
    """Send what the document says is sent after a block."""
    if "strategies.coordinator bundle" in block.lines:
        machines.variables["HASH"] = program.said()[-1]
        for client in ("aachen", "bochum"):
            machines.send("coordinator/ca.crt", COORDINATOR, client)
            machines.send("runs/first/config.yaml", COORDINATOR, client)
    if block.how == "asks":
        (machines.variables["AGREED"],) = AGREEMENT.findall(program.said()[-1])
    for home, client in re.findall(r"node init --home /srv/(\S+) --client (\w+)", block.lines):
        machines.send(f"{home}/node.pub", block.machine, COORDINATOR, f"{client}.pub")


def wait_for(program: Program, words: str) -> None:
    """Wait until a program has said some words."""
    end = time.monotonic() + SECONDS
    while not any(words in line for line in program.said()):
        if program.process.poll() is not None or time.monotonic() > end:
            raise SystemExit("\n".join(program.said()))
        time.sleep(0.2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.walkthrough", description="Type the walk-through; as root."
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        for line in walk(options.folder or Path(scratch)):
            print(line, flush=True)
