"""The command of the README, in its one-minute form, as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.federated
@pytest.mark.timeout(900)
def test_quick_run_from_the_shell(tmp_path: Path) -> None:
    """Half of its scenes and two of its three rounds must teach it enough already."""
    out = tmp_path / "run"
    less = ["--set", "data.num_train=90", "--set", "federation.num_rounds=2"]
    done = subprocess.run(
        [sys.executable, "-m", "fl_ppseg.simulate", "--quick", *less, "--out", str(out)],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    plain = summary["arms"]["plain"]
    assert plain["start_mIoU"] > 20, "the shipped weights must be a working segmenter already"
    assert plain["gain"] > 3, "two rounds must teach it something"
    assert plain["mIoU"] > summary["arms"]["per-image"]["mIoU"]
    assert summary["peak_rss_mb"] < 5000
    assert (out / "report.html").stat().st_size > 100_000
    assert "per-client" in done.stdout
    assert "Traceback" not in done.stderr
