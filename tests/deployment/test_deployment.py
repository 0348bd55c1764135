"""A federation of real processes on loopback ports: SuperLink, proxy, SuperNodes, apps."""

import http.client
import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import httpx
import pytest
import small_federation as small
import yaml
from checkout import CHECKOUT
from fastapi.routing import iter_route_contexts
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.routers.runtime import create_runtime_router
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.routers.control import router as control_router
from ports import free_ports

from clients.policy.node_policy import load_policy, policy_path, save_policy
from fl_ppseg.config.loading import dump_config
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.superlink import read_bundle
from fl_ppseg.initialise import main as initialise
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.system.command_line import run

CLIENTS = ("aachen", "lindau")
MARK = "the shipped code ran"

pytestmark = [
    pytest.mark.federated,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (apt-get install)"),
]


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

    def train(self, app: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
        home, folder = self.folder / "coordinator", self.folder / "run"
        options = ("run", "--home", home, "--run", folder, "--app", app)
        return subprocess.run(
            command("strategies.coordinator", *options),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federated]:
    folder = tmp_path_factory.mktemp("federated")
    synthesize(
        folder / "tree",
        num_train=4,
        num_val=2,
        size=(32, 64),
        cities=({"aachen": 4}, {"lindau": 2}),
    )
    quick = small.SETTINGS["federation"] | {"wait_seconds": 20}
    config = small.config(folder / "tree", arms=["per-image"], clients=1, federation=quick)
    owners = small.prepared(config, folder / "owners")
    policies = {client: policy_path(owners.nodes, number) for number, client in enumerate(CLIENTS)}
    for path in policies.values():  # of separate machines, where no run is prepared together
        save_policy(load_policy(path).model_copy(update={"run": None}), path)
    (folder / "config.yaml").write_text(dump_config(config))
    options = [
        "--config",
        folder / "config.yaml",
        "--train-clients",
        "aachen",
        "--val-clients",
        "lindau",
    ]
    initialise([*map(str, options), "--out", str(folder / "run")])

    port, link_port, *node_ports = free_ports(4)
    made = Federated(folder, port, link_port, policies)
    home = folder / "coordinator"
    init = ["init", "--home", home, "--host", "localhost", "--bind", "127.0.0.1"]
    assert not call(
        "strategies.coordinator", *init, "--port", port, "--link-port", link_port
    ).returncode
    pin = call("strategies.coordinator", "bundle").stdout.strip()
    for client in CLIENTS:
        assert not call(
            "clients.node", "init", "--home", folder / client, "--client", client
        ).returncode
        key = folder / client / "node.pub"
        assert not call("strategies.coordinator", "enrol", "--home", home, client, key).returncode
    running = [Background(command("strategies.coordinator", "start", "--home", home), folder)]
    running += [
        made.node(client, client, own, **{"bundle-hash": pin})
        for client, own in zip(CLIENTS, node_ports, strict=True)
    ]
    try:
        for process, client in zip(running[1:], CLIENTS, strict=True):
            process.wait_for(f"connected to localhost:{port} as {client}")
        yield made
    finally:
        statuses = [process.stop() for process in reversed(running)]
    assert statuses == [0, 0, 0]


def test_a_tampered_bundle_is_refused_and_nothing_of_it_runs(federated: Federated) -> None:
    copy = federated.folder / "tampered"
    for path in (CHECKOUT / "fl_ppseg", CHECKOUT / "clients", CHECKOUT / "strategies"):
        shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("*.safetensors"))
    for name in ("pyproject.toml", "LICENSE", "configs/arms.yaml"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(CHECKOUT / name, copy / name)
    assert read_bundle(copy) == read_bundle(CHECKOUT)
    mark = federated.folder / "mark"
    with (copy / "clients" / "client_app.py").open("a") as file:
        file.write(f"\nPath({str(mark)!r}).write_text({MARK!r})\n")
    done = federated.train(copy)
    assert done.returncode == 1, done.stderr
    assert "refused: this node has pinned another bundle" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not mark.exists()


def test_failures_of_a_node_reach_the_coordinator_without_paths(federated: Federated) -> None:
    ((shard,),) = load_policy(federated.policies["aachen"]).arms["per-image"].shards.values()
    (manifest,) = shard.glob("manifest.*")
    manifest.rename(shard / "away")
    try:
        done = federated.train()
    finally:
        (shard / "away").rename(manifest)
    assert done.returncode == 1, done.stderr
    assert "the node failed with InputError; see its own log" in done.stderr
    told = (federated.folder / "run" / "progress.jsonl").read_text() + done.stderr
    assert str(shard) not in told
    assert shard.name not in told


def test_two_nodes_train_to_the_end_with_the_same_command(federated: Federated) -> None:
    done = federated.train()
    assert done.returncode == 0, done.stderr
    assert "per-image round 2/2" in done.stderr
    folder = RunFolder(federated.folder / "run")
    found = folder.latest("per-image", 0)
    assert found is not None
    assert found.round == 2
    assert {line["client"] for line in folder.lines()} == {*CLIENTS, None}
    assert "per-image" in done.stdout
    assert folder.report.exists()
    assert "cityscapesScripts" in json.loads(folder.summary.read_text("utf-8"))["notes"][0]
    status = call("strategies.coordinator", "status", "--home", federated.folder / "coordinator")
    assert [line for line in status.stdout.splitlines() if ": connected" in line] == [
        f"{client}: connected" for client in CLIENTS
    ]
    assert "completed" in status.stdout


def post(federated: Federated, port: int, authority: Path, path: str) -> int:
    context = ssl.create_default_context(cafile=authority)
    link = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    link.request("POST", path, body=b"", headers={"content-type": PROTOBUF_MEDIA_TYPE})
    with link.getresponse() as response:
        response.read()
    link.close()
    return response.status


def test_a_site_reaches_what_a_node_needs_and_nothing_else(federated: Federated) -> None:
    runtime = iter_route_contexts(create_runtime_router("SuperLink").routes)
    orders = {route.path for route in (*control_router.routes, *runtime)}  # type: ignore[attr-defined]
    assert len(orders) > 50
    listing = "/v1/control/list-runs"
    tricks = [
        "/docs",
        "/openapi.json",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        f"/v1/fleet/..{listing[3:]}",
        f"/v1/fleet/%2e%2e{listing[3:]}",
        f"/v1/fleet/pull-messages/../..{listing[3:]}",
        f"/{listing}",
        f"https://localhost{listing}",
        f"{listing}?/v1/fleet/pull-messages",
        "/v1/fleet/pull-messages/",
    ]
    for path in (*sorted(orders), *tricks):
        assert post(federated, federated.port, federated.authority, path) == 403, path
    unsigned = post(federated, federated.port, federated.authority, "/v1/fleet/pull-messages")
    assert unsigned == 401
    inner = federated.folder / "coordinator" / "link-ca.crt"
    assert post(federated, federated.link_port, inner, listing) == 200  # what the proxy is for


def test_flowers_own_clients_are_refused_at_the_proxy(federated: Federated) -> None:
    trust = federated.authority.read_bytes()
    place = (federated.coordinator, False, trust, [])
    with (
        ControlHttpClient.from_server_address(*place) as control,
        RuntimeHttpClient.from_server_address(*place) as runtime,
    ):
        for order in (
            lambda: control.StartRun(StartRunRequest()),
            lambda: control.RegisterNode(RegisterNodeRequest()),
            lambda: control.ListNodes(ListNodesRequest()),
            lambda: runtime.AcquireTask(AcquireTaskRequest()),
        ):
            with pytest.raises(httpx.HTTPStatusError, match="403 Forbidden"):
                order()


def test_a_node_that_is_not_enrolled_is_told_so_in_a_line(federated: Federated) -> None:
    made = call(
        "clients.node", "init", "--home", federated.folder / "stranger", "--client", "aachen"
    )
    fingerprint = made.stdout.split()[1]
    stranger = federated.node("stranger", "aachen", *free_ports(1))
    stranger.wait_for(
        f"the coordinator does not admit this node: its key ({fingerprint}) is not enrolled"
    )
    assert stranger.stop() == 0
    assert len(stranger.output.read_text().splitlines()) == 3  # same user, not admitted, stopped


def test_another_authority_is_refused_in_a_line(federated: Federated) -> None:
    other = federated.folder / "coordinator" / "link-ca.crt"
    node = federated.node("aachen", "aachen", *free_ports(1), ca=other)
    assert node.process.wait(60) == 2
    *_, line = node.output.read_text().splitlines()
    assert line.startswith(f"error: the certificate of {federated.coordinator} is not trusted")
    assert "(" in line


def test_config_of_the_run_folder_names_no_images(federated: Federated) -> None:
    config = yaml.safe_load((federated.folder / "run" / "config.yaml").read_text())
    assert config["data"]["root"] is None


def test_a_revoked_client_is_out_at_once_and_back_with_another_key(
    federated: Federated,
) -> None:
    home = federated.folder / "coordinator"

    def status() -> list[str]:
        return call("strategies.coordinator", "status", "--home", home).stdout.splitlines()

    done = call("strategies.coordinator", "revoke", "--home", home, "lindau")
    assert done.returncode == 0, done.stderr
    assert "its next request is refused" in done.stderr
    lines = status()
    assert any(line.startswith("lindau: revoked (SHA256:") for line in lines)
    assert not any(line.startswith("lindau: ") and "connected" in line for line in lines)
    key = federated.folder / "lindau" / "node.pub"
    enrol = ("strategies.coordinator", "enrol", "--home", home, "lindau")
    assert (
        "this key was revoked for lindau and cannot be enrolled again" in call(*enrol, key).stderr
    )
    other = federated.folder / "lindau again"
    assert not call("clients.node", "init", "--home", other, "--client", "lindau").returncode
    assert not call(*enrol, other / "node.pub").returncode
    node = federated.node(other.name, "lindau", *free_ports(1))
    node.wait_for(f"connected to {federated.coordinator} as lindau")
    assert node.stop() == 0
