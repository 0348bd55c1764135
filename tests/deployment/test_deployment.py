"""A federation of real processes on loopback ports: SuperLink, proxy, SuperNodes, apps."""

import http.client
import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import small_federation as small
import yaml
from checkout import CHECKOUT
from deployed import Federated, call, deployed
from fastapi.routing import iter_route_contexts
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.routers.runtime import create_runtime_router
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.routers.control import router as control_router
from ports import free_ports

from clients.policy.node_policy import load_policy
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.superlink import read_bundle
from fl_ppseg.scenes.tree import synthesize

CLIENTS = ("aachen", "lindau")
MARK = "the shipped code ran"

pytestmark = [
    pytest.mark.federated,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (apt-get install)"),
]


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
    with deployed(folder, config, CLIENTS[:1], CLIENTS[1:]) as made:
        yield made


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
    done = federated.train(app=copy)
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
