"""The table of a report's first screen: what each arm reaches beside what it protects."""

from typing import NamedTuple

from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.report.arms import arm_texts
from fl_ppseg.report.audited import Audited
from fl_ppseg.report.findings import protection, sure
from fl_ppseg.report.rows import MISSING, ArmRow, arm_rows, ends, fixed
from fl_ppseg.report.sheets import Column, Sheet
from fl_ppseg.system.wording import sentence

OVER = {"seeds": "seeds", "images": "val images"}
OWNERS = "val images, of the owner's answer"


class Glance(NamedTuple):
    """An arm: its scores, and what it protects in a sentence."""

    row: ArmRow
    protection: str
    by_owner: bool = False
    """Whether intervals over val images are of the owner's answer, and scores of the nodes'."""

    @property
    def failed(self) -> bool:
        """Whether it ended without a score."""
        return self.row.failed


COLUMNS: tuple[Column[Glance], ...] = (
    Column("arm", "One setting that was trained.", lambda each: each.row.arm),
    Column(
        "mIoU",
        "On val clients, which never train, in percent.",
        lambda each: each.row.mIoU.text(),
        bar=lambda each: each.row.mIoU.mean,
    ),
    Column("of plain", "mIoU over that of `plain`.", lambda each: fixed(each.row.ratio, 3)),
    Column("95\u00a0% interval", "Of `of plain`.", lambda each: _interval(each)),
    Column(
        "above no image",
        "What it has above no image, over what `plain` has above it.",
        lambda each: fixed(each.row.above, 3),
    ),
    Column(
        "what it protects",
        "What its settings leave, and what attacks got.",
        lambda each: each.protection,
        is_text=True,
    ),
)


def glance_sheet(summary: RunSummary, config: Config, audited: Audited | None) -> Sheet[Glance]:
    """A row for each arm of a run."""
    texts = arm_texts(list(summary.arms), config)
    owners = {name for name, arm in arms_of(config).items() if arm.labels == "encrypted"}
    rows = (
        Glance(row, sentence(protection(row.arm, texts[row.arm], audited)), row.arm in owners)
        for row in arm_rows(summary)
    )
    return Sheet(COLUMNS, tuple(rows))


def _interval(each: Glance) -> str:
    known = sure(each.row, "ratio").items()
    over = OVER | {"images": OWNERS} if each.by_owner else OVER
    return "; ".join(f"{ends(pair)} ({over[kind]})" for kind, pair in known) or MISSING
