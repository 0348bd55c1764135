"""A run folder: config, partition, results, checkpoints; written atomically, readable at any time.

Its layout is that of `run_layout`.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fl_ppseg.config import run_layout as layout
from fl_ppseg.config.documents import parse_json, read_text
from fl_ppseg.config.names import check_name
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.checkpoint_file import (
    Checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from fl_ppseg.federation.results import Line, parse_line
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.files import write_atomically

logger = logging.getLogger(__name__)

MAX_PARTITION_BYTES = 256 * 2**20
"""A million images by name."""


class RunFolder:
    """Reads and writes one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / layout.CONFIG
        self.partition = path / layout.PARTITION
        self.log = path / layout.LOG
        self.progress = path / layout.PROGRESS
        self.results = path / layout.RESULTS
        self.summary = path / layout.SUMMARY
        self.report = path / layout.REPORT

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
        """Append lines to results.jsonl; they are on disk when this returns."""
        _append(self.results, _as_text(lines))

    def lines(self) -> list[Line]:
        """All whole lines of results.jsonl; a half-written last one is left out.

        Raises:
            InputError: Names the first damaged line before the last.
        """
        if not self.results.exists():
            return []
        whole, _, _ = self.results.read_bytes().rpartition(b"\n")
        lines = []
        for number, text in enumerate(whole.split(b"\n") if whole else (), 1):
            source = f"{self.results}, line {number}"
            try:
                lines.append(parse_line(text, source))
            except (InputError, ValueError) as error:
                why = str(error).removeprefix(f"{source}: ")
                raise InputError(
                    f"{source}: damaged ({why}); restore the file, or start a new run"
                ) from None
        return lines

    def keep_lines(self, is_kept: Callable[[Line], bool]) -> None:
        """Drop all other lines of results.jsonl."""
        write_atomically(self.results, _as_text(line for line in self.lines() if is_kept(line)))

    def num_images(self) -> dict[str, int]:
        """Images by training client as the partition dealt them out; none where it does not say."""
        try:
            text = read_text(self.partition, MAX_PARTITION_BYTES)
            clients = parse_json(text, str(self.partition), MAX_PARTITION_BYTES)["clients"]
            return {
                client: sum(len(stems) for stems in cities.values())
                for client, cities in clients.items()
            }
        except (InputError, KeyError, TypeError, AttributeError):
            return {}

    def save(self, checkpoint: Checkpoint, keep: int) -> None:
        """Write a checkpoint; of its arm and seed the newest `keep` stay, and that of round 0.

        What training starts from is what any later score is held against.
        """
        stem = self._stem(checkpoint.description.arm, checkpoint.description.seed)
        stem.mkdir(parents=True, exist_ok=True)
        path = layout.round_file(stem, checkpoint.round)
        write_checkpoint(path, checkpoint)
        found = [old for old in layout.rounds_in(stem, ".json") if layout.round_of(old)]
        others = [old for old in found if old != path.with_suffix(".json")]
        for old in others[: max(0, len(others) - keep + 1)]:
            _remove(old)

    def record_release(self, arm: str, seed: int, round: int) -> int:
        """Record a release of noisy weights before it happens; returns the number so far.

        A round that is repeated counts again: both of its results may have been seen.
        """
        path = self._stem(arm, seed) / layout.RELEASES
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, f"{round}\n")
        return len(path.read_text(encoding="utf-8").splitlines())

    def record_sum(self, arm: str, seed: int, round: int, clients: Sequence[str]) -> None:
        """Record whose updates of a round are added up, before their nodes are asked for it.

        They agree to one set of clients: a round that is repeated must have the same.
        """
        if self.clients_summed(arm, seed, round) is None:
            path = self._stem(arm, seed) / layout.SUMS
            path.parent.mkdir(parents=True, exist_ok=True)
            _append(path, json.dumps({"round": round, "clients": sorted(clients)}) + "\n")

    def clients_summed(self, arm: str, seed: int, round: int) -> frozenset[str] | None:
        """The clients recorded for a round; None if there are none.

        Raises:
            InputError: The file is damaged.
        """
        path = self._stem(arm, seed) / layout.SUMS
        if not path.exists():
            return None
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for text in whole.split(b"\n") if whole else ():
            line = parse_json(text, str(path))
            if not isinstance(line, dict) or line.keys() != {"round", "clients"}:
                raise InputError(f"{path}: damaged; start a new run")
            if line["round"] == round:
                return frozenset(line["clients"])
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock this run for one process; unfinished files of an earlier process are removed.

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
                f"{self.path}: another process works on this run; wait for its end, or stop it"
            ) from None
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        for left in (*self.path.glob(".*.tmp"), *self.path.glob(f"{layout.CHECKPOINTS}/.*.tmp")):
            left.unlink(missing_ok=True)
        for tensors in self.path.glob(f"{layout.CHECKPOINTS}/round_*.safetensors"):
            if not tensors.with_suffix(".json").exists():
                tensors.unlink()

    def discard_after(self, arm: str, seed: int, round: int) -> None:
        """Remove the checkpoints after a round, which cannot be resumed from, and log it."""
        for description in self._descriptions(arm, seed):
            if (layout.round_of(description) or 0) > round:
                logger.warning("%s: damaged, removed; resuming after round %d", description, round)
                _remove(description)

    def latest(self, arm: str, seed: int) -> Checkpoint | None:
        """The newest whole checkpoint of an arm and seed; damaged ones are skipped and logged."""
        for description in reversed(self._descriptions(arm, seed)):
            try:
                return read_checkpoint(description.with_suffix(".safetensors"))
            except InputError as error:
                logger.warning("%s; using the one before", error)
        return None

    def start(self, arm: str, seed: int) -> Checkpoint | None:
        """The initial weights of an arm and seed; None if they are no longer there.

        Raises:
            InputError: It is damaged.
        """
        path = layout.round_file(self._stem(arm, seed), 0)
        return read_checkpoint(path) if path.with_suffix(".json").exists() else None

    def _descriptions(self, arm: str, seed: int) -> list[Path]:
        return layout.rounds_in(self._stem(arm, seed), ".json")

    def _stem(self, arm: str, seed: int) -> Path:
        try:
            return layout.seed_folder(self.path, check_name(arm), int(seed))
        except ValueError as error:
            raise InputError(f"{self.path}: no folder of an arm: {error}") from None


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
