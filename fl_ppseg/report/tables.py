"""The tables of a run for the terminal and as plain text for logs."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.report.arms import ArmText, arm_texts
from fl_ppseg.report.findings import owners_answers
from fl_ppseg.report.rows import ArmRow, arm_rows
from fl_ppseg.report.sheets import (
    COSTS,
    RowT,
    Sheet,
    against_plain,
    comparison_sheet,
    costs,
    drawn,
    interval_sheet,
    key_sheet,
)

MIN_NAME = 12
"""Characters of an arm's name that fit however narrow the terminal is."""
COMMON_SHORT = "one permutation for all blocks"
NO_ATTACK = "a score says nothing of protection: python -m fl_ppseg.audit RUN attacks the arms"
NO_IMAGE_SHORT = "no image: of each pixel the commonest class of the training label maps"
COSTS_CAPTION = "wall time and traffic of all clients, all seeds"
KEYS_CAPTION = (
    "shared-key arms, newest weights: queries under the right key, a wrong one, none; percent"
)


@dataclass(frozen=True)
class RunTables:
    """The tables that end a run; scores of several seeds read `mean±deviation`.

    Attributes:
        summary: Of the run.
        config: The run's config, which says what published figures may stand beside it.
    """

    summary: RunSummary
    config: Config

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Names of arms fold where the console is narrow, numbers never."""
        failed = {row.arm for row in arm_rows(self.summary) if row.failed}
        for sheet, note in _sheets(self.summary, self.config):
            yield _table(sheet, note, failed, options.max_width)


def comparison_table(summary: RunSummary, config: Config) -> RunTables:
    """What a console prints at the end of a run."""
    return RunTables(summary, config)


def comparison_text(summary: RunSummary, config: Config) -> str:
    """The tables that end a run as aligned plain text, for logs and files."""
    return "\n\n".join(sheet_text(*entry) for entry in _sheets(summary, config))


def caption(rows: Sequence[ArmRow], texts: Mapping[str, ArmText]) -> str:
    """What the numbers are means of, which arms did not end, and what the scores do not say."""
    told = _caption(rows)
    encrypted = [row.arm for row in rows if texts[row.arm].encrypted]
    if not encrypted:
        return told
    broken = [arm for arm in encrypted if texts[arm].common]
    named = f"; broken, whatever its score ({COMMON_SHORT}): {', '.join(broken)}" if broken else ""
    return f"{told}{named}; {NO_ATTACK}"


def _caption(rows: Sequence[ArmRow]) -> str:
    seeds = sorted({row.num_seeds for row in rows if not row.failed})
    num = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "no"
    spread = "; mean ± sample standard deviation" if seeds and seeds[-1] > 1 else ""
    text = f"scores in percent on unseen val clients, {num} seed{'' if num == '1' else 's'}{spread}"
    failed = ", ".join(row.arm for row in rows if row.failed)
    return f"{text}; no result: {failed}" if failed else text


def _sheets(summary: RunSummary, config: Config) -> list[tuple[Sheet[Any], str]]:
    """The sheets to show, each with its caption."""
    whole = comparison_sheet(summary, config)
    extra, spent = against_plain(whole), costs(whole)
    wide = COSTS if spent else ()
    narrow = tuple(c for c in whole.columns if c not in wide and not c.published)
    rows = arm_rows(summary)
    told = caption(rows, _texts(rows, config))
    prior = "" if summary.no_image is None else f"; {NO_IMAGE_SHORT}"
    shown: list[tuple[Sheet[Any], str]] = [(Sheet(narrow, whole.rows), f"{told}{prior}")]
    if extra is not None:
        published = f"; published: {extra.source}" if extra.source else ""
        shown.append((extra, f"mIoU against plain, paired by seed{published}"))
    if (sure := interval_sheet(summary)) is not None:
        over = [f"95 % intervals over {drawn(summary)}", *owners_answers(summary, config)]
        shown.append((sure, ". ".join(over).removesuffix(".")))
    if spent is not None:
        shown.append((spent, COSTS_CAPTION))
    if (keys := key_sheet(summary)) is not None:
        shown.append((keys, KEYS_CAPTION))
    return shown


def _texts(rows: Sequence[ArmRow], config: Config) -> Mapping[str, ArmText]:
    return arm_texts([row.arm for row in rows], config)


def bare_table(note: str, padding: int = 1) -> Table:
    """An empty table in the looks that all have.

    Args:
        note: What stands under it.
        padding: Spaces between two columns.
    """
    return Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, padding, 0, 0),
        caption=Text(note),
        caption_style="dim",
    )


def sheet_text(sheet: Sheet[RowT], note: str) -> str:
    """A sheet as aligned plain text, the note under it."""
    lines = [tuple(column.heading for column in sheet.columns), *sheet.cells]
    widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
    return "\n".join([*(_aligned(line, widths) for line in lines), note])


def _table(sheet: Sheet[RowT], note: str, failed: set[str], line: int) -> Table:
    texts = [[text.replace(" ± ", "±") for text in cells] for cells in sheet.cells]
    headings = [column.heading.replace(" ", "\n") for column in sheet.columns]
    widths = [
        max(map(len, [*heading.split("\n"), *values]))
        for heading, *values in zip(headings, *texts, strict=True)
    ]
    roomy = int(sum(widths) + 2 * len(widths) < line)
    room = line - sum(widths[1:]) - (1 + roomy) * len(widths) - 1
    widths[0] = max(MIN_NAME, min(widths[0], room))
    table = bare_table(note, roomy)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(
            heading,
            justify="left" if heading == "arm" else "right",
            style="bold" if heading == "mIoU" else "",
            no_wrap=True,
            min_width=width,
        )
    for name, *values in texts:
        folded = textwrap.fill(name, widths[0])
        table.add_row(*map(escape, (folded, *values)), style="red" if name in failed else "")
    return table


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first = line[0].ljust(widths[0])
    return "  ".join([first, *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))])
