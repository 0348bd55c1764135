"""Ctrl-C in the middle of a round on Ray: one line, workers ended, the run folder readable."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import small_federation
import yaml

from fl_ppseg.run_folder import RunFolder

END_SECONDS = 60.0


def first_round_is_done(results: Path, process: "subprocess.Popen[str]") -> bool:
    end = time.monotonic() + 150
    while time.monotonic() < end and process.poll() is None:
        if results.exists() and '"role":"round"' in results.read_text():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.federated
@pytest.mark.timeout(300)
def test_interrupt_in_a_round_on_ray(scenes: Path, tmp_path: Path) -> None:
    config = tmp_path / "endless.yaml"
    changes = {"engine": "ray", "arms": ["per-image"], "federation": {"num_rounds": 10_000}}
    config.write_text(yaml.safe_dump(small_federation.settings(scenes, **changes)))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "fl_ppseg.simulate", "--config", str(config)]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--vault-dir", str(tmp_path / "vaults"), "--quiet"],
        env=os.environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert first_round_is_done(out / "results.jsonl", process)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=END_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 1
    vaults = tmp_path / "vaults"
    assert error == (
        f"error: interrupted; finished rounds are kept in {out}; to go on: "
        f"python -m fl_ppseg.simulate --resume --out {out} --vault-dir {vaults}\n"
    )
    assert len(workers) > 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    folder = RunFolder(out)
    checkpoint = folder.latest("per-image", 0)
    assert checkpoint is not None
    assert checkpoint.round >= 1
    assert folder.lines()[-1]["role"] == "round"
