"""What an audit of identity counted, as data: identity.json, and as it is read again.

Whatever a file says is bounded before it is used; no text of it is markup or a path.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_ppseg.config.documents import read_bytes
from fl_ppseg.config.loading import parse_model
from fl_ppseg.leaks.table import Budget

MAX_BYTES: Final = 2**20
"""A table of a hundred frames is a tenth of this."""
MOST: Final = 1000

Name = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[str, Field(max_length=4000)]
Side = Annotated[int, Field(ge=1, le=2**16)]
Height = Annotated[float, Field(gt=0, le=2**16)]
Ssim = Annotated[float, Field(ge=-1, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]

PLAIN: Final = "plain"
MEANS: Final = "one mean a block"
"""Readings that stand beside those of canonical forms."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Count(_Entry):
    """How many of how many were right."""

    right: Annotated[int, Field(ge=0, le=2**31)]
    of: Annotated[int, Field(ge=1, le=2**31)]

    @model_validator(mode="after")
    def _no_more_than_all(self) -> "Count":
        if self.right > self.of:
            raise ValueError(f"{self.right} right of {self.of}")
        return self

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        from scipy.stats import binomtest  # type: ignore[import-untyped]  # loads slowly

        found = binomtest(self.right, self.of).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


class Reading(_Entry):
    """What was read of the plates and faces of a frame, seen in one way."""

    seen: Name
    """`plain`, `one mean a block`, or the canonical form that was restored."""
    plate_ssim: Ssim
    face_ssim: Ssim
    """Of what the readers saw, with the crops as they were."""
    characters: Count
    plates: Count
    """Whole plates, every character right."""
    faces: Count


class Frame(_Entry):
    """A size of images and of blocks, and what plates and faces are in them."""

    image_size: tuple[Side, Side]
    block_size: Side
    letter_height: Height
    face_height: Height
    """Pixels."""
    chance_of_character: Share
    chance_of_plate: Share
    chance_of_face: Share
    readings: Annotated[tuple[Reading, ...], Field(min_length=1, max_length=MOST)]

    @model_validator(mode="after")
    def _readings_differ(self) -> "Frame":
        names = [reading.seen for reading in self.readings]
        if len(set(names)) != len(names):
            raise ValueError("a reading is named twice")
        if names[0] != PLAIN:
            raise ValueError(f"expected {PLAIN} as the first reading, got {names[0]!a}")
        return self

    @property
    def plain(self) -> Reading:
        """What was read of the crops as they are."""
        return self.readings[0]


class Thumbnails(_Entry):
    """How near one mean a block comes to whole scenes of a size."""

    image_size: tuple[Side, Side]
    block_size: Side
    num_images: Annotated[int, Field(ge=1, le=2**31)]
    ssim: Ssim


class IdentityTable(_Entry):
    """A whole audit of identity."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    budget: Budget
    effort: Annotated[dict[Name, Annotated[float, Field(ge=0, le=2**31)]], Field(max_length=100)]
    """The numbers behind the budget."""
    made: Annotated[dict[Name, Words], Field(max_length=100)]
    seconds: Annotated[float, Field(ge=0, le=1e9)]
    frames: Annotated[tuple[Frame, ...], Field(max_length=MOST)]
    thumbnails: Annotated[tuple[Thumbnails, ...], Field(max_length=MOST)]

    def to_json(self) -> str:
        """The table as `parse_identity` takes it."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def plates_sentence(frame: Frame, reading: Reading) -> str:
    """How many plates could be read, in a sentence."""
    chance = round(frame.chance_of_plate * reading.plates.of)
    return (
        f"Of {reading.plates.of} plates, {reading.plates.right} could be read "
        f"(plain: {frame.plain.plates.right}, chance: {chance})."
    )


def faces_sentence(frame: Frame, reading: Reading) -> str:
    """How many faces could be named, in a sentence."""
    chance = round(frame.chance_of_face * reading.faces.of)
    return (
        f"Of {reading.faces.of} faces, {reading.faces.right} could be named "
        f"(plain: {frame.plain.faces.right}, chance: {chance})."
    )


def parse_identity(content: str | bytes, source: str) -> IdentityTable:
    """The table that `IdentityTable.to_json` wrote.

    Args:
        content: The JSON.
        source: What an error names.

    Raises:
        InputError: It is of another form or schema, or out of bounds.
    """
    return parse_model(IdentityTable, content, source)


def read_identity(path: Path) -> IdentityTable:
    """The table in a file.

    Raises:
        InputError: As `parse_identity`, or it is not a file, or too large, or cannot be read.
    """
    return parse_identity(read_bytes(path, MAX_BYTES, follow_link=False), str(path))
