"""`flwr run .` without a run folder: where it prepares one, for whom, with which settings."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from clients.policy.node_policy import NODES_VARIABLE, find_policy, nodes_folder
from fl_ppseg.config.flwr_run import newest_run, run_named, set_newest_run, vaults_of_runs
from fl_ppseg.simulate import _parser, _values
from fl_ppseg.system.errors import InputError, RunError
from strategies.rounds import unprepared
from strategies.rounds.run_config import RunConfig, parse_run_config

NODES = {"partition-id": 1, "num-partitions": 2}


class Simulated:
    """Flower's grid of a simulation, as far as it is asked."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    def get_node_ids(self) -> Iterable[int]:
        return range(self.counts.pop(0) if len(self.counts) > 1 else self.counts[0])


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(NODES_VARIABLE, raising=False)
    monkeypatch.setattr(unprepared.time, "sleep", lambda seconds: None)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was started instead of the preparation."""
    seen: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 0, None, "")

    monkeypatch.setattr(unprepared.subprocess, "run", run)
    return seen


def unprepared_run(**settings: object) -> RunConfig:
    return parse_run_config({"run-dir": "", "num-nodes": 0} | settings)


def test_nodes_of_a_deployment_are_never_prepared(commands: list[list[str]]) -> None:
    """There the machine of the server is not that of the owners: no key is made on it."""
    with pytest.raises(RunError, match="expected the run folder that the nodes have"):
        unprepared.prepare_unprepared(Simulated(3), unprepared_run())  # type: ignore[arg-type]
    assert commands == []
    assert newest_run() is None


def test_all_nodes_are_prepared_for_with_the_settings_of_the_run(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unprepared, "simulates_all_nodes", lambda grid: True)
    asked = unprepared_run(**{"num-server-rounds": 2, "learning-rate": 0.01, "arms": "plain"})
    grid: Any = Simulated(1, 3, 8)
    folder, num_nodes = unprepared.prepare_unprepared(grid, asked)
    assert num_nodes == 8
    assert commands[0][:4] == [sys.executable, "-P", "-m", "fl_ppseg.simulate"]
    options = _parser().parse_args(commands[0][4:])
    values = _values(options)
    assert (options.prepare, options.out, options.vault_dir) == (
        True,
        folder.path,
        vaults_of_runs(),
    )
    assert (values["clients"], values["arms"]) == (7, ["plain"])
    assert values["data"]["num_val_cities"] == 1
    assert values["federation"]["num_rounds"] == 2
    assert values["training"]["learning_rate"] == 0.01
    assert newest_run() == folder.path
    expected = nodes_folder(vaults_of_runs(), folder.path) / "node_0001.yaml"
    assert find_policy(NODES) == expected


def test_too_few_nodes_are_named(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unprepared, "simulates_all_nodes", lambda grid: True)
    monkeypatch.setattr(unprepared, "NODES_SECONDS", 0.1)
    grid: Any = Simulated(1)
    with pytest.raises(RunError, match=r"expected at least 2 nodes.* got 1; add"):
        unprepared.prepare_unprepared(grid, unprepared_run())
    assert commands == []


def test_a_failed_preparation_says_why_in_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unprepared, "simulates_all_nodes", lambda grid: True)
    grid: Any = Simulated(2)
    run = unprepared_run(arms="no-such-arm")
    with pytest.raises(RunError, match=r"the preparation failed: .*no-such-arm"):
        unprepared.prepare_unprepared(grid, run)
    assert newest_run() is None


def test_a_node_without_any_folder_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this node has no policy"):
        find_policy(NODES)
    set_newest_run(run_named("first"))
    with pytest.raises(InputError, match="this node has no policy"):
        find_policy({})  # a deployed node is no part of a simulation
    (tmp_path / "fl_ppseg" / "flwr-run" / "newest").write_text("../../elsewhere\n")
    with pytest.raises(InputError, match="expected the name of a run"):
        find_policy(NODES)


def test_the_preparation_finds_the_installed_package_and_not_the_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Flower's Ray backend puts the bundle into PYTHONPATH, at any time after the start."""
    monkeypatch.setattr(unprepared, "BUNDLE", tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/one", str(tmp_path), "", "/two"]))
    assert unprepared._environment()["PYTHONPATH"] == os.pathsep.join(["/one", "/two"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "PYTHONPATH" not in unprepared._environment()
