"""index.html: the table over all cells, and links to the reports of their runs."""

from urllib.parse import quote

from fl_ppseg.experiment.cells.table import CAPTION, CellRow
from fl_ppseg.report.markup import items, meanings, page, section, table, text
from fl_ppseg.report.sheets import Sheet
from fl_ppseg.system.wording import counted


def index_page(name: str, sheet: Sheet[CellRow]) -> str:
    """The page of a comparison.

    Args:
        name: Of the comparison.
        sheet: A row for each arm of each cell.
    """
    cells = {row.cell.name: row.cell for row in sheet.rows}
    sources = {row.published.source for row in sheet.rows if row.published is not None}
    links = "".join(
        f'<li><a href="{quote(cell)}/report.html">{text(cell)}</a></li>' for cell in cells
    )
    notes = f'<p class="note">{text(CAPTION)}.</p><ul>' + items(
        f"Published: {s.name} ({s.where}), {s.data}; {s.setting}."
        for s in sorted(sources, key=lambda source: source.where)
    )
    return page(
        f"{name}: {counted(len(cells), 'cell')}",
        "",
        section("Comparison", f"{table(sheet, {})}{notes}</ul>{meanings(sheet)}"),
        section("Reports", f"<ul>{links}</ul>"),
    )
