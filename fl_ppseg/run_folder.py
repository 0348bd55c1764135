"""A run's folder: config, partition, results, checkpoints; atomic, readable at any time.

config.yaml  partition.json  log.txt  results.jsonl  summary.json  report.html  figures/
progress.jsonl                                       (deployed runs: events of the live view)
<arm>/seed_<s>/round_<nnnn>.safetensors + .json      (rotated, hashed)
<arm>/seed_<s>/releases.txt                          (private runs: a round a line)
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from fl_ppseg.config import Config
from fl_ppseg.errors import InputError, RunError
from fl_ppseg.files import sha256, write_atomically
from fl_ppseg.messages import Arrays

logger = logging.getLogger(__name__)

SCHEMA = 1
Line = dict[str, Any]
"""A line of results.jsonl."""
OF_CITY = "//"
"""Between city and tensor in the names of weights of which every city has its own."""


@dataclass(frozen=True)
class Checkpoint:
    """Global weights after a round, with what is needed to go on or to use them elsewhere."""

    round: int
    arrays: Arrays
    optimizer: Mapping[str, Arrays]
    """Moments of the server optimiser by name."""
    description: Mapping[str, Any]
    """Arm, seed, model and classes: plain values."""

    @property
    def is_per_city(self) -> bool:
        """Whether every city has its own model here, `<city>//<tensor>`, and none is common."""
        return any(OF_CITY in name for name in self.arrays)


class RunFolder:
    """Reads and writes one run; the only place that knows its layout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.partition = path / "partition.json"
        self.log = path / "log.txt"
        self.progress = path / "progress.jsonl"
        self.results = path / "results.jsonl"
        self.summary = path / "summary.json"
        self.report = path / "report.html"

    def create(self, config: str, partition: str) -> None:
        """Start a run.

        Raises:
            InputError: If a run lies there already.
        """
        if self.config.exists():
            raise InputError(f"{self.path}: holds a run already; add --resume or choose another")
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.partition, partition)
        write_atomically(self.config, config)

    def append(self, lines: Iterable[Line]) -> None:
        """Add lines to results.jsonl, on disk before this returns."""
        _append(self.results, _as_text(lines))

    def lines(self) -> list[Line]:
        """All whole lines of results.jsonl; a half-written last one is left out.

        Raises:
            InputError: If a line before the last is damaged.
        """
        if not self.results.exists():
            return []
        text = self.results.read_text(encoding="utf-8")
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        try:
            return [json.loads(line) for line in whole]
        except ValueError as error:
            raise InputError(
                f"{self.results}: damaged ({error}); restore it, or begin anew"
            ) from None

    def keep_lines(self, wanted: Callable[[Line], bool]) -> None:
        """Drop all other lines of results.jsonl."""
        write_atomically(self.results, _as_text(line for line in self.lines() if wanted(line)))

    def num_images(self) -> dict[str, int]:
        """Images by training city as the partition dealt them out; none where it does not say."""
        try:
            clients = json.loads(self.partition.read_text(encoding="utf-8"))["clients"]
            return {
                client: sum(len(stems) for stems in cities.values())
                for client, cities in clients.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def save(self, checkpoint: Checkpoint, keep: int) -> None:
        """Write a checkpoint; of the others of its arm and seed only the newest `keep - 1` stay."""
        stem = self._stem(checkpoint.description["arm"], checkpoint.description["seed"])
        stem.mkdir(parents=True, exist_ok=True)
        path = stem / f"round_{checkpoint.round:04d}.safetensors"
        tensors = {f"model/{name}": value for name, value in checkpoint.arrays.items()}
        for moment, arrays in checkpoint.optimizer.items():
            tensors |= {f"optimizer/{moment}/{name}": value for name, value in arrays.items()}
        # safetensors writes an array's memory as it lies, whatever its strides.
        in_order = {name: np.asarray(value, order="C") for name, value in tensors.items()}
        write_atomically(path, save(in_order))
        about = {"schema": SCHEMA, "round": checkpoint.round, "sha256": sha256(path)}
        description = json.dumps(about | dict(checkpoint.description), indent=1)
        write_atomically(path.with_suffix(".json"), description)
        others = sorted(set(stem.glob("round_*.json")) - {path.with_suffix(".json")})
        for old in others[: max(0, len(others) - keep + 1)]:
            _remove(old)

    def note_release(self, arm: str, seed: int, round: int) -> int:
        """Write down, before it is done, that weights with noise leave; how often that was so far.

        A round that is repeated counts again: both of its results may have been seen.
        """
        path = self._stem(arm, seed) / "releases.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, f"{round}\n")
        return len(path.read_text(encoding="utf-8").splitlines())

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep this run to one process at a time; what an earlier one left half-written goes.

        Raises:
            RunError: If another process is at it.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with its process
            self._sweep()
            yield
        except BlockingIOError:
            raise RunError(
                f"{self.path}: another process is at this run; wait for its end, or stop it"
            ) from None
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        for left in (*self.path.glob(".*.tmp"), *self.path.glob("*/seed_*/.*.tmp")):
            left.unlink(missing_ok=True)
        for tensors in self.path.glob("*/seed_*/round_*.safetensors"):
            if not tensors.with_suffix(".json").exists():
                tensors.unlink()

    def discard_after(self, arm: str, seed: int, round: int) -> None:
        """Remove the checkpoints after a round, from which no run can go on, and say so."""
        for description in sorted(self._stem(arm, seed).glob("round_*.json")):
            if int(description.stem.removeprefix("round_")) > round:
                logger.warning("%s: damaged, removed; going on after round %d", description, round)
                _remove(description)

    def latest(self, arm: str, seed: int) -> Checkpoint | None:
        """The newest whole checkpoint of an arm and seed; damaged ones are skipped, and said."""
        for description in sorted(self._stem(arm, seed).glob("round_*.json"), reverse=True):
            try:
                return read_checkpoint(description.with_suffix(".safetensors"))
            except InputError as error:
                logger.warning("%s; going back to the one before", error)
        return None

    def _stem(self, arm: str, seed: int) -> Path:
        return self.path / arm / f"seed_{seed}"


def _as_text(lines: Iterable[Line]) -> str:
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def _append(path: Path, text: str) -> None:
    """On disk before this returns, or, where the disk is full, not at all."""
    with path.open("ab", buffering=0) as file:
        size, rest = file.tell(), memoryview(text.encode("utf-8"))
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(size)
            error.filename = str(path)
            raise


def _remove(description: Path) -> None:
    """Remove a checkpoint: the file that makes it one first."""
    description.unlink()
    description.with_suffix(".safetensors").unlink(missing_ok=True)


def is_finished(config: Config, folder: RunFolder) -> bool:
    """Whether all arms and seeds of a run are trained to their last round."""
    last = [folder.latest(arm, seed) for arm in config.arms for seed in config.seeds]
    return all(found and found.round >= config.federation.num_rounds for found in last)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        InputError: If it is missing, of another version or damaged.
    """
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if (schema := about.pop("schema")) != SCHEMA:
            raise InputError(f"{path}: a checkpoint of schema {schema}, wanted {SCHEMA}")
        if about.pop("sha256") != sha256(path):
            raise InputError(f"{path}: damaged checkpoint (its hash differs)")
        tensors = load_file(path)
        round_ = int(about.pop("round"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no readable checkpoint ({error})") from None
    optimizer: dict[str, Arrays] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, moment, name = key.split("/", 2)
            optimizer.setdefault(moment, {})[name] = value
    model = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    return Checkpoint(round_, model, optimizer, about)
