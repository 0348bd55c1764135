"""One command runs the benchmarks and writes what they told."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_benchmarks_are_written_down_with_what_they_ran_on(tmp_path: Path) -> None:
    out = tmp_path / "told.md"
    command = [sys.executable, "-m", "benchmarks", "--out", str(out), "--only", "gpu"]
    unseen = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # dry, also where there is a GPU
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, env=unseen
    )
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert " cores, " in text and "torch " in text and "commit " in text
    assert "| tiny | pup |" in text and "| tiny | mla |" in text
    assert "of the largest change" in text


def test_one_that_fails_is_said_to_have_failed(tmp_path: Path) -> None:
    script = (
        "import benchmarks.__main__ as b, sys; b.COMMANDS['gpu'] = ('--no-such-option',); "
        f"sys.exit(b.main(['--out', {str(tmp_path / 'told.md')!r}, '--only', 'gpu']))"
    )
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and "failed: gpu" in done.stdout
    assert "failed with status 2" in (tmp_path / "told.md").read_text()
