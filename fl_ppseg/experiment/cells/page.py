"""index.html: the table over all cells, and links to the reports of their runs."""

from urllib.parse import quote

from fl_ppseg.experiment.cells.table import CAPTION, CellRow
from fl_ppseg.pages.rendering import render
from fl_ppseg.report.sheets import Sheet
from fl_ppseg.system.wording import counted


def index_page(name: str, sheet: Sheet[CellRow]) -> str:
    """The page of a comparison.

    Args:
        name: Of the comparison.
        sheet: A row for each arm of each cell.
    """
    cells = {row.cell.name: f"./{quote(row.cell.name)}/report.html" for row in sheet.rows}
    sources = {row.published.source for row in sheet.rows if row.published is not None}
    return render(
        "experiment/cells/index.html",
        headline=f"{name}: {counted(len(cells), 'cell')}",
        sheet=sheet,
        caption=CAPTION,
        sources=sorted(sources, key=lambda source: source.where),
        cells=cells,
    )
