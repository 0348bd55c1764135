"""summary.json -> one row an arm: means over seeds, their spread, and what an arm cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fl_ppseg.learning.intervals import KINDS

PLAIN = "plain"
"""The arm that ratios are taken to."""
NO_IMAGE = "no image"
"""The row of the answer without an image; no arm can have this name."""
MISSING = "–"
BYTES_PER_MB = 1e6
Ends = tuple[float, float] | None
"""Of an interval."""


@dataclass(frozen=True)
class Measured:
    """A mean over seeds with its sample standard deviation; None where not measured."""

    mean: float | None
    spread: float | None = None

    def text(self, decimals: int = 1) -> str:
        """Writes `24.3`, `24.3 ± 0.4`, or a dash where nothing was measured.

        >>> Measured(24.31, 0.42).text()
        '24.3 ± 0.4'
        """
        if self.mean is None:
            return MISSING
        return f"{self.mean:.{decimals}f}{self._spread(decimals)}"

    def signed(self, decimals: int = 1) -> str:
        """Writes a difference.

        >>> Measured(2.31, 0.42).signed(), Measured(-0.5).signed()
        ('+2.3 ± 0.4', '-0.5')
        """
        if self.mean is None:
            return MISSING
        return f"{self.mean:+.{decimals}f}{self._spread(decimals)}"

    def _spread(self, decimals: int) -> str:
        return "" if self.spread is None else f" ± {self.spread:.{decimals}f}"


class IntervalRow(NamedTuple):
    """The 95 % intervals of an arm's scores over one kind of thing."""

    arm: str
    kind: str
    """`seeds`, `images` or `places`."""
    miou: Ends
    gain: Ends
    ratio: Ends
    """None for `plain`, whose ratio to itself is 1."""
    above: Ends


@dataclass(frozen=True)
class ArmRow:
    """What one arm reached (percent) and cost.

    `start` is the mIoU of what its training started from, `gain` what that added to it.

    `ratio` is its mIoU over that of `plain`, paired by seed; `above` is so of what both have above
    the answer without an image. `intervals` are those that the run has.
    """

    arm: str
    aAcc: Measured  # noqa: N815
    mIoU: Measured  # noqa: N815
    mAcc: Measured  # noqa: N815
    own_mIoU: Measured  # noqa: N815
    start: float | None
    gain: Measured
    ratio: float | None
    above: float | None
    intervals: tuple[IntervalRow, ...]
    rounds: int | None
    seconds: float | None
    megabytes_up: float | None
    megabytes_down: float | None
    num_seeds: int
    error: str | None

    @property
    def failed(self) -> bool:
        """Whether the arm ended without a score on the val cities."""
        return self.mIoU.mean is None


class KeyRow(NamedTuple):
    """mIoU and aAcc (percent) of queries under the right key, a wrong key and no key."""

    arm: str
    right_miou: float | None
    wrong_miou: float | None
    no_key_miou: float | None
    right_aacc: float | None
    wrong_aacc: float | None
    no_key_aacc: float | None


def arm_rows(summary: Mapping[str, Any]) -> tuple[ArmRow, ...]:
    """Rows in the order of the summary; missing, null and not finite numbers become None."""
    return tuple(_row(arm, values or {}) for arm, values in summary["arms"].items())


def interval_rows(summary: Mapping[str, Any]) -> tuple[IntervalRow, ...]:
    """The intervals of all arms that have any, arm by arm."""
    return tuple(entry for row in arm_rows(summary) for entry in row.intervals)


def no_image_row(summary: Mapping[str, Any]) -> ArmRow | None:
    """The answer without an image, as a row beside those of arms; None where nobody has it."""
    values = summary.get("no_image")
    return None if values is None else _row(NO_IMAGE, values)


def key_rows(summary: Mapping[str, Any]) -> tuple[KeyRow, ...]:
    """Rows of the arms whose key was put to the test, in the order of the summary."""
    trials = {arm: (values or {}).get("key_trials") for arm, values in summary["arms"].items()}
    return tuple(_key_row(arm, by_key) for arm, by_key in trials.items() if by_key)


def number(value: object) -> float | None:
    """A finite number as float, all else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def amount(value: float | None) -> str:
    """Seconds or megabytes: one decimal below 100, none above; a dash for None."""
    return fixed(value, 1 if value is not None and value < 100 else 0)


def ends(interval: Ends, form: str = ".3f") -> str:
    """An interval, or a dash; of ratios if no other form of its numbers is given.

    >>> ends((0.9301, 0.9744)), ends((-0.51, 2.04), "+.1f")
    ('0.930–0.974', '-0.5–+2.0')
    """
    return MISSING if interval is None else f"{interval[0]:{form}}–{interval[1]:{form}}"


def fixed(value: float | None, decimals: int) -> str:
    """A number with its decimals, or a dash."""
    return MISSING if value is None else f"{value:,.{decimals}f}"


def _row(arm: str, values: Mapping[str, Any]) -> ArmRow:
    rounds = number(values.get("rounds"))
    error = values.get("error")
    return ArmRow(
        arm=arm,
        aAcc=_measured(values, "aAcc"),
        mIoU=_measured(values, "mIoU"),
        mAcc=_measured(values, "mAcc"),
        own_mIoU=_measured(values, "own_mIoU"),
        start=number(values.get("start_mIoU")),
        gain=_measured(values, "gain"),
        ratio=number(values.get("ratio_to_plain")),
        above=number(values.get("of_plain_above_no_image")),
        intervals=tuple(_intervals(arm, values)),
        rounds=None if rounds is None else int(rounds),
        seconds=number(values.get("seconds")),
        megabytes_up=_megabytes(values.get("bytes_up")),
        megabytes_down=_megabytes(values.get("bytes_down")),
        num_seeds=len(values.get("per_seed") or ()) or 1,
        error=None if error is None else str(error),
    )


def _intervals(arm: str, values: Mapping[str, Any]) -> Iterator[IntervalRow]:
    for kind in KINDS:
        suffix = "ci95" if kind == "seeds" else f"ci95_{kind}"
        names = ("mIoU", "gain", "ratio", "of_plain_above_no_image")
        miou, gain, *shares = (_interval(values.get(f"{name}_{suffix}")) for name in names)
        ratio, above = (None, None) if arm == PLAIN else shares
        if (miou, gain, ratio, above) != (None,) * 4:
            yield IntervalRow(arm, kind, miou, gain, ratio, above)


def _key_row(arm: str, by_key: Mapping[str, Mapping[str, object]]) -> KeyRow:
    def of(score: str) -> list[float | None]:
        return [number((by_key.get(key) or {}).get(score)) for key in ("right", "wrong", "none")]

    return KeyRow(arm, *of("mIoU"), *of("aAcc"))


def _measured(values: Mapping[str, Any], score: str) -> Measured:
    return Measured(number(values.get(score)), number(values.get(f"{score}_std")))


def _interval(pair: Sequence[object] | None) -> Ends:
    low, high = map(number, pair or (None, None))
    return None if low is None or high is None else (low, high)


def _megabytes(value: object) -> float | None:
    num_bytes = number(value)
    return None if num_bytes is None else num_bytes / BYTES_PER_MB
