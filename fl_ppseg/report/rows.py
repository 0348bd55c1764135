"""A run's summary -> one row per arm: means over seeds, their spread, and what an arm cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fl_ppseg.federation.run_summary import ArmSummary, RunSummary, TwoScores
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

    @property
    def failed(self) -> bool:
        """Whether the arm ended without a score on the val clients."""
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


def arm_rows(summary: RunSummary) -> tuple[ArmRow, ...]:
    """Rows in the order of the summary."""
    return tuple(_row(name, arm) for name, arm in summary.arms.items())


def interval_rows(summary: RunSummary) -> tuple[IntervalRow, ...]:
    """The intervals of all arms that have any, arm by arm."""
    return tuple(entry for row in arm_rows(summary) for entry in row.intervals)


def no_image_row(summary: RunSummary) -> ArmRow | None:
    """The answer without an image, as a row beside those of arms; None where nobody has it."""
    scores = summary.no_image
    if scores is None:
        return None
    return _row(NO_IMAGE, ArmSummary(mIoU=scores.mIoU, aAcc=scores.aAcc))


def key_rows(summary: RunSummary) -> tuple[KeyRow, ...]:
    """Rows of the arms whose key was put to the test, in the order of the summary."""
    return tuple(
        _key_row(name, [arm.key_trials.get(key, TwoScores()) for key in ("right", "wrong", "none")])
        for name, arm in summary.arms.items()
        if arm.key_trials
    )


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


def _row(name: str, arm: ArmSummary) -> ArmRow:
    return ArmRow(
        arm=name,
        aAcc=Measured(arm.aAcc, arm.aAcc_std),
        mIoU=Measured(arm.mIoU, arm.mIoU_std),
        mAcc=Measured(arm.mAcc, arm.mAcc_std),
        own_mIoU=Measured(arm.own_mIoU, arm.own_mIoU_std),
        start=arm.start_mIoU,
        gain=Measured(arm.gain, arm.gain_std),
        ratio=arm.ratio_to_plain,
        above=arm.of_plain_above_no_image,
        intervals=tuple(_intervals(name, arm)),
        rounds=arm.rounds,
        seconds=arm.seconds,
        megabytes_up=_megabytes(arm.bytes_up),
        megabytes_down=_megabytes(arm.bytes_down),
        num_seeds=len(arm.per_seed) or 1,
    )


def _intervals(name: str, arm: ArmSummary) -> Iterator[IntervalRow]:
    for kind in KINDS:
        suffix = "ci95" if kind == "seeds" else f"ci95_{kind}"
        scores = ("mIoU", "gain", "ratio", "of_plain_above_no_image")
        miou, gain, *shares = (getattr(arm, f"{score}_{suffix}") for score in scores)
        ratio, above = (None, None) if name == PLAIN else shares
        if (miou, gain, ratio, above) != (None,) * 4:
            yield IntervalRow(name, kind, miou, gain, ratio, above)


def _key_row(name: str, trials: list[TwoScores]) -> KeyRow:
    return KeyRow(name, *(each.mIoU for each in trials), *(each.aAcc for each in trials))


def _megabytes(num_bytes: float | None) -> float | None:
    return None if num_bytes is None else num_bytes / BYTES_PER_MB
