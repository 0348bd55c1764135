"""A small federation for `flwr run .` that is given no run folder, on procedural scenes.

Only where Flower simulates all nodes on this machine, which is then the machine of all owners. The
installed program makes keys and shards in a process of its own, as `simulate --prepare` does; this
side learns where the run folder lies.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote
from typing import Final

from flwr.serverapp import Grid

from fl_ppseg.config.flwr_run import run_named, set_newest_run, vaults_of_runs
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.grid import simulates_all_nodes
from fl_ppseg.system.errors import RunError
from strategies.rounds.run_config import PREPARE, RunConfig

REPORT: Final = "its report, after the last round: python -m fl_ppseg.simulate --resume"
MAX_VAL: Final = 3
"""Val cities of the procedural world."""
IMAGES_PER_NODE: Final = 10
FEWEST_IMAGES: Final = 36
"""Training images: the 18 cities of the procedural world have two each."""
NODES_SECONDS: Final = 20.0
"""How long the simulated nodes are waited for."""
WAIT_SECONDS: Final = 600
"""How long they may take to answer first, on a machine that has other work too."""
PREPARE_SECONDS: Final = 1800
BUNDLE: Final = Path(__file__).resolve().parents[2]
"""What Flower unpacked, or the checkout; where that is installed it is found without PYTHONPATH."""


def prepare_unprepared(grid: Grid, run: RunConfig) -> tuple[RunFolder, int]:
    """Prepare a run for the nodes that Flower simulates.

    Args:
        grid: Of the run.
        run: Without a run folder.

    Returns:
        The run folder, and the number of nodes.

    Raises:
        RunError: These are nodes of a deployment, fewer than two, or the preparation failed.
    """
    if not simulates_all_nodes(grid):
        raise RunError(f"run-dir is empty: expected the run folder that the nodes have ({PREPARE})")
    num_nodes = _count_nodes(grid)
    folder = run_named(time.strftime("%Y%m%d-%H%M%S"))
    print(f"no run-dir given: preparing a federation of {num_nodes} nodes", flush=True)
    _prepare(_command(run, num_nodes, str(folder)))
    set_newest_run(folder)  # from now on the nodes find their folders
    print(f"{REPORT} --out {quote(str(folder))} --vault-dir {quote(str(vaults_of_runs()))}")
    return RunFolder(folder), num_nodes


def split_nodes(num_nodes: int) -> tuple[int, int]:
    """Training and val clients of so many nodes.

    >>> split_nodes(2), split_nodes(5), split_nodes(21)
    ((1, 1), (4, 1), (18, 3))
    """
    num_val = min(MAX_VAL, max(1, num_nodes // 6))
    return num_nodes - num_val, num_val


def _count_nodes(grid: Grid) -> int:
    """The number of nodes, once no more of them come."""
    end, before = time.monotonic() + NODES_SECONDS, -1
    while time.monotonic() < end:
        found = len(list(grid.get_node_ids()))
        if found == before and found >= 2:
            return found
        before = found
        time.sleep(1.0)
    raise RunError(
        f"expected at least 2 nodes, one that trains and one that is scored, got {before}; add "
        "--federation-config num-supernodes=2"
    )


def _command(run: RunConfig, num_nodes: int, folder: str) -> list[str]:
    num_train, num_val = split_nodes(num_nodes)
    settings = {
        "data.num_train": max(FEWEST_IMAGES, num_train * IMAGES_PER_NODE),
        "data.num_val": num_val * IMAGES_PER_NODE // 2,
        "data.num_val_cities": num_val,
        "federation.num_rounds": run.num_server_rounds,
        "federation.fraction_train": run.fraction_train,
        "federation.wait_seconds": WAIT_SECONDS,
        "training.local_epochs": run.local_epochs,
        "training.learning_rate": run.learning_rate,
        "training.batch_size": run.batch_size,
    }
    named = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    places = ["--out", folder, "--vault-dir", str(vaults_of_runs())]
    experiment = ["--config", "quick", "--clients", str(num_train), "--arms", run.arms]
    program = [sys.executable, "-P", "-m", "fl_ppseg.simulate", "--prepare", "--quiet"]
    return [*program, *experiment, *named, *places]


def _environment() -> dict[str, str]:
    """This process's environment, in which the installed package is found.

    Flower's Ray backend puts all of `sys.path` into PYTHONPATH once it has started, the bundle
    among it, which holds no more of the package than its apps need.
    """
    found = dict(os.environ)
    paths = found.pop("PYTHONPATH", "").split(os.pathsep)
    whole = [path for path in paths if path and Path(path).resolve() != BUNDLE]
    return found | ({"PYTHONPATH": os.pathsep.join(whole)} if whole else {})


def _prepare(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            timeout=PREPARE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"the preparation took more than {PREPARE_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RunError(f"the preparation failed: {lines[-1]}")
