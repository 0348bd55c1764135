"""The comparison of all arms as a table for the terminal and as plain text for logs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from fl_ppseg.report.rows import ArmRow, amount, arm_rows, fixed


@dataclass(frozen=True)
class Column:
    """A heading and the sentence that explains it, unit included."""

    heading: str
    meaning: str


COLUMNS = (
    Column("arm", "One setting that was trained; all arms see the same scenes, model and rounds."),
    Column("aAcc", "Share of all labelled pixels that are right, in percent."),
    Column("mIoU", "Mean intersection over union on val cities that no client holds, in percent."),
    Column("mAcc", "Mean recall over the classes on those val cities, in percent."),
    Column("own mIoU", "mIoU on held-out images of the training cities, in percent."),
    Column("of plain", "mIoU divided by the mIoU of the arm `plain` in this run (1 = no loss)."),
    Column("time, s", "Wall time of the arm, evaluation included."),
    Column("MB up", "Megabytes (10⁶ bytes) that all clients sent to the coordinator."),
    Column("MB down", "Megabytes that the coordinator sent to all clients."),
)


def cells(row: ArmRow) -> tuple[str, ...]:
    """The row as texts, one for each of `COLUMNS`."""
    return (
        row.arm,
        row.aAcc.text(),
        row.mIoU.text(),
        row.mAcc.text(),
        row.own_mIoU.text(),
        fixed(row.ratio, 3),
        amount(row.seconds),
        amount(row.megabytes_up),
        amount(row.megabytes_down),
    )


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """The table that ends a run; scores of several seeds read `mean±deviation`."""
    rows = arm_rows(summary)
    texts = [[text.replace(" ± ", "±") for text in cells(row)] for row in rows]
    roomy = all(row.num_seeds == 1 for row in rows)
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1 if roomy else 0, 0, 0),
        caption=caption(rows),
        caption_style="dim",
    )
    for column, *values in zip(COLUMNS, *texts, strict=True):
        is_arm = column.heading == "arm"
        table.add_column(
            column.heading.replace(" ", "\n"),
            justify="left" if is_arm else "right",
            style="bold" if column.heading == "mIoU" else "",
            no_wrap=True,
            min_width=None if is_arm else max(map(len, values), default=0),
        )
    for row, line in zip(rows, texts, strict=True):
        table.add_row(*map(escape, line), style="red" if row.failed else "")
    return table


def comparison_text(summary: Mapping[str, Any]) -> str:
    """The same table as aligned plain text, for logs and files."""
    rows = arm_rows(summary)
    lines = [tuple(column.heading for column in COLUMNS), *(cells(row) for row in rows)]
    widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
    return "\n".join([*(_aligned(line, widths) for line in lines), caption(rows)])


def caption(rows: Sequence[ArmRow]) -> str:
    """What the numbers are means of, and which arms did not end."""
    seeds = sorted({row.num_seeds for row in rows if not row.failed})
    num = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "no"
    spread = "; mean ± sample standard deviation" if seeds and seeds[-1] > 1 else ""
    text = f"scores in percent on unseen val cities, {num} seed{'' if num == '1' else 's'}{spread}"
    failed = ", ".join(row.arm for row in rows if row.failed)
    return f"{text}; no result: {failed}" if failed else text


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first = line[0].ljust(widths[0])
    return "  ".join([first, *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))])
