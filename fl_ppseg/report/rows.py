"""summary.json -> one row an arm: means over seeds, their spread, and what an arm cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

PLAIN = "plain"
"""The arm that ratios are taken to."""
NO_IMAGE = "no image"
"""The row of the answer without an image; no arm can have this name."""
MISSING = "–"
BYTES_PER_MB = 1e6


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


@dataclass(frozen=True)
class ArmRow:
    """What one arm reached (percent) and cost.

    `start` is the mIoU of what its training started from, `gain` what that added to it.

    `ratio` is its mIoU over that of `plain`, paired by seed, and `interval` the ends of the ratio's
    95 % confidence interval: None for one seed and for `plain` itself. `above` and
    `above_interval` are so of what both have above the answer without an image.
    """

    arm: str
    aAcc: Measured  # noqa: N815
    mIoU: Measured  # noqa: N815
    mAcc: Measured  # noqa: N815
    own_mIoU: Measured  # noqa: N815
    start: float | None
    gain: Measured
    gain_interval: tuple[float, float] | None
    ratio: float | None
    interval: tuple[float, float] | None
    above: float | None
    above_interval: tuple[float, float] | None
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


def ends(interval: tuple[float, float] | None) -> str:
    """An interval of ratios, or a dash.

    >>> ends((0.9301, 0.9744))
    '0.930–0.974'
    """
    return MISSING if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


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
        gain_interval=_interval(values.get("gain_ci95")),
        ratio=number(values.get("ratio_to_plain")),
        interval=None if arm == PLAIN else _interval(values.get("ratio_ci95")),
        above=number(values.get("of_plain_above_no_image")),
        above_interval=(
            None if arm == PLAIN else _interval(values.get("of_plain_above_no_image_ci95"))
        ),
        rounds=None if rounds is None else int(rounds),
        seconds=number(values.get("seconds")),
        megabytes_up=_megabytes(values.get("bytes_up")),
        megabytes_down=_megabytes(values.get("bytes_down")),
        num_seeds=len(values.get("per_seed") or ()) or 1,
        error=None if error is None else str(error),
    )


def _key_row(arm: str, by_key: Mapping[str, Mapping[str, object]]) -> KeyRow:
    def of(score: str) -> list[float | None]:
        return [number((by_key.get(key) or {}).get(score)) for key in ("right", "wrong", "none")]

    return KeyRow(arm, *of("mIoU"), *of("aAcc"))


def _measured(values: Mapping[str, Any], score: str) -> Measured:
    return Measured(number(values.get(score)), number(values.get(f"{score}_std")))


def _interval(pair: Sequence[object] | None) -> tuple[float, float] | None:
    low, high = map(number, pair or (None, None))
    return None if low is None or high is None else (low, high)


def _megabytes(value: object) -> float | None:
    num_bytes = number(value)
    return None if num_bytes is None else num_bytes / BYTES_PER_MB
