"""summary.json of a run as the audit reads it again: bounded, whoever wrote it."""

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_ppseg.federation.summary import HOW_TO_RENEW, SCHEMA
from fl_ppseg.leaks.file import MOST, Name, parsed, read_bounded

MAX_BYTES: Final = 64 * 2**20
"""One of a hundred arms and cities is a hundredth of this."""

Percent = Annotated[float, Field(ge=0, le=100)] | None
Points = Annotated[float, Field(ge=-100, le=100)]
Ratio = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=-1e6, le=1e6)]
"""Below 0 where an arm is below what is scored without an image."""
Ends = tuple[float, float] | None
Amount = Annotated[float, Field(ge=0, le=1e18)] | None


class _Read(BaseModel):
    """Entries that a report does not read are left out, those that it reads are held to bounds."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Trial(_Read):
    mIoU: Percent = None  # noqa: N815
    aAcc: Percent = None  # noqa: N815


class _NoImage(_Read):
    mIoU: Percent = None  # noqa: N815
    aAcc: Percent = None  # noqa: N815


class _Seed(_Read):
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class _Arm(_Read):
    aAcc: Percent = None  # noqa: N815
    mIoU: Percent = None  # noqa: N815
    mAcc: Percent = None  # noqa: N815
    own_mIoU: Percent = None  # noqa: N815
    aAcc_std: Percent = None  # noqa: N815
    mIoU_std: Percent = None  # noqa: N815
    newest_mIoU: Percent = None  # noqa: N815
    mIoU_ci95: Ends = None  # noqa: N815
    mIoU_ci95_images: Ends = None  # noqa: N815
    mIoU_ci95_places: Ends = None  # noqa: N815
    mAcc_std: Percent = None  # noqa: N815
    own_mIoU_std: Percent = None  # noqa: N815
    start_mIoU: Percent = None  # noqa: N815
    start_mIoU_std: Percent = None  # noqa: N815
    gain: Points | None = None
    gain_std: Percent = None
    gain_ci95: Ends = None
    gain_ci95_images: Ends = None
    gain_ci95_places: Ends = None
    ratio_to_plain: Ratio | None = None
    ratio_ci95: Ends = None
    ratio_ci95_images: Ends = None
    ratio_ci95_places: Ends = None
    of_plain_above_no_image: Share | None = None
    of_plain_above_no_image_ci95: Ends = None
    of_plain_above_no_image_ci95_images: Ends = None
    of_plain_above_no_image_ci95_places: Ends = None
    per_seed: Annotated[tuple[_Seed, ...], Field(max_length=MOST)] = ()
    rounds: Annotated[int, Field(ge=0, le=2**31)] | None = None
    seconds: Amount = None
    bytes_up: Amount = None
    bytes_down: Amount = None
    key_trials: Annotated[dict[Name, _Trial], Field(max_length=10)] | None = None
    error: Annotated[str, Field(max_length=4000)] | None = None


class _Summary(_Read):
    schema_: Annotated[int, Field(alias="schema")]
    no_image: _NoImage | None = None
    arms: Annotated[dict[Name, _Arm], Field(max_length=MOST)]

    @model_validator(mode="after")
    def _schema_is_known(self) -> "_Summary":
        if self.schema_ != SCHEMA:
            raise ValueError(
                f"a summary of schema {self.schema_}, expected {SCHEMA}; {HOW_TO_RENEW}"
            )
        return self


def parse_summary(content: str | bytes, source: str) -> dict[str, Any]:
    """What a report reads of a summary.

    Args:
        content: The JSON.
        source: What an error names.

    Raises:
        InputError: It is of another form or schema, or out of bounds.
    """
    return parsed(_Summary, content, source).model_dump(exclude_unset=True, by_alias=True)


def read_summary(path: Path) -> dict[str, Any]:
    """What a report reads of the summary in a file.

    Raises:
        InputError: As `parse_summary`, or it is no file, or too large, or cannot be read.
    """
    return parse_summary(read_bounded(path, MAX_BYTES), str(path))


def ratios_in(summary: dict[str, Any]) -> dict[str, float]:
    """mIoU of each arm over plain's; those that have none are left out."""
    found = {name: entry.get("ratio_to_plain") for name, entry in summary["arms"].items()}
    return {name: float(ratio) for name, ratio in found.items() if ratio is not None}
