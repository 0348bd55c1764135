"""The counts of an audit of identity in the terminal and as a page, identity.html."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from fl_ppseg.config.run_layout import IDENTITY, IDENTITY_PAGE
from fl_ppseg.leaks.identity import (
    MEANS,
    PLAIN,
    Count,
    Frame,
    IdentityTable,
    Reading,
    Thumbnails,
    faces_sentence,
    plates_sentence,
)
from fl_ppseg.leaks.words import SPENT, WEAKER
from fl_ppseg.pages.rendering import render
from fl_ppseg.progress.state import duration
from fl_ppseg.report.rows import fixed
from fl_ppseg.report.sheets import Column, Sheet
from fl_ppseg.report.tables import bare_table
from fl_ppseg.system.files import write_atomically

LIMITS: Final = (
    "Every count is what these readers got with this budget: others may read more.",
    "The attacker knows which blocks a plate or a face lies in, and the design of plates. It was "
    "given one picture of each; several pictures of one car or person tell more.",
    "Faces are drawn, of sixteen traits. Real faces differ in more ways, and in smaller ones.",
    "Plates are drawn in five fonts, turned by up to 2 degrees, without dirt, blur or glare.",
)


class _Row(NamedTuple):
    frame: Frame
    reading: Reading


def _shown(count: Count) -> str:
    """The count and its interval.

    >>> _shown(Count(right=5, of=10))
    '5 of 10 (24 to 76 %)'
    """
    low, high = count.interval
    return f"{count.right} of {count.of} ({100 * low:.0f} to {100 * high:.0f} %)"


def _size(row: _Row | Thumbnails) -> str:
    height, width = (row.frame if isinstance(row, _Row) else row).image_size
    return f"{height}x{width}"


COLUMNS: Final[tuple[Column[_Row], ...]] = (
    Column("image", "Size of a frame, pixels.", _size),
    Column("block", "Side of a block, pixels.", lambda row: str(row.frame.block_size)),
    Column("letter", "Height, pixels.", lambda row: fixed(row.frame.letter_height, 1)),
    Column("seen", "As it is, as means, or restored from a form.", lambda row: row.reading.seen),
    Column("SSIM", "Of plates as seen.", lambda row: fixed(row.reading.plate_ssim, 2)),
    Column("characters", "Read right.", lambda row: _shown(row.reading.characters)),
    Column("plates", "Every character right.", lambda row: _shown(row.reading.plates)),
    Column("faces", "Named right.", lambda row: _shown(row.reading.faces)),
)
THUMBNAILS: Final[tuple[Column[Thumbnails], ...]] = (
    Column("image", "Size of a frame, pixels.", _size),
    Column("block", "Side of a block, pixels.", lambda row: str(row.block_size)),
    Column("means", "A picture of this size.", lambda row: _means(row)),
    Column("SSIM", "Of these means with the scene.", lambda row: fixed(row.ssim, 3)),
)


def print_identity(console: Console, table: IdentityTable) -> None:
    """Print both tables, a sentence a reading, and whether the audit was quick."""
    for sheet in (Sheet(COLUMNS, _rows(table)), Sheet(THUMBNAILS, table.thumbnails)):
        console.print(_text(sheet, SPENT[table.budget]))
    for line in sentences(table):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def sentences(table: IdentityTable) -> tuple[str, ...]:
    """What a reader is told, first of all whether the attacks were weaker than they can be."""
    return (*filter(None, (WEAKER[table.budget],)), *_sentences(table))


def write_identity(out: Path, table: IdentityTable) -> Path:
    """Write identity.json, then identity.html; returns the page's path."""
    write_atomically(out / IDENTITY, table.to_json())
    page = render(
        "audit/identity/identity.html",
        headline="Who can be read from what survives a cipher",
        subtitle=["Audit of identity", SPENT[table.budget], f"took {duration(table.seconds)}"],
        sentences=sentences(table),
        readings=Sheet(COLUMNS, _rows(table)),
        thumbnails=Sheet(THUMBNAILS, table.thumbnails),
        limits=LIMITS,
        made=[
            ("budget", SPENT[table.budget]),
            *((name.replace("_", " "), f"{value:g}") for name, value in table.effort.items()),
            *table.made.items(),
        ],
    )
    write_atomically(out / IDENTITY_PAGE, page)
    return out / IDENTITY_PAGE


def _rows(table: IdentityTable) -> tuple[_Row, ...]:
    return tuple(_Row(frame, each) for frame in table.frames for each in frame.readings)


def _sentences(table: IdentityTable) -> Iterator[str]:
    for frame in table.frames:
        height, width = frame.image_size
        where = f"{height}x{width}, blocks of {frame.block_size}"
        for reading in frame.readings:
            if reading.seen != PLAIN:
                how = reading.seen if reading.seen == MEANS else f"restored from {reading.seen}"
                told = f"{plates_sentence(frame, reading)} {faces_sentence(frame, reading)}"
                yield f"{where}, {how}: {told}"


def _means(row: Thumbnails) -> str:
    height, width = (side // row.block_size for side in row.image_size)
    return f"{height}x{width}"


def _text(sheet: Sheet[_Row] | Sheet[Thumbnails], note: str) -> Table:
    shown = bare_table(note)
    for column in sheet.columns:
        shown.add_column(column.heading)
    for cells in sheet.cells:
        shown.add_row(*cells)
    return shown
