"""summary.json as a type: what a run reached, written by `summarise` and read by reports.

Whoever wrote the file, what is read is held to bounds; entries that this version does not know are
left out. Scores are in percent, None where they are not known.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_ppseg.config.documents import read_bytes
from fl_ppseg.config.loading import parse_model

MAX_BYTES: Final = 64 * 2**20
"""One of a hundred arms and clients is a hundredth of this."""
MOST: Final = 1000
"""Arms of a run, trainings of an arm."""
SCHEMA: Final = 3
"""2: with what is scored without an image and at the start; 3: `per_client_mIoU`, which was
`per_city_mIoU`."""
HOW_TO_RENEW: Final = (
    "python -m fl_ppseg.simulate --out RUN --resume writes it anew from results.jsonl"
)

Name = Annotated[str, Field(min_length=1, max_length=200)]
Percent = Annotated[float, Field(ge=0, le=100)] | None
Points = Annotated[float, Field(ge=-100, le=100)]
Ratio = Annotated[float, Field(ge=0, le=1e18)]
Share = Annotated[float, Field(ge=-1e18, le=1e18)]
"""Below 0 where an arm is below what is scored without an image."""
Interval = tuple[float, float] | None
Count = Annotated[int, Field(ge=0, le=2**31)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, le=1e18)] | None


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class TwoScores(_Entry):
    """What was reached without an image."""

    mIoU: Percent = None  # noqa: N815
    aAcc: Percent = None  # noqa: N815


class KeyScores(TwoScores):
    """What queries under one kind of key reached."""

    mAcc: Percent = None  # noqa: N815


class ValImages(_Entry):
    """What the intervals over val images and places were drawn from."""

    num_images: Count
    num_places: Count
    resamples: Count
    seed: Count = 0


class ImageIntervals(_Entry):
    """95 % intervals over other val images and other places, of the newest weights of each seed."""

    newest_mIoU: Percent = None  # noqa: N815
    mIoU_ci95_images: Interval = None  # noqa: N815
    gain_ci95_images: Interval = None
    ratio_ci95_images: Interval = None
    of_plain_above_no_image_ci95_images: Interval = None
    mIoU_ci95_places: Interval = None  # noqa: N815
    gain_ci95_places: Interval = None
    ratio_ci95_places: Interval = None
    of_plain_above_no_image_ci95_places: Interval = None


class TrainingScores(_Entry):
    """Scores of one training, or the means over several."""

    aAcc: Percent = None  # noqa: N815
    mIoU: Percent = None  # noqa: N815
    mAcc: Percent = None  # noqa: N815
    own_mIoU: Percent = None  # noqa: N815
    start_mIoU: Percent = None  # noqa: N815
    gain: Points | None = None
    ratio_to_plain: Ratio | None = None
    of_plain_above_no_image: Share | None = None


class SeedSummary(TrainingScores):
    """One training of an arm."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]


class ArmSummary(TrainingScores, ImageIntervals):
    """What an arm reached and cost."""

    aAcc_std: Percent = None  # noqa: N815
    mIoU_std: Percent = None  # noqa: N815
    mAcc_std: Percent = None  # noqa: N815
    own_mIoU_std: Percent = None  # noqa: N815
    start_mIoU_std: Percent = None  # noqa: N815
    gain_std: Percent = None
    mIoU_ci95: Interval = None  # noqa: N815
    gain_ci95: Interval = None
    ratio_ci95: Interval = None
    of_plain_above_no_image_ci95: Interval = None
    per_class_iou: dict[str, Percent] = Field(default_factory=dict)
    per_client_mIoU: dict[str, Percent] = Field(default_factory=dict)  # noqa: N815
    per_seed: Annotated[tuple[SeedSummary, ...], Field(max_length=MOST)] = ()
    rounds: Count | None = None
    seconds: Amount = None
    bytes_up: Bytes | None = None
    bytes_down: Bytes | None = None
    key_trials: Annotated[dict[Name, KeyScores], Field(max_length=10)] | None = None

    @property
    def by_seed(self) -> dict[int, float | None]:
        """mIoU of each training."""
        return {own.seed: own.mIoU for own in self.per_seed}


class RunSummary(_Entry):
    """What a run reached: its arms in the order to show."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Annotated[int, Field(alias="schema")]
    no_image: TwoScores | None = None
    arms: Annotated[dict[Name, ArmSummary], Field(max_length=MOST)]
    val_images: ValImages | None = None
    total_seconds: Amount = None
    peak_rss_mb: Amount = None
    notes: tuple[str, ...] = ()

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

    def to_json(self) -> str:
        """The content of summary.json: what was given, null where it is not known."""
        return self.model_dump_json(by_alias=True, exclude_unset=True, indent=1) + "\n"


def parse_summary(content: str | bytes, source: str) -> RunSummary:
    """The summary in a text.

    Args:
        content: The JSON.
        source: What an error names.

    Raises:
        InputError: It is of another form or schema, or out of bounds.
    """
    return parse_model(RunSummary, content, source)


def read_summary(path: Path) -> RunSummary:
    """The summary in a file.

    Raises:
        InputError: As `parse_summary`, or it is not a file, or too large, or cannot be read.
    """
    return parse_summary(read_bytes(path, MAX_BYTES, follow_link=False), str(path))
