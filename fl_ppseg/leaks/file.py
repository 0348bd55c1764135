"""leaks.json as it is read again: by a run's report, which a page of somebody else's run may reach.

Whatever it says is bounded before it is used: size, depth, number and length of texts, ranges of
numbers. Nothing in it is a path, and no text of it is markup; who shows it escapes it.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fl_ppseg.config.documents import read_bytes
from fl_ppseg.config.loading import parse_model
from fl_ppseg.leaks.scores import BEST_PSNR, Scores
from fl_ppseg.leaks.table import (
    SCHEMA,
    Adversary,
    ArmLeaks,
    Budget,
    DirectSegmentation,
    Finding,
    LabelFinding,
    LeakTable,
    Maps,
)

MAX_BYTES: Final = 16 * 2**20
"""A table of a hundred arms is a twentieth of this."""
MOST: Final = 1000
"""Arms of a table, findings of an arm."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[str, Field(max_length=4000)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Side = Annotated[int, Field(ge=1, le=2**16)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Scores(_Entry):
    ssim: Annotated[float, Field(ge=-1, le=1)]
    psnr: Annotated[float, Field(ge=0, le=BEST_PSNR)]
    correlation: Annotated[float, Field(ge=-1, le=1)]
    miou: Annotated[float, Field(ge=0, le=100)] | None

    def made(self) -> Scores:
        return Scores(self.ssim, self.psnr, self.correlation, self.miou)


class _Finding(_Entry):
    attack: Name
    adversary: Adversary
    scores: _Scores | None
    note: Words
    seconds: Seconds
    budget: Words
    excess: Annotated[float, Field(ge=-2, le=2)] | None
    key_recovered: Share | None

    @model_validator(mode="after")
    def _excess_is_of_scores(self) -> "_Finding":
        if (self.scores is None) != (self.excess is None):
            raise ValueError("excess without scores, or scores without excess")
        return self

    def made(self) -> Finding:
        scores = None if self.scores is None else self.scores.made()
        return Finding(**(self.model_dump() | {"scores": scores}))


class _Label(_Entry):
    attack: Name
    maps: Maps
    adversary: Adversary
    model: Words
    right: Share | None
    certain: Share
    without: Share
    num_images: Count
    num_requests: Count
    note: Words
    seconds: Seconds


class _Direct(_Entry):
    miou: Annotated[float, Field(ge=0, le=100)] | None
    start: Annotated[float, Field(ge=0, le=100)] | None
    note: Words

    def made(self) -> DirectSegmentation:
        return DirectSegmentation(self.miou, self.start, self.note)


class _Arm(_Entry):
    arm: Name
    note: Words
    protection: Words
    ciphertext: _Scores
    survivors: _Scores | None
    findings: Annotated[tuple[_Finding, ...], Field(max_length=MOST)]
    ratio_to_plain: Annotated[float, Field(ge=0, le=1e6)] | None
    labels: Annotated[tuple[_Label, ...], Field(max_length=MOST)]
    direct: _Direct

    def made(self) -> ArmLeaks:
        return ArmLeaks(
            arm=self.arm,
            note=self.note,
            protection=self.protection,
            ciphertext=self.ciphertext.made(),
            survivors=None if self.survivors is None else self.survivors.made(),
            findings=tuple(found.made() for found in self.findings),
            ratio_to_plain=self.ratio_to_plain,
            labels=tuple(LabelFinding(**found.model_dump()) for found in self.labels),
            direct=self.direct.made(),
        )


class _Table(_Entry):
    schema_: Annotated[Literal[3], Field(alias="schema")]
    source: Words
    num_targets: Count
    image_size: tuple[Side, Side]
    block_size: Side
    nothing: _Scores
    answer: _Scores
    plain_miou: Annotated[float, Field(ge=0, le=100)] | None
    seconds: Seconds
    arms: Annotated[tuple[_Arm, ...], Field(max_length=MOST)]
    budget: Budget
    effort: Annotated[dict[Name, Count], Field(max_length=100)]
    made: Annotated[dict[Name, Words], Field(max_length=100)]
    summed: Annotated[int, Field(ge=1, le=2**31)] = 1
    """1 in audits made before sums were attacked."""
    key_search: Words | None

    @model_validator(mode="after")
    def _arms_differ(self) -> "_Table":
        if len({arm.arm for arm in self.arms}) != len(self.arms):
            raise ValueError("an arm is named twice")
        return self


assert get_args(_Table.model_fields["schema_"].annotation) == (SCHEMA,)


def parse_leaks(content: str | bytes, source: str) -> LeakTable:
    """The table that `LeakTable.to_json` wrote, without its pictures.

    Args:
        content: The JSON.
        source: What an error names.

    Raises:
        InputError: It is of another form or schema, or out of bounds.
    """
    table = parse_model(_Table, content, source)
    plain = ("source", "num_targets", "image_size", "block_size", "plain_miou", "seconds")
    fields = {name: getattr(table, name) for name in (*plain, "budget", "effort", "made", "summed")}
    return LeakTable(
        **fields,
        nothing=table.nothing.made(),
        answer=table.answer.made(),
        arms=tuple(arm.made() for arm in table.arms),
        key_search=table.key_search,
    )


def read_leaks(path: Path) -> LeakTable:
    """The table in a file.

    Raises:
        InputError: As `parse_leaks`, or it is not a file, or too large, or cannot be read.
    """
    return parse_leaks(read_bytes(path, MAX_BYTES, follow_link=False), str(path))
