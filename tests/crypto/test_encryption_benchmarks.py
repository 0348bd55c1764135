"""The benchmarks of encryption run on any machine, and tell a device that strays from numpy."""

import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fl_ppseg.crypto.ciphers.encryption import encrypt_batch
from fl_ppseg.crypto.keys import SubKey

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--height", "32", "--width", "64", "--repeats", "1"]


def output_of(script: str, *arguments: str) -> str:
    """What a benchmark prints; it may load neither Flower nor Ray."""
    code = (
        "import runpy, sys; script, sys.argv = sys.argv[1], sys.argv[1:];"
        "runpy.run_path(script, run_name='__main__');"
        "sys.exit(bool({'flwr', 'ray'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_fresh_views_of_a_batch_run_dry_on_the_cpu() -> None:
    output = output_of("gpu_encryption.py", "--device", "cpu", "--batch", "3", *SMALL)
    rates = re.findall(r"^(\S+) +yes +([\d.]+) +([\d.]+) %$", output, re.MULTILINE)
    assert [row[0] for row in rates] == [
        "shuffle",
        "shuffle-spatial",
        "shuffle-spatial+negative-positive",
    ]
    assert all(float(rate) > 0 for _, rate, _ in rates)


def test_every_run_of_it_has_keys_of_its_own() -> None:
    fresh_views = runpy.run_path(str(BENCHMARKS / "gpu_encryption.py"))["fresh_views"]
    images = torch.zeros(2, 3, 32, 64, dtype=torch.uint8)
    views = [fresh_views(images, "shuffle+negative-positive", 16, 2) for _ in range(2)]
    ciphertexts = {bytes(view.numpy()) for batch in views for view in batch}
    assert len(ciphertexts) == 4


def test_a_device_with_other_bits_is_told() -> None:
    script = runpy.run_path(str(BENCHMARKS / "gpu_encryption.py"))
    equals_numpy, images = script["equals_numpy"], torch.zeros(2, 3, 32, 64, dtype=torch.uint8)
    assert equals_numpy(images, "negative-positive", 16)

    def strays(images: Any, keys: Sequence[SubKey], cipher: str, **settings: Any) -> Any:
        secret = encrypt_batch(images, keys, cipher, **settings)
        return secret if isinstance(images, np.ndarray) else secret ^ 1

    equals_numpy.__globals__["encrypt_batch"] = strays
    assert not equals_numpy(images, "negative-positive", 16)


def test_times_of_one_frame_are_measured() -> None:
    output = output_of("bench_encryption.py", *SMALL)
    for row in ("cached copy of the frame", "shuffle, encrypt", "default product, decrypt"):
        assert re.search(rf"^{row} +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", output, re.MULTILINE)
    assert re.search(r"^shuffle, 1 at a time +", output, re.MULTILINE)
