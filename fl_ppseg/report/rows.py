"""summary.json -> one row an arm: means over seeds, their spread, and what an arm cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import stdev
from typing import Any

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
        spread = "" if self.spread is None else f" ± {self.spread:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


@dataclass(frozen=True)
class ArmRow:
    """What one arm reached (percent) and cost; `ratio` is its mIoU over that of `plain`."""

    arm: str
    aAcc: Measured  # noqa: N815
    mIoU: Measured  # noqa: N815
    mAcc: Measured  # noqa: N815
    own_mIoU: Measured  # noqa: N815
    ratio: float | None
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


def arm_rows(summary: Mapping[str, Any]) -> tuple[ArmRow, ...]:
    """Rows in the order of the summary; missing, null and not finite numbers become None."""
    return tuple(_row(arm, values or {}) for arm, values in summary["arms"].items())


def number(value: object) -> float | None:
    """A finite number as float, all else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def amount(value: float | None) -> str:
    """Seconds or megabytes: one decimal below 100, none above; a dash for None."""
    return fixed(value, 1 if value is not None and value < 100 else 0)


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
        ratio=number(values.get("ratio_to_plain")),
        rounds=None if rounds is None else int(rounds),
        seconds=number(values.get("seconds")),
        megabytes_up=_megabytes(values.get("bytes_up")),
        megabytes_down=_megabytes(values.get("bytes_down")),
        num_seeds=len(values.get("per_seed") or ()) or 1,
        error=None if error is None else str(error),
    )


def _measured(values: Mapping[str, Any], score: str) -> Measured:
    every = [number(seed.get(score)) for seed in values.get("per_seed") or ()]
    finite = [value for value in every if value is not None]
    return Measured(number(values.get(score)), stdev(finite) if len(finite) > 1 else None)


def _megabytes(value: object) -> float | None:
    num_bytes = number(value)
    return None if num_bytes is None else num_bytes / BYTES_PER_MB
