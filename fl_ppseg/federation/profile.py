"""profile.json as a type: how the wall time of a run splits into parts.

With n workers every moment of the wall time has n places. Each span that is open at that moment
takes one of them, or, where more than n are open, its share of them; places that are left over are
waiting: the start of the engine, what passes messages on, whatever is no part. So the parts of a
stretch of time add up to it, a part is worker-seconds over the number of workers, and `compute` is
what as many workers need at least.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_ppseg.config.documents import read_bytes
from fl_ppseg.config.loading import parse_model
from fl_ppseg.config.run_layout import PROFILE
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.spans import PARTS, Span

MAX_BYTES: Final = 64 * 2**20
"""Of a file: a quarter of a million rounds."""
SCHEMA: Final = 1
TOLERANCE: Final = 1e-3
"""By how much parts may miss their wall time, in seconds: they are rounded."""
DIGITS: Final = 4
"""Of seconds, after the point."""
ALL_PARTS: Final = (*PARTS, "waiting")
"""In the order to show."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TimeParts(_Entry):
    """A stretch of wall time and its parts, in seconds."""

    wall: Seconds
    data: Seconds
    encryption: Seconds
    compute: Seconds
    wire: Seconds
    aggregation: Seconds
    waiting: Seconds

    @model_validator(mode="after")
    def _parts_add_up(self) -> Self:
        if abs(sum(self.of(part) for part in ALL_PARTS) - self.wall) > TOLERANCE:
            raise ValueError(f"parts do not add up to their wall time of {self.wall} s")
        return self

    def of(self, part: str) -> float:
        """The seconds of a part."""
        return float(getattr(self, part))


class RoundTime(TimeParts):
    """From the end of what was before to the end of a round."""

    arm: Name
    seed: Count
    round: Count
    """From 1; 0 is the scoring of the initial weights."""


class StartTime(_Entry):
    """A start of the command, of which a run that is resumed has several."""

    engine: Literal["ray", "in-process"]
    num_workers: Annotated[int, Field(ge=1, le=2**20)]
    preparation: TimeParts
    """From the start of the process to the first round."""
    conclusion: TimeParts | None = None
    """From the last round to the report; None if it was interrupted."""


class RunProfile(_Entry):
    """Where the time of a run went."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    starts: Annotated[tuple[StartTime, ...], Field(max_length=10_000)] = ()
    rounds: tuple[RoundTime, ...] = ()

    @model_validator(mode="after")
    def _rounds_differ(self) -> Self:
        if len({(each.arm, each.seed, each.round) for each in self.rounds}) < len(self.rounds):
            raise ValueError("a round is named twice")
        return self

    def including(self, added: RoundTime) -> "RunProfile":
        """With a round, in place of the same one that an earlier start did not finish."""
        key = (added.arm, added.seed, added.round)
        kept = [each for each in self.rounds if (each.arm, each.seed, each.round) != key]
        return self.model_copy(update={"rounds": (*kept, added)})

    @property
    def preparation(self) -> TimeParts:
        """Of all starts."""
        return total(start.preparation for start in self.starts)

    @property
    def conclusion(self) -> TimeParts:
        """Of all starts."""
        return total(start.conclusion for start in self.starts if start.conclusion is not None)

    @property
    def total(self) -> TimeParts:
        """Of the whole run."""
        return total([self.preparation, *self.rounds, self.conclusion])

    @property
    def over_compute(self) -> float | None:
        """The wall time of the whole run over its compute; None where nothing was computed."""
        whole = self.total
        return whole.wall / whole.compute if whole.compute else None


def total(parts: Iterable[TimeParts]) -> TimeParts:
    """The sum of stretches of time, part by part."""
    sums = Counter[str]()
    for each in parts:
        sums.update({part: each.of(part) for part in ALL_PARTS})
    return _adding_up({part: sums[part] for part in ALL_PARTS})


def shared_out(spans: Iterable[Span], begin: int, end: int, num_workers: int) -> TimeParts:
    """A stretch of wall time, shared out over the spans of all threads in it.

    Args:
        spans: Of any thread and time; what lies outside the stretch does not count.
        begin: Of the stretch, in nanoseconds of the monotonic clock.
        end: Of the stretch.
        num_workers: Places at each moment.

    >>> found = [Span("compute", 0, 3 * 10**9), Span("wire", 10**9, 10**10)]
    >>> parts = shared_out(found, 0, 4 * 10**9, num_workers=2)
    >>> parts.wall, parts.compute, parts.wire, parts.waiting
    (4.0, 1.5, 1.5, 1.0)
    """
    changes = []
    for part, first, last in spans:
        inside = max(first, begin), min(last, end)
        if inside[0] < inside[1]:
            changes += [(inside[0], part, 1), (inside[1], part, -1)]
    places: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    num_open, before = Counter[str](), begin
    for moment, part, change in sorted(changes):
        if passed := moment - before:
            share = passed / max(num_workers, num_open.total())
            for name, number in num_open.items():
                places[name] += share * number
        num_open[part] += change
        before = moment
    seconds = {part: value / 1e9 for part, value in places.items()}
    waiting = max(0.0, (end - begin) / 1e9 - sum(seconds.values()))
    return _adding_up({**seconds, "waiting": waiting})


def load_profile(run: Path) -> RunProfile | None:
    """The profile in a run folder; None if there is none.

    Raises:
        InputError: It is damaged, or of another version.
    """
    path = run / PROFILE
    if not path.is_file():
        return None
    return parse_model(RunProfile, read_bytes(path, MAX_BYTES), str(path))


def save_profile(run: Path, profile: RunProfile) -> None:
    """Write the profile into a run folder atomically."""
    write_atomically(run / PROFILE, profile.model_dump_json(by_alias=True) + "\n", lasting=False)


def _adding_up(seconds: dict[str, float]) -> TimeParts:
    """Parts that are rounded, and their sum."""
    rounded = {part: round(value, DIGITS) for part, value in seconds.items()}
    return TimeParts(wall=round(sum(rounded.values()), DIGITS), **rounded)
