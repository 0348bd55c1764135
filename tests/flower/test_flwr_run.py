"""`flwr run .` with the same pyproject, on a local SuperLink of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_federation
from checkout import CHECKOUT
from ports import free_ports

from clients.policy.node_policy import NODES_VARIABLE
from fl_ppseg.config.loading import load_config
from fl_ppseg.federation.run_folder import RunFolder

FLWR = Path(sys.executable).with_name("flwr")
CONNECTION = '[superlink]\ndefault = "local"\n[superlink.local]\naddress = ":local-in-memory:"\n'


@pytest.fixture
def flwr_home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a Flower of its own; its SuperLink is ended with the test."""
    home = tmp_path / "flwr"
    home.mkdir()
    (home / "config.toml").write_text(CONNECTION)
    http, control = free_ports(2)
    yield os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control),
        "PATH": f"{FLWR.parent}{os.pathsep}{os.environ['PATH']}",
    }
    subprocess.run(["pkill", "-f", f"flower-superlink .*--port {http} "], check=False)


def flwr(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [str(FLWR), *arguments],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_on_flower(environment: dict[str, str], run: RunFolder, num_nodes: int) -> str:
    """What a prepared run says under Flower's own command."""
    return flwr(
        environment,
        *("run", ".", "local", "--stream"),
        *("-c", f'run-dir="{run.path}" num-nodes={num_nodes}'),
        "--federation-config",
        f"num-supernodes={num_nodes} client-resources-num-cpus=1 init-args-num-cpus=1",
    )


def statuses(environment: dict[str, str]) -> list[str]:
    runs: list[dict[str, Any]] = json.loads(flwr(environment, "ls", "local", "--format", "json"))[
        "runs"
    ]
    return [entry["status"] for entry in runs]


@pytest.mark.federated
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("pkill") is None, reason="needs pkill to end the SuperLink")
def test_flwr_run_trains_a_prepared_run(
    scenes: Path, tmp_path: Path, flwr_home: dict[str, str]
) -> None:
    arms = ["plain", "per-image"]
    prepared = small_federation.prepared(small_federation.config(scenes, arms=arms), tmp_path)
    run = RunFolder(prepared.folder.path)
    num_nodes = prepared.num_nodes
    environment = flwr_home | {NODES_VARIABLE: str(prepared.nodes)}
    output = run_on_flower(environment, run, num_nodes)
    assert statuses(environment) == ["finished:completed"], output
    for arm in arms:
        checkpoint = run.latest(arm, 0)
        assert checkpoint is not None
        assert checkpoint.round == prepared.config.federation.num_rounds
    clients = {line["client"] for line in run.lines() if line["role"] == "val"}
    assert clients == {"lindau", "munster"}

    # The SuperLink lives on, with the environment of its start: the first run's nodes.
    settings = small_federation.config(scenes, arms=arms, training={"learning_rate": 1e-4})
    second = small_federation.prepared(settings, tmp_path / "second")
    again = environment | {NODES_VARIABLE: str(second.nodes)}
    said = run_on_flower(again, RunFolder(second.folder.path), num_nodes)
    assert sorted(statuses(again)) == ["finished:completed", "finished:failed"]
    assert "prepared for another run" in said
    assert RunFolder(second.folder.path).lines() == []


@pytest.mark.federated
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("pkill") is None, reason="needs pkill to end the SuperLink")
def test_flwr_run_with_nothing_prepared_trains_a_federation_of_its_own(
    tmp_path: Path, flwr_home: dict[str, str]
) -> None:
    """Two nodes, as many as Flower simulates unasked; its usual keys; it is given the metrics."""
    environment = flwr_home | {"XDG_STATE_HOME": str(tmp_path / "state")}
    environment.pop(NODES_VARIABLE, None)
    asked = 'arms="plain" num-server-rounds=1 batch-size=2'
    output = flwr(environment, "run", ".", "local", "--stream", "-c", asked)
    assert statuses(environment) == ["finished:completed"], output
    (folder,) = (tmp_path / "state" / "fl_ppseg" / "flwr-run" / "runs").iterdir()
    run = RunFolder(folder)
    lines = run.lines()
    assert sorted({(line["role"], line["round"]) for line in lines}) == [
        *(("heldout", round) for round in (0, 1)),
        *(("round", round) for round in (0, 1)),
        ("train", 1),
        *(("val", round) for round in (0, 1)),
    ]
    config = load_config(run.config)
    assert (config.arms, config.training.batch_size) == (("plain",), 2)
    for metric in ("train_loss", "mIoU"):
        assert metric in output
    assert f"--out {folder}" in output
