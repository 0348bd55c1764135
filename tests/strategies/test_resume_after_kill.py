"""kill -9 at any moment of a round: the resumed run ends with the same bits, and nothing twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import small_federation as small
import yaml
from checkout import CHECKOUT, PYTHONPATH, SUPPORT
from fake_nodes import Listener, nodes
from killed_server import ARM, CASES
from test_server_app import NUM_NODES, checkpoint

from fl_ppseg.config.loading import builtin_arms, dump_config
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.errors import RunError
from strategies.server_app import Federation

TABLE = {ARM: builtin_arms()["per-client-private"].model_dump() | {"private_rate": 0.1}}
KILLED = [name for name in CASES if name != "undisturbed"]


@pytest.fixture(scope="module")
def found(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each case."""
    place, backup = tmp_path_factory.mktemp("place"), tmp_path_factory.mktemp("backup") / "copy"
    federation = {"num_rounds": 3, "last_rounds": 1, "strategy": "fedadam"}
    settings = small.config(scenes, arms=[ARM], arm_table=TABLE, federation=federation)
    experiment = small.prepared(settings, place)
    shutil.copytree(place, backup, symlinks=True)
    done = subprocess.run(
        [sys.executable, SUPPORT / "killed_server.py", place, backup, experiment.nodes],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cases: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return cases


def test_the_undisturbed_run_is_one_worth_comparing_with(found: dict[str, Any]) -> None:
    whole = found["undisturbed"]
    assert (whole["status"], whole["round"]) == (0, 3)
    assert whole["optimizer"].keys() == {"momentum", "second"}
    assert len([path for path in whole["private"] if path.endswith("round_0003.safetensors")]) == 3
    assert len({*whole["private"].values()}) > 3
    roles = Counter((line["round"], line["role"]) for line in whole["lines"])
    wanted = {"train": 3, "heldout": 3, "val": 2, "round": 1}
    start = {(0, role): n for role, n in wanted.items() if role != "train"}
    assert roles == start | {(k, role): n for k in (1, 2, 3) for role, n in wanted.items()}


@pytest.mark.parametrize("case", KILLED)
def test_a_killed_run_resumes_to_the_same_bits(found: dict[str, Any], case: str) -> None:
    whole, killed = found["undisturbed"], found[case]
    assert killed["status"] == -signal.SIGKILL
    assert killed["again"] == 0
    for what in ("weights", "optimizer", "private", "lines", "checkpoints"):
        assert killed[what] == whole[what], what
    assert killed["left"] == []


def prepared(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.create(dump_config(Config.model_validate({"arms": ["plain"]})), "{}")
    folder.save(checkpoint("plain", 0), keep=2)
    return folder


def test_two_servers_cannot_be_at_one_run(tmp_path: Path) -> None:
    """Their lines would stand twice; the second ends, and the first goes on."""
    folder = prepared(tmp_path)
    second = Federation(folder, Listener(), NUM_NODES)
    with folder.lock(), pytest.raises(RunError, match="another process works on this run"):
        second.run(nodes().grid)
    second.run(nodes().grid)
    assert folder.lines()[-1]["round"] == 10


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    script = (
        "import os, pathlib, signal, sys\n"
        "from fl_ppseg.federation.run_folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).lock():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = {"PYTHONPATH": str(CHECKOUT)}
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], env=os.environ | root)
    assert killed.returncode == -signal.SIGKILL
    with folder.lock():
        pass


@pytest.mark.federated
@pytest.mark.timeout(280)
def test_kills_at_random_moments_of_the_command(scenes: Path, tmp_path: Path) -> None:
    """`simulate` killed from outside three times, each time resumed, and one left alone."""
    config = tmp_path / "small.yaml"
    changes = {"arms": ["per-client"], "federation": {"num_rounds": 8, "strategy": "fedavgm"}}
    config.write_text(yaml.safe_dump(small.settings(scenes, **changes)))
    start = [sys.executable, "-m", "fl_ppseg.simulate", "--quiet"]
    start += ["--vault-dir", str(tmp_path / "vaults"), "--out"]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}

    def run(out: Path, kill_after: int | None, *more: str) -> int:
        options = [*start, str(out), *more]
        with subprocess.Popen(options, env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                kill_at(process, out, kill_after)
                return process.wait(timeout=120)
            finally:
                process.kill()

    whole, torn = tmp_path / "whole", tmp_path / "torn"
    with ThreadPoolExecutor(1) as beside:
        alone = beside.submit(run, whole, None, "--config", str(config))
        statuses = [run(torn, 1, "--config", str(config))]
        statuses += [run(torn, k, "--resume") for k in (4, 7)]
        statuses.append(run(torn, None, "--resume"))
        assert alone.result() == 0
    assert statuses == [*[-signal.SIGKILL] * 3, 0]
    ours, theirs = RunFolder(torn).latest("per-client", 0), RunFolder(whole).latest("per-client", 0)
    assert ours is not None and theirs is not None
    assert small.bits(ours.arrays) == small.bits(theirs.arrays)
    assert small.bits(ours.optimizer["momentum"]) == small.bits(theirs.optimizer["momentum"])
    lines = [[timeless(x) for x in RunFolder(out).lines()] for out in (torn, whole)]
    assert lines[0] == lines[1]


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "seconds"}


def kill_at(process: "subprocess.Popen[bytes]", out: Path, num_rounds: int | None) -> None:
    """Kill a process as soon as so many rounds stand in its results: in the midst of the next."""
    results = out / "results.jsonl"
    while num_rounds is not None and process.poll() is None:
        text = results.read_text("utf-8") if results.exists() else ""
        if text.count('"role":"round"') >= num_rounds:
            process.kill()
            return
        time.sleep(0.01)
