"""Commands that run beside this one, and are started again when they end, as systemd would."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
RESTART_SECONDS = 10.0
"""RestartSec of the systemd units."""


def python(module: str, *options: object) -> list[str]:
    """The command `python -m module options`."""
    return [sys.executable, "-m", module, *map(str, options)]


class Program:
    """A command in the background, its output in a file."""

    def __init__(
        self, command: Sequence[str], output: Path, changes: Mapping[str, str] | None = None
    ) -> None:
        """Start it; `changes` are of its environment."""
        self._command = command
        self._output = output
        self._environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
        self._environment |= changes or {}
        self._ended: float | None = None
        self.start()

    def start(self) -> None:
        """Start it, also again."""
        with self._output.open("ab") as output:
            self._offset = output.tell()
            self.process = subprocess.Popen(
                self._command,
                cwd=CHECKOUT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def look(self) -> None:
        """Start it again if it ended a while ago."""
        if self.process.poll() is None:
            self._ended = None
        elif self._ended is None:
            self._ended = time.monotonic()
        elif time.monotonic() - self._ended >= RESTART_SECONDS:
            self.start()

    def said(self) -> list[str]:
        """Its lines since it was started last."""
        with self._output.open("rb") as output:
            output.seek(self._offset)
            return output.read().decode("utf-8", "replace").splitlines()

    def tree(self) -> list[psutil.Process]:
        """Its process, and all that came of it."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait(self, seconds: float) -> int:
        """Its exit status; past the time it is ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.stop()

    def stop(self) -> int:
        """End it as systemd does: SIGTERM, and SIGKILL for what is left."""
        tree = self.tree()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            kill(tree)

    def kill(self) -> None:
        """Pull its plug: kill -9 of all its processes at once."""
        kill(self.tree())
        self.process.wait()


def kill(processes: Sequence[psutil.Process]) -> None:
    """kill -9; those that are gone already are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
