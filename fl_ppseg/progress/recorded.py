"""The events of a run in a file: one process writes them down, another shows them.

A deployed run is trained by Flower's server process, which has no terminal. It writes a line of
JSON an event; the coordinator's command reads on and plays them to the view of `simulate`.
"""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fl_ppseg.config.documents import parse_json
from fl_ppseg.progress.observer import Phase, RunObserver, SilentObserver
from fl_ppseg.progress.state import ScoresLike
from fl_ppseg.system.errors import InputError

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 2**20


class RecordedScores(NamedTuple):
    """What a view shows of the scores of a round, in percent."""

    aAcc: float  # noqa: N815 - the field's own words
    mIoU: float  # noqa: N815
    mAcc: float  # noqa: N815


class RecordedObserver(SilentObserver):
    """Appends every event to a file; a file that cannot be written does not fail the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run_started(
        self,
        arms: Sequence[str],
        seeds: Sequence[int],
        num_rounds: int,
        num_train_clients: int,
        num_val_nodes: int,
    ) -> None:
        """Writes the event."""
        self._write(
            "run_started", list(arms), list(seeds), num_rounds, num_train_clients, num_val_nodes
        )

    def arm_resumed(
        self, arm: str, seed: int, num_done: int, losses: Sequence[float], mious: Sequence[float]
    ) -> None:
        """Writes the event."""
        self._write("arm_resumed", arm, seed, num_done, list(losses), list(mious))

    def arm_started(self, arm: str, seed: int) -> None:
        """Writes the event."""
        self._write("arm_started", arm, seed)

    def round_started(self, round: int) -> None:
        """Writes the event."""
        self._write("round_started", round)

    def replied(
        self, city: str, phase: Phase, num_done: int, num_expected: int, loss: float | None
    ) -> None:
        """Writes the event."""
        self._write("replied", city, phase, num_done, num_expected, loss)

    def round_finished(
        self, round: int, train_loss: float | None, scores: ScoresLike | None
    ) -> None:
        """Writes the event with the three scores of a view."""
        shown = None if scores is None else [scores.aAcc, scores.mIoU, scores.mAcc]
        self._write("round_finished", round, train_loss, shown)

    def arm_finished(self, arm: str, seed: int) -> None:
        """Writes the event."""
        self._write("arm_finished", arm, seed)

    def message(self, text: str) -> None:
        """Writes the event."""
        self._write("message", text)

    def run_finished(self) -> None:
        """Writes the event."""
        self._write("run_finished")

    def _write(self, event: str, *values: object) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([event, *map(_plain, values)], allow_nan=False) + "\n")
        except OSError as error:
            log.warning("%s: event %s not written (%s)", self.path, event, error.strerror)


def _plain(value: object) -> object:
    """A value for JSON: a loss that is not finite becomes null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replay(path: Path, observer: RunObserver, start: int = 0) -> int:
    """Play the recorded events to an observer; call it again to follow a run.

    Args:
        path: What a `RecordedObserver` writes; one that is not there yet has no events.
        observer: Receives every complete event; invalid lines are skipped.
        start: Offset in bytes to begin at: what the call before has returned.

    Returns:
        The offset behind the last whole line.
    """
    if not path.exists():
        return start
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
    for line in lines:
        if not line.endswith(b"\n"):  # half-written: next time
            break
        _play(line, observer)
        start += len(line)
    return start


def _play(line: bytes, observer: RunObserver) -> None:
    try:
        event, *values = parse_json(line, "an event", MAX_EVENT_BYTES)
        _events(observer)[event](*values)
    except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("an invalid event is skipped (%s)", error)


def _events(observer: RunObserver) -> dict[str, Any]:
    def round_finished(round: int, loss: float | None, scores: list[float] | None) -> None:
        observer.round_finished(round, loss, None if scores is None else RecordedScores(*scores))

    names = (
        "run_started", "arm_resumed", "arm_started", "round_started", "replied", "arm_finished",
        "message", "run_finished",
    )  # fmt: skip
    return {
        **{name: getattr(observer, name) for name in names},
        "round_finished": round_finished,
    }
