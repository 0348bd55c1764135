"""Ctrl-C in the middle of a round on Ray: one line, workers ended, the run folder readable."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import small_federation
import yaml

from fl_ppseg.federation.run_folder import RunFolder

END_SECONDS = 60.0


def first_round_is_done(results: Path, process: "subprocess.Popen[str]") -> bool:
    end = time.monotonic() + 150
    while time.monotonic() < end and process.poll() is None:
        if results.exists() and '"round":1,"client":null' in results.read_text():
            return True
        time.sleep(0.1)
    return False


def listeners(processes: list[psutil.Process]) -> set[str]:
    """Addresses at which the processes of a run can be reached."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(connection.laddr.ip.removeprefix("::ffff:"))
    return found


def scratch_of(workers: list[psutil.Process]) -> Path:
    """The folder that Ray's processes are given for sockets and logs: its parent is closed."""
    (found,) = {
        Path(match[1])
        for worker in workers
        if worker.name() == "raylet"
        for match in [re.search(r"--temp_dir=(\S+/ray-\w+)/r", " ".join(worker.cmdline()))]
        if match
    }
    return found


def endless(scenes: Path, tmp_path: Path, out: Path) -> "subprocess.Popen[str]":
    """A run on Ray whose rounds take no end."""
    config = tmp_path / "endless.yaml"
    changes = {"engine": "ray", "arms": ["per-image"], "federation": {"num_rounds": 10_000}}
    config.write_text(yaml.safe_dump(small_federation.settings(scenes, **changes)))
    command = [sys.executable, "-m", "fl_ppseg.simulate", "--config", str(config)]
    return subprocess.Popen(
        [*command, "--out", str(out), "--vault-dir", str(tmp_path / "vaults"), "--quiet"],
        env=os.environ | {"RAY_ADDRESS": "192.0.2.9:6379"},  # a cluster that is not ours to join
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.federated
@pytest.mark.timeout(300)
def test_a_client_process_that_is_killed_is_one_line(scenes: Path, tmp_path: Path) -> None:
    """As the kernel does it where there is no memory left."""
    out = tmp_path / "run"
    process = endless(scenes, tmp_path, out)
    try:
        assert first_round_is_done(out / "results.jsonl", process)
        for worker in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if " ".join(worker.cmdline()).startswith("ray::ClientAppActor"):
                    worker.kill()
        _, error = process.communicate(timeout=END_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith("error: ")
    assert "memory" in last
    assert "Traceback" not in error


@pytest.mark.federated
@pytest.mark.timeout(300)
def test_interrupt_in_a_round_on_ray(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = endless(scenes, tmp_path, out)
    try:
        assert first_round_is_done(out / "results.jsonl", process)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert listeners([psutil.Process(process.pid), *workers]) == {"127.0.0.1"}
        scratch = scratch_of(workers)
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=END_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 1
    vaults = tmp_path / "vaults"
    assert error == (
        f"error: interrupted; finished rounds are kept in {out}; to resume: "
        f"python -m fl_ppseg.simulate --resume --out {out} --vault-dir {vaults}\n"
    )
    assert len(workers) > 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert not scratch.exists()
    folder = RunFolder(out)
    checkpoint = folder.latest("per-image", 0)
    assert checkpoint is not None
    assert checkpoint.round >= 1
    assert folder.lines()[-1]["role"] == "round"
