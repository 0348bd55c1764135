"""The events of a run in a file: one process writes them down, another shows them.

A deployed run is trained by Flower's server process, which has no terminal. It writes a line of
JSON an event; the coordinator's command reads on and plays them to the observers of its user.
"""

import logging
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from fl_ppseg.progress.events import Event
from fl_ppseg.progress.observer import Observer, SilentObserver

log = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 8 * 2**20
_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class RecordedObserver(SilentObserver):
    """Appends every event to a file; a file that cannot be written does not fail the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_event(self, event: Event) -> None:
        """Writes the event; a loss that is not finite becomes null."""
        try:
            with self.path.open("ab") as file:
                file.write(_EVENT.dump_json(event) + b"\n")
        except OSError as error:
            log.warning("%s: event %s not written (%s)", self.path, event.event, error.strerror)


def replay(path: Path, observer: Observer, start: int = 0) -> int:
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
        if (event := _parse(line)) is not None:
            observer.on_event(event)
        start += len(line)
    return start


def _parse(line: bytes) -> Event | None:
    try:
        if len(line) > MAX_EVENT_BYTES:
            raise ValueError(f"expected at most {MAX_EVENT_BYTES:,} bytes, got more")
        return _EVENT.validate_json(line, strict=True)
    except ValidationError as error:
        why = error.errors(include_url=False, include_input=False)[0]["msg"]
    except ValueError as error:
        why = str(error)
    log.warning("an invalid event is skipped (%s)", why)
    return None
