"""Peak memory of a process tree, seen from the sizes that the test itself allocates."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from fl_ppseg.system import memory
from fl_ppseg.system.memory import PeakMemory

MB = 2**20
ALLOCATE = f"held = bytearray({100 * MB}); print('ready', flush=True); input()"


def resident_mb() -> float:
    return float(psutil.Process().memory_full_info().pss) / MB


def test_peak_stays_after_the_memory_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PERIOD_SECONDS", 0.02)
    before = resident_mb()
    with PeakMemory() as peak:
        held = np.ones(100 * MB, np.uint8)
        time.sleep(0.3)
        del held
        time.sleep(0.1)
    assert peak.mb == pytest.approx(before + 100, abs=25)


def test_children_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PERIOD_SECONDS", 0.02)
    before = resident_mb()
    with (
        PeakMemory() as peak,
        subprocess.Popen(
            [sys.executable, "-c", ALLOCATE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        child.communicate("\n")
    assert peak.mb > before + 95


def test_a_run_shorter_than_the_period_is_measured_too() -> None:
    with PeakMemory() as peak:
        pass
    assert peak.mb > 1


def test_the_watch_ends_without_waiting_for_its_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PERIOD_SECONDS", 60.0)
    start = time.monotonic()
    with PeakMemory():
        pass
    assert time.monotonic() - start < memory.PERIOD_SECONDS / 2
