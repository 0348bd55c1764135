"""A federation of real processes on loopback ports: SuperLink, proxy, SuperNodes, apps."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import small_federation as small
from checkout import CHECKOUT
from ports import free_ports

from clients.policy.node_policy import load_policy, policy_path, save_policy
from fl_ppseg.config.loading import dump_config
from fl_ppseg.config.sections import Config
from fl_ppseg.initialise import main as initialise
from fl_ppseg.system.command_line import run


@dataclass
class Background:
    """A command in the background, whose lines for a person are waited for."""

    command: list[str]
    place: Path
    process: subprocess.Popen[bytes] = field(init=False)
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.output = Path(tempfile.mkstemp(dir=self.place, suffix=".txt")[1])
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command, env=environment(), stdout=output, stderr=output, cwd=self.place
            )

    def wait_for(self, text: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while text not in self.output.read_text():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < end, self.output.read_text()
            time.sleep(0.1)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}


def command(module: str, *options: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, options)]


def call(module: str, *options: object) -> subprocess.CompletedProcess[str]:
    """A short command, in this process: Flower is imported already."""
    argv = [*map(str, options)]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        status = run(import_module(f"{module}.command").main, argv)
    return subprocess.CompletedProcess(argv, status, out.getvalue(), error.getvalue())


@dataclass
class Federated:
    """Where everything is."""

    folder: Path
    port: int
    link_port: int
    policies: dict[str, Path]

    @property
    def coordinator(self) -> str:
        return f"localhost:{self.port}"

    @property
    def authority(self) -> Path:
        return self.folder / "coordinator" / "ca.crt"

    def node(self, home: str, client: str, port: int, **changes: object) -> Background:
        options = {"coordinator": self.coordinator, "ca": self.authority, "port": port} | changes
        given = [text for name, value in options.items() for text in (f"--{name}", value)]
        return Background(
            command(
                *("clients.node", "start", "--home", self.folder / home),
                *("--policy", self.policies[client], *given),
            ),
            self.folder,
        )

    def train(self, *more: object, app: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
        home, folder = self.folder / "coordinator", self.folder / "run"
        options = ("run", "--home", home, "--run", folder, "--app", app, *more)
        return subprocess.run(
            command("strategies.coordinator", *options),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@contextmanager
def deployed(
    folder: Path, config: Config, train: Sequence[str], val: Sequence[str]
) -> Iterator[Federated]:
    """SuperLink, proxy and a SuperNode for each client, connected; stopped in the end.

    Args:
        folder: An empty one, but for what `config` reads.
        config: Of the run; its images are those of the clients.
        train: Clients that train, by name.
        val: Clients that only evaluate, by name.
    """
    clients = (*train, *val)
    owners = small.prepared(config, folder / "owners")
    policies = {client: policy_path(owners.nodes, number) for number, client in enumerate(clients)}
    for path in policies.values():  # of separate machines, where no run is prepared together
        save_policy(load_policy(path).model_copy(update={"run": None}), path)
    (folder / "config.yaml").write_text(dump_config(config))
    options = [
        "--config",
        folder / "config.yaml",
        "--train-clients",
        ",".join(train),
        "--val-clients",
        ",".join(val),
    ]
    initialise([*map(str, options), "--out", str(folder / "run")])

    port, link_port, *node_ports = free_ports(2 + len(clients))
    made = Federated(folder, port, link_port, policies)
    home = folder / "coordinator"
    init = ["init", "--home", home, "--host", "localhost", "--bind", "127.0.0.1"]
    assert not call(
        "strategies.coordinator", *init, "--port", port, "--link-port", link_port
    ).returncode
    pin = call("strategies.coordinator", "bundle").stdout.strip()
    for client in clients:
        assert not call(
            "clients.node", "init", "--home", folder / client, "--client", client
        ).returncode
        key = folder / client / "node.pub"
        assert not call("strategies.coordinator", "enrol", "--home", home, client, key).returncode
    running = [Background(command("strategies.coordinator", "start", "--home", home), folder)]
    running += [
        made.node(client, client, own, **{"bundle-hash": pin})
        for client, own in zip(clients, node_ports, strict=True)
    ]
    try:
        for process, client in zip(running[1:], clients, strict=True):
            process.wait_for(f"connected to localhost:{port} as {client}")
        yield made
    finally:
        statuses = [process.stop() for process in reversed(running)]
    assert statuses == [0] * len(running)
