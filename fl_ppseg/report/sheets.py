"""What the tables of a run hold: columns and rows, once for the terminal, the log and the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.learning.intervals import covers
from fl_ppseg.report.published import (
    Published,
    published_elsewhere,
    published_for,
    published_table,
    reference_model,
)
from fl_ppseg.report.rows import (
    NO_IMAGE,
    ArmRow,
    IntervalRow,
    KeyRow,
    amount,
    arm_rows,
    ends,
    fixed,
    interval_rows,
    key_rows,
    no_image_row,
)
from fl_ppseg.system.wording import counted

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Column(Generic[RowT]):
    """A heading, the sentence that explains it (unit included), and the text of a row.

    `published` marks figures of others, which never stand in a column of ours; `bar` gives the
    percentage that a page draws under the text; `is_text` marks sentences, which a page folds.
    """

    heading: str
    meaning: str
    text: Callable[[RowT], str]
    published: bool = False
    bar: Callable[[RowT], float | None] | None = None
    is_text: bool = False


@dataclass(frozen=True)
class Sheet(Generic[RowT]):
    """A table: its columns, the first of them the rows' names, and its rows.

    `source` says whose the published columns are; empty without them.
    """

    columns: tuple[Column[RowT], ...]
    rows: tuple[RowT, ...]
    source: str = ""

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Texts, a tuple a row."""
        return tuple(tuple(column.text(row) for column in self.columns) for row in self.rows)

    @property
    def lines(self) -> tuple[tuple[RowT, tuple[str, ...]], ...]:
        """Each row with its texts."""
        return tuple(zip(self.rows, self.cells, strict=True))

    @property
    def published_span(self) -> tuple[int, int, int]:
        """How many columns stand before the published ones, how many are, and stand behind."""
        marks = [column.published for column in self.columns]
        before, num_published = marks.index(True), sum(marks)
        return before, num_published, len(marks) - before - num_published


ARM = Column[ArmRow](
    "arm",
    "One setting that was trained; all arms see the same scenes and rounds. An invariant embedding "
    "has starting weights of its own; the others start from those for plain images. `no image` is "
    "the answer of who sees none: of each pixel the commonest class of the training label maps.",
    lambda row: row.arm,
)
CLIMB: tuple[Column[ArmRow], ...] = (
    Column(
        "start",
        "mIoU on those val clients of the weights that training starts from, under the arm's own "
        "protection, in percent; the mean over seeds.",
        lambda row: fixed(row.start, 1),
    ),
    Column(
        "gain",
        "What training added: mIoU less `start`, in points, seed by seed.",
        lambda row: row.gain.signed(),
    ),
)
OF_PLAIN = Column[ArmRow](
    "of plain",
    "mIoU divided by the mIoU of the arm `plain` in this run (1 = no loss); with several seeds the "
    "mean of the ratios taken seed by seed.",
    lambda row: fixed(row.ratio, 3),
)
ABOVE = Column[ArmRow](
    "of plain above no image",
    "(mIoU of the arm - mIoU of no image) / (mIoU of `plain` - mIoU of no image), seed by seed as "
    "`of plain`: what the arm keeps of what `plain` sees in images. Nothing where `plain` is not "
    "above no image in every seed.",
    lambda row: fixed(row.above, 3),
)
SCORES: tuple[Column[ArmRow], ...] = (
    Column(
        "aAcc", "Share of all labelled pixels that are right, percent.", lambda row: row.aAcc.text()
    ),
    Column(
        "mIoU",
        "Mean intersection over union on val clients, which never train, in percent.",
        lambda row: row.mIoU.text(),
        bar=lambda row: row.mIoU.mean,
    ),
    Column(
        "mAcc",
        "Mean recall over the classes on those val clients, in percent.",
        lambda row: row.mAcc.text(),
    ),
    Column(
        "own mIoU",
        "mIoU on held-out images of the training clients, in percent.",
        lambda row: row.own_mIoU.text(),
    ),
)
INTERVALS: tuple[Column[IntervalRow], ...] = (
    Column("arm", "As above.", lambda row: row.arm),
    Column(
        "95\u00a0% over",
        f"What the intervals cover. Seeds: {covers('seeds')}, not other images or starting "
        f"weights; Student's. Val images: {covers('images')}. Val places: {covers('places')}. "
        "Images and places: bootstrap, the same draws for all arms; of the newest weights, where "
        "scores are means over the last rounds; they say nothing of other seeds.",
        lambda row: _over(row.kind),
    ),
    Column("mIoU", "Of mIoU, in percent.", lambda row: ends(row.miou, ".1f")),
    Column("gain", "Of `gain`, in points.", lambda row: ends(row.gain, "+.1f")),
    Column("of plain", "Of `of plain`.", lambda row: ends(row.ratio)),
    Column(
        "of plain above no image",
        "Of `of plain above no image`. Nothing where plain may not be above no image at all.",
        lambda row: ends(row.above),
    ),
)
COSTS: tuple[Column[ArmRow], ...] = (
    Column(
        "time, s",
        "Wall time of the arm, with evaluation, all seeds.",
        lambda row: amount(row.seconds),
    ),
    Column(
        "MB up",
        "Megabytes (10⁶ bytes) that all clients sent to the coordinator, all seeds.",
        lambda row: amount(row.megabytes_up),
    ),
    Column(
        "MB down",
        "Megabytes that the coordinator sent to all clients, all seeds.",
        lambda row: amount(row.megabytes_down),
    ),
)
KEYS: tuple[Column[KeyRow], ...] = (
    Column("arm", "An arm whose clients share one key.", lambda row: row.arm),
    Column("mIoU right key", "Query under the shared key.", lambda row: fixed(row.right_miou, 1)),
    Column("mIoU wrong key", "Query under another key.", lambda row: fixed(row.wrong_miou, 1)),
    Column("mIoU no key", "Query not encrypted.", lambda row: fixed(row.no_key_miou, 1)),
    Column("aAcc right key", "Query under the shared key.", lambda row: fixed(row.right_aacc, 1)),
    Column("aAcc wrong key", "Query under another key.", lambda row: fixed(row.wrong_aacc, 1)),
    Column("aAcc no key", "Query not encrypted.", lambda row: fixed(row.no_key_aacc, 1)),
)
ELSEWHERE: tuple[Column[Published], ...] = (
    Column("model", "Backbone and decoder.", lambda row: row.model),
    Column("method", "In the source's words.", lambda row: row.method),
    Column("aAcc", "In percent.", lambda row: fixed(row.aAcc, 2)),
    Column("mIoU", "In percent.", lambda row: fixed(row.mIoU, 2)),
    Column("mAcc", "In percent.", lambda row: fixed(row.mAcc, 2)),
    Column("of baseline", "mIoU over the source's baseline.", lambda row: fixed(row.ratio, 3)),
    Column("source", "Who published it.", lambda row: row.source.name),
)


def comparison_sheet(summary: RunSummary, config: Config) -> Sheet[ArmRow]:
    """All arms of a run, with published figures in columns of their own where there are any."""
    rows, prior = arm_rows(summary), no_image_row(summary)
    above = () if prior is None else (ABOVE,)
    columns, source = _published_columns(rows, config)
    ratios = (OF_PLAIN, *above)
    whole = rows if prior is None else (prior, *rows)
    return Sheet((ARM, *SCORES, *CLIMB, *ratios, *columns, *COSTS), whole, source)


def against_plain(sheet: Sheet[ArmRow]) -> Sheet[ArmRow] | None:
    """Published figures, for which a narrow table has no room; None without them."""
    if not any(column.published for column in sheet.columns):
        return None
    shown = tuple(column for column in sheet.columns if column == OF_PLAIN or column.published)
    rows = tuple(row for row in sheet.rows if row.arm != NO_IMAGE)
    return Sheet((ARM, *shown), rows, sheet.source)


def costs(sheet: Sheet[ArmRow]) -> Sheet[ArmRow] | None:
    """The costs of each arm, where a narrow table of several seeds has no room for them."""
    if not any(row.num_seeds > 1 for row in sheet.rows):
        return None
    return Sheet((ARM, *COSTS), tuple(row for row in sheet.rows if row.arm != NO_IMAGE))


def interval_sheet(summary: RunSummary) -> Sheet[IntervalRow] | None:
    """How sure the scores are, a row for each kind of interval of an arm; None where there is none.

    One seed has none over seeds; a run on separate machines none over images, which nobody has.
    """
    rows = interval_rows(summary)
    return Sheet(INTERVALS, rows) if rows else None


def drawn(summary: RunSummary) -> str:
    """What the intervals of a summary cover, in words."""
    about = summary.val_images
    kinds = dict.fromkeys(row.kind for row in interval_rows(summary))
    places = None if about is None else about.num_places
    told = "; ".join(f"{_over(kind)}: {covers(kind, places)}" for kind in kinds)
    drawn_anew = [_over(kind) for kind in kinds if kind != "seeds"]
    if about is None or places is None or not drawn_anew:
        return told
    return (
        f"{told}; {' and '.join(drawn_anew)}: of the newest weights, {about.resamples:,} draws "
        f"of {counted(about.num_images, 'val image')} of {counted(places, 'place')}"
    )


def key_sheet(summary: RunSummary) -> Sheet[KeyRow] | None:
    """Right, wrong and no key for the arms with a shared key; None if there are none."""
    rows = key_rows(summary)
    return Sheet(KEYS, rows) if rows else None


def elsewhere_sheet(config: Config) -> Sheet[Published]:
    """Published figures that cannot be compared with this run.

    Those of the reference model are among them if nobody published this run's model.
    """
    beside = () if _is_published(config) else published_table(*reference_model())
    return Sheet(ELSEWHERE, (*beside, *published_elsewhere()))


def _over(kind: str) -> str:
    return kind if kind == "seeds" else f"val {kind}"


def _published_columns(
    rows: tuple[ArmRow, ...], config: Config
) -> tuple[tuple[Column[ArmRow], ...], str]:
    """Published columns and their source; none if no encrypted arm of the run was published."""
    comparable = _is_published(config)
    model = _model(config) if comparable else reference_model()
    found = {row.arm: entry for row in rows if (entry := published_for(*model, row.arm))}
    shown = next((entry for entry in found.values() if entry.ratio is not None), None)
    if shown is None:
        return (), ""
    names = (*(("aAcc", "mIoU", "mAcc") if comparable else ()), "ratio")
    source = f"{shown.source.name}, {shown.model}, {shown.source.data}"
    return tuple(_published_column(name, source, found) for name in names), source


def _published_column(name: str, source: str, found: Mapping[str, Published]) -> Column[ArmRow]:
    decimals = 3 if name == "ratio" else 2

    def text(row: ArmRow) -> str:
        return fixed(getattr(found.get(row.arm), name, None), decimals)

    if name == "ratio":
        meaning = f"mIoU over the baseline of {source}; published, not of this run."
        return Column("published of baseline", meaning, text, published=True)
    meaning = f"{name} in percent of {source}; published, not of this run."
    return Column(f"published {name}", meaning, text, published=True)


def _is_published(config: Config) -> bool:
    """Whether somebody published this run's model on as many classes of other images."""
    is_theirs = config.data.root is not None and config.data.classes == "cityscapes"
    return is_theirs and bool(published_table(*_model(config)))


def _model(config: Config) -> tuple[str, str]:
    return config.model.backbone, config.model.decoder
