"""What a report reads of summary.json, as a type: bounded, whoever wrote the file."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_ppseg.federation.summary import HOW_TO_RENEW, SCHEMA
from fl_ppseg.leaks.file import MOST, Name, parsed, read_bounded

MAX_BYTES: Final = 64 * 2**20
"""One of a hundred arms and cities is a hundredth of this."""

Percent = Annotated[float, Field(ge=0, le=100)] | None
Points = Annotated[float, Field(ge=-100, le=100)]
Ratio = Annotated[float, Field(ge=0, le=1e18)]
Share = Annotated[float, Field(ge=-1e18, le=1e18)]
"""Below 0 where an arm is below what is scored without an image."""
Interval = tuple[float, float] | None
Count = Annotated[int, Field(ge=0, le=2**31)]
Amount = Annotated[float, Field(ge=0, le=1e18)] | None


class _Read(BaseModel):
    """Entries that a report does not read are left out, those that it reads are held to bounds."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class TwoScores(_Read):
    """What was reached without an image, or by queries under a key."""

    mIoU: Percent = None  # noqa: N815
    aAcc: Percent = None  # noqa: N815


class ValImages(_Read):
    """What the intervals over val images and places were drawn from."""

    num_images: Count
    num_places: Count
    resamples: Count


class SeedSummary(_Read):
    """One training of an arm."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]


class ArmSummary(_Read):
    """What an arm reached and cost; None where that is not known. Scores are in percent."""

    aAcc: Percent = None  # noqa: N815
    mIoU: Percent = None  # noqa: N815
    mAcc: Percent = None  # noqa: N815
    own_mIoU: Percent = None  # noqa: N815
    aAcc_std: Percent = None  # noqa: N815
    mIoU_std: Percent = None  # noqa: N815
    newest_mIoU: Percent = None  # noqa: N815
    mIoU_ci95: Interval = None  # noqa: N815
    mIoU_ci95_images: Interval = None  # noqa: N815
    mIoU_ci95_places: Interval = None  # noqa: N815
    mAcc_std: Percent = None  # noqa: N815
    own_mIoU_std: Percent = None  # noqa: N815
    start_mIoU: Percent = None  # noqa: N815
    start_mIoU_std: Percent = None  # noqa: N815
    gain: Points | None = None
    gain_std: Percent = None
    gain_ci95: Interval = None
    gain_ci95_images: Interval = None
    gain_ci95_places: Interval = None
    ratio_to_plain: Ratio | None = None
    ratio_ci95: Interval = None
    ratio_ci95_images: Interval = None
    ratio_ci95_places: Interval = None
    of_plain_above_no_image: Share | None = None
    of_plain_above_no_image_ci95: Interval = None
    of_plain_above_no_image_ci95_images: Interval = None
    of_plain_above_no_image_ci95_places: Interval = None
    per_seed: Annotated[tuple[SeedSummary, ...], Field(max_length=MOST)] = ()
    rounds: Count | None = None
    seconds: Amount = None
    bytes_up: Amount = None
    bytes_down: Amount = None
    key_trials: Annotated[dict[Name, TwoScores], Field(max_length=10)] | None = None
    per_class_iou: dict[str, Percent] = Field(default_factory=dict)
    per_city_mIoU: dict[str, Percent] = Field(default_factory=dict)  # noqa: N815


class RunSummary(_Read):
    """What a run reached: its arms in the order to show."""

    schema_: Annotated[int, Field(alias="schema")]
    no_image: TwoScores | None = None
    arms: Annotated[dict[Name, ArmSummary], Field(max_length=MOST)]
    notes: tuple[str, ...] = ()
    val_images: ValImages | None = None
    total_seconds: Amount = None
    peak_rss_mb: Amount = None

    @model_validator(mode="after")
    def _schema_is_known(self) -> "RunSummary":
        if self.schema_ != SCHEMA:
            raise ValueError(
                f"a summary of schema {self.schema_}, expected {SCHEMA}; {HOW_TO_RENEW}"
            )
        return self

    @property
    def ratios(self) -> dict[str, float]:
        """mIoU of each arm over plain's; those that have none are left out."""
        found = {name: arm.ratio_to_plain for name, arm in self.arms.items()}
        return {name: ratio for name, ratio in found.items() if ratio is not None}


def parse_summary(content: str | bytes, source: str) -> RunSummary:
    """The summary in a text.

    Args:
        content: The JSON.
        source: What an error names.

    Raises:
        InputError: It is of another form or schema, or out of bounds.
    """
    return parsed(RunSummary, content, source)


def read_summary(path: Path) -> RunSummary:
    """The summary in a file.

    Raises:
        InputError: As `parse_summary`, or it is no file, or too large, or cannot be read.
    """
    return parse_summary(read_bounded(path, MAX_BYTES), str(path))
