"""A federation of real processes, a machine each, made with the commands that its people type."""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import yaml

from benchmarks.faults.network import Network
from benchmarks.faults.programs import Program, python
from clients.node import command as node
from clients.vault import command as vault
from fl_ppseg import initialise
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.scenes.cities import TRAIN_CITIES
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.system.errors import InputError
from strategies.coordinator import command as coordinator

ARM = "per-image-invariant"
VAL_CLIENT = "lindau"
NUM_ROUNDS = 4
NUM_IMAGES = 8
"""Of each training client."""
COORDINATOR = "coordinator"
PORT = 9443
LOOK_SECONDS = 0.2
ASK_SECONDS = 2.0
CONNECT_SECONDS = 300.0


class Federation:
    """Machines, folders and running commands; use it in a `with`."""

    def __init__(self, folder: Path, num_clients: int) -> None:
        self.folder = folder
        self.train = tuple(TRAIN_CITIES)[:num_clients]
        self.clients = (*self.train, VAL_CLIENT)
        self.network = Network((COORDINATOR, *self.clients))
        self.home = folder / COORDINATOR
        self.authority = self.home / "ca.crt"
        self.programs: dict[str, Program] = {}
        self.held: set[str] = set()
        """Machines that nobody starts again."""

    def __enter__(self) -> "Federation":
        if not (self.folder / "prepared").exists():
            self._prepare()
        self.network.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*self.clients, COORDINATOR]:
            if name in self.programs:
                self.programs.pop(name).stop()
        self.network.__exit__()

    def start(self, name: str, changes: Mapping[str, str] | None = None) -> Program:
        """Start the command of a machine, and keep it running from now on."""
        if name == COORDINATOR:
            command = python("strategies.coordinator", "start", "--home", self.home)
        else:
            command = self.node(name)
        output = self.folder / "logs" / f"{name}.txt"
        self.programs[name] = Program(self.network.on(name, command), output, changes)
        self.held.discard(name)
        return self.programs[name]

    def stop(self, name: str) -> None:
        """Stop the command of a machine for good."""
        self.held.add(name)
        self.programs.pop(name).stop()

    def node(self, client: str, **changes: object) -> list[str]:
        """The command that starts the node of a client."""
        address = f"{self.network.address(COORDINATOR)}:{PORT}"
        policy = self.folder / "data" / client / "policy.yaml"
        options = {"coordinator": address, "ca": self.authority, "policy": policy} | changes
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return python("clients.node", "start", "--home", self.folder / "nodes" / client, *words)

    def connect(self) -> None:
        """Start what does not run, and wait until all nodes are connected."""
        if COORDINATOR not in self.programs:
            self.wait_for(self.start(COORDINATOR), "ready: ")
        for client in self.clients:
            if client not in self.programs:
                self.start(client)
        end = time.monotonic() + CONNECT_SECONDS
        while time.monotonic() < end:
            self.look()
            if self.status().count(": connected") == len(self.clients):
                return
            time.sleep(ASK_SECONDS)
        raise TimeoutError(self.status())

    def status(self) -> str:
        """What the command `status` says."""
        command = python("strategies.coordinator", "status", "--home", self.home)
        words = self.network.on(COORDINATOR, command)
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    def look(self) -> None:
        """Start again what has ended."""
        for name, program in self.programs.items():
            if name not in self.held:
                program.look()

    def wait_for(self, program: Program, words: str, seconds: float = 120.0) -> str:
        """The first line of a program that holds some words."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in program.said():
                if words in line:
                    return line
            time.sleep(LOOK_SECONDS)
        raise TimeoutError(f"{words!r} was not said: {program.said()}")

    def run_folder(self, name: str, settings: Mapping[str, object], place: Path) -> RunFolder:
        """A copy of the start, with other settings of the federation."""
        target = place / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder / "start", target)
        config = yaml.safe_load((target / "config.yaml").read_text())
        config["federation"] |= settings
        (target / "config.yaml").write_text(yaml.safe_dump(config))
        return RunFolder(target)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        images = dict.fromkeys(self.train, NUM_IMAGES)
        tree = self.folder / "images"
        num = NUM_IMAGES * len(images)
        synthesize(tree, num_train=num, num_val=6, cities=(images, {VAL_CLIENT: 6}))
        named = [
            "--train-clients",
            ",".join(self.train),
            "--val-clients",
            VAL_CLIENT,
            "--arms",
            ARM,
        ]
        rounds = ["--set", f"federation.num_rounds={NUM_ROUNDS}", "--out", self.folder / "start"]
        _call(initialise.main, "--config", "quick", *named, *rounds)
        address = self.network.address(COORDINATOR)
        _call(coordinator.main, "init", "--home", self.home, "--ip", address)
        for client in self.clients:
            self._prepare_client(client, tree)
        (self.folder / "prepared").touch()

    def _prepare_client(self, client: str, tree: Path) -> None:
        owner = ["--vault", self.folder / "vault", "--client", client]
        config = self.folder / "start" / "config.yaml"
        split = "val" if client == VAL_CLIENT else "train"
        out = ["--split", split, "--out", self.folder / "data" / client, "--quiet"]
        home = self.folder / "nodes" / client
        _call(vault.main, "new", *owner)
        (self.folder / "vault" / client / "floor.yaml").write_text("min_heldout: 1\n")
        encrypt = ["encrypt", *owner, "--data-root", tree, "--config", config, *out]
        try:
            _call(vault.main, *encrypt)
        except InputError as question:  # what is agreed to, under its hash
            agree = str(question).rpartition("--agree ")[2]
            _call(vault.main, *encrypt, "--agree", agree)
        _call(node.main, "init", "--home", home, "--client", client)
        enrol = ["enrol", "--home", self.home, client, home / "node.pub"]
        _call(coordinator.main, *enrol)


def _call(main: Callable[[Sequence[str]], int], *options: object) -> None:
    """Type a command; in this process, as each start of Python takes its seconds."""
    with redirect_stdout(None), redirect_stderr(None):
        main([str(option) for option in options])
