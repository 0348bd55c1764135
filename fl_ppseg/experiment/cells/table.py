"""One table over all cells: scores of each arm of each cell, and published figures."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final, NamedTuple

from rich.markup import escape
from rich.table import Table

from fl_ppseg.experiment.cells.grid import Cell
from fl_ppseg.federation.run_summary import RunSummary, TwoScores
from fl_ppseg.report.published import Published, published_for
from fl_ppseg.report.rows import ArmRow, arm_rows, fixed
from fl_ppseg.report.sheets import Column, Sheet
from fl_ppseg.report.tables import bare_table

SCHEMA: Final = 2
SCORES: Final = ("aAcc", "mIoU", "mAcc")
CAPTION: Final = "scores in percent on unseen val clients; of plain: mIoU over that of `plain`"
MIN_NAME: Final = 16
"""Least width of a name in characters."""


class CellRow(NamedTuple):
    """One arm of one cell."""

    cell: Cell
    measured: ArmRow
    published: Published | None
    no_image: TwoScores | None = None
    """What the cell scores without an image."""


MEASURED: tuple[Column[CellRow], ...] = (
    Column("cell", "One model; a run of its own.", lambda row: row.cell.name),
    Column("arm", "One setting that was trained.", lambda row: row.measured.arm),
    Column("aAcc", "Share of pixels that are right, percent.", lambda r: r.measured.aAcc.text(2)),
    Column("mIoU", "Mean intersection over union, percent.", lambda r: r.measured.mIoU.text(2)),
    Column("mAcc", "Mean recall over the classes, percent.", lambda r: r.measured.mAcc.text(2)),
    Column("of plain", "mIoU over that of `plain`.", lambda row: fixed(row.measured.ratio, 3)),
)
GAIN = Column[CellRow](
    "gain", "mIoU less that at the start, points.", lambda row: row.measured.gain.signed()
)
ABOVE = Column[CellRow](
    "of plain above no image",
    "The same of what both have above `no image`.",
    lambda row: fixed(row.measured.above, 3),
)
PUBLISHED: tuple[Column[CellRow], ...] = (
    Column("published aAcc", "aAcc of others.", lambda r: _others(r, "aAcc", 2), published=True),
    Column("published mIoU", "mIoU of others.", lambda r: _others(r, "mIoU", 2), published=True),
    Column("published mAcc", "mAcc of others.", lambda r: _others(r, "mAcc", 2), published=True),
    Column(
        "published ratio", "Their mIoU over their baseline's.", lambda r: _others(r, "ratio", 3),
        published=True,
    ),
)  # fmt: skip


def cells_sheet(summaries: Sequence[tuple[Cell, RunSummary]]) -> Sheet[CellRow]:
    """A row for each arm of each cell, with published figures where a cell's model has them.

    Args:
        summaries: Each cell with the summary of its run.
    """
    rows = tuple(
        CellRow(cell, row, _published(cell, row.arm), summary.no_image)
        for cell, summary in summaries
        for row in arm_rows(summary)
    )
    sources = {row.published.source for row in rows if row.published is not None}
    names = sorted(f"{source.name}, {source.data}" for source in sources)
    gain = (GAIN,) if any(row.measured.gain.mean is not None for row in rows) else ()
    above = (ABOVE,) if any(row.measured.above is not None for row in rows) else ()
    columns = (*MEASURED, *gain, *above, *(PUBLISHED if names else ()))
    return Sheet(columns, rows, "; ".join(names))


def cells_json(rows: Sequence[CellRow]) -> dict[str, Any]:
    """Content of cells.json: measured and published figures separately, null where missing."""
    cells: dict[str, Any] = {}
    for row in rows:
        no_image = None if row.no_image is None else row.no_image.model_dump()
        start = {"settings": dict(row.cell.settings), "no_image": no_image, "arms": {}}
        entry = cells.setdefault(row.cell.name, start)
        entry["arms"][row.measured.arm] = _figures(row)
    return {"schema": SCHEMA, "cells": cells}


def cells_table(sheet: Sheet[CellRow]) -> Table:
    """The table that ends a comparison, for the terminal: each cell's name over its arms.

    Names fold if the terminal is narrow, never numbers; with published figures there is not enough
    room for the page's columns of gain and `no image`.
    """
    left_out = (GAIN, ABOVE) if sheet.source else ()
    scores = [column for column in sheet.columns[2:] if column not in left_out]
    caption = f"{CAPTION}; publ.: {sheet.source}" if sheet.source else CAPTION
    table = bare_table(caption)
    table.add_column("cell\n  arm", overflow="fold", min_width=MIN_NAME)
    for column in scores:
        heading = column.heading.replace("published", "publ.").replace(" ", "\n")
        texts = [_narrow(column.text(row)) for row in sheet.rows]
        width = max(len(word) for text in (heading, *texts) for word in text.split("\n"))
        style = "bold" if column.heading == "mIoU" else ""
        table.add_column(heading, justify="right", style=style, min_width=width)
    for cell, rows in groupby(sheet.rows, key=lambda row: row.cell.name):
        table.add_row(escape(cell), style="bold")
        for row in rows:
            texts = [_narrow(column.text(row)) for column in scores]
            table.add_row(f"  {escape(row.measured.arm)}", *texts)
        table.add_section()
    return table


def _narrow(text: str) -> str:
    return text.replace(" ± ", "±")


def _published(cell: Cell, arm: str) -> Published | None:
    """Published figures of an arm of a cell, on photographs with the same classes, if any."""
    model, data = cell.config.model, cell.config.data
    is_theirs = data.root is not None and data.classes == "cityscapes"
    return published_for(model.backbone, model.decoder, arm) if is_theirs else None


def _others(row: CellRow, name: str, decimals: int) -> str:
    return fixed(getattr(row.published, name, None), decimals)


def _figures(row: CellRow) -> dict[str, Any]:
    measured, others = row.measured, row.published
    published = {name: getattr(others, name, None) for name in (*SCORES, "ratio")}
    return {
        **{score: asdict(getattr(measured, score)) for score in SCORES},
        "start_mIoU": measured.start,
        "gain": asdict(measured.gain),
        "ratio_to_plain": measured.ratio,
        "of_plain_above_no_image": measured.above,
        "num_seeds": measured.num_seeds,
        "published": None if others is None else {"source": others.source.where} | published,
    }
