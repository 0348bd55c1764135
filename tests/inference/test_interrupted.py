"""Ctrl-C in the processes of `serve` and `predict`: one line, and nothing half-done."""

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_runs
import small_service as small
from checkout import CHECKOUT
from PIL import Image

from fl_ppseg.predict.command import main
from fl_ppseg.system.command_line import run as run_command

ARM = "per-image-invariant"
SECONDS = 120
"""That a process has for what it does in ten, on a busy machine."""
LARGE = (448, 896)
"""Of a query over which a small model slides for seconds."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.add_checkpoint(tmp_path_factory.mktemp("interrupted") / "run", ARM, "crop")


@contextmanager
def started(verb: str, *options: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", f"fl_ppseg.{verb}", *map(str, options)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a background job of a shell ignores Ctrl-C, and so would what it starts
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


def answer(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "image/png"} if body else {})
    with urllib.request.urlopen(request, timeout=SECONDS) as found:
        content: bytes = found.read()
    return content


def test_the_service_answers_what_it_has_and_ends_with_130(model: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, *LARGE), np.uint8)
    with started("serve", "--model", model, "--port", 0) as process, ThreadPoolExecutor() as client:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        asked = client.submit(answer, f"{url}v1/segment", small.png(noise))
        in_work = b"fl_ppseg_requests_inside 1.0"
        wait_until(lambda: in_work in answer(f"{url}metrics"), process)
        assert not asked.done()
        process.send_signal(signal.SIGINT)
        assert small.pixels(asked.result(SECONDS)).shape == LARGE
        said, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (130, "")
    assert errors == "stopped; what was accepted is answered\n"


def test_predict_keeps_whole_files_and_goes_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out, number = tmp_path / "images", tmp_path / "out", 60
    images.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        noise = rng.integers(0, 256, (64, 128, 3), np.uint8)
        Image.fromarray(noise).save(images / f"{index:02}.png")
    options = ["--model", model, "--images", images, "--out", out, "--batch", 1]
    with started("predict", *options) as process:
        wait_until(lambda: len(list(out.rglob("*_pred_*.png"))) >= 2, process)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (1, "")
    assert errors.splitlines()[-1].startswith("error: interrupted; ")
    assert errors.count("error") == 1 and "Traceback" not in errors
    done = {path: path.read_bytes() for path in out.rglob("*") if path.suffix == ".png"}
    assert 2 <= len(done) < number
    assert all(small.pixels(content).shape == (64, 128) for content in done.values())
    others = {path.name for path in out.rglob("*") if path.is_file() and path not in done}
    assert others == {"predictions.json"}
    assert run_command(main, list(map(str, options))) == 0
    expected = f"label maps of {number - len(done)} images; {len(done)} were there\n"
    assert capsys.readouterr().out.endswith(expected)
    assert all(path.read_bytes() == content for path, content in done.items())
