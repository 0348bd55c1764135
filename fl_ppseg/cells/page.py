"""index.html: the table over all cells, and links to the reports of their runs."""

from importlib import resources
from string import Template
from urllib.parse import quote

from fl_ppseg.cells.table import CAPTION, CellRow
from fl_ppseg.report.markup import items, meanings, section, table, text
from fl_ppseg.report.sheets import Sheet


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
    body = section("Comparison", f"{table(sheet, {})}{notes}</ul>{meanings(sheet)}")
    return _page(f"{name}: {len(cells)} cells", body + section("Reports", f"<ul>{links}</ul>"))


def _page(title: str, body: str) -> str:
    package = resources.files("fl_ppseg.report")
    template = Template((package / "page.html").read_text(encoding="utf-8"))
    style = (package / "style.css").read_text(encoding="utf-8")
    return template.substitute(
        title=text(title), headline=text(title), subtitle="", style=style, body=body
    )
