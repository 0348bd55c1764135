"""The page's small parts: escaped text without paths, sections, lists, tables."""

import re
from collections.abc import Iterable
from html import escape
from importlib import resources
from string import Template

from fl_ppseg.report.rows import ArmRow
from fl_ppseg.report.sheets import Column, RowT, Sheet

_PATH = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?|~[/\\][\w./\\-]+")


def without_paths(text: str) -> str:
    """Hides absolute paths, which tell user names and machines.

    >>> without_paths("no file /home/ann/city.png")
    'no file [path]'
    """
    return _PATH.sub("[path]", text)


def text(value: object) -> str:
    """A value as text of a page."""
    return escape(without_paths(str(value)))


def items(values: Iterable[object]) -> str:
    """The entries of a list."""
    return "".join(f"<li>{text(value)}</li>" for value in values)


def definitions(pairs: Iterable[tuple[str, object]]) -> str:
    """The entries of a definition list."""
    return "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs
    )


def page(title: str, subtitle: str, *sections: str) -> str:
    """A whole page, its style included.

    Args:
        title: Its heading, as plain text.
        subtitle: A line under it, as markup.
        sections: Markup of the parts; empty ones are nothing.
    """
    package = resources.files("fl_ppseg.report")
    template = Template((package / "page.html").read_text(encoding="utf-8"))
    style = (package / "style.css").read_text(encoding="utf-8")
    heading = text(title).replace("-", "\u2011")  # no break inside per-client
    return template.substitute(
        title=text(title), headline=heading, subtitle=subtitle, style=style, body="".join(sections)
    )


def section(title: str, content: str, lead: str = "") -> str:
    """A part of the page under a heading; nothing where there is no content."""
    if not content:
        return ""
    lead = f'<p class="lead">{text(lead)}</p>' if lead else ""
    return f"<section><h2>{text(title)}</h2>{lead}{content}</section>"


def table(sheet: Sheet[RowT], swatches: dict[str, str]) -> str:
    """A sheet as an HTML table; published columns are marked and headed by their source.

    Args:
        sheet: Its first column names the rows.
        swatches: Markup before a row's name, by name.
    """
    head = "".join(
        f'<th scope="col"{_class(column)}>{text(_heading(column, sheet))}</th>'
        for column in sheet.columns
    )
    rows = zip(sheet.rows, sheet.cells, strict=True)
    body = "".join(_row(sheet, row, cells, swatches) for row, cells in rows)
    return (
        f'<div class="wide"><table class="arms"><thead>{_sources(sheet)}<tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def meanings(sheet: Sheet[RowT]) -> str:
    """What the columns of a sheet mean, folded away."""
    listed = "".join(
        f"<dt>{text(column.heading)}</dt><dd>{text(column.meaning)}</dd>"
        for column in sheet.columns
    )
    return f"<details><summary>What the columns mean</summary><dl>{listed}</dl></details>"


def _sources(sheet: Sheet[RowT]) -> str:
    """A line over the published columns that says whose they are."""
    if not sheet.source:
        return ""
    marks = [column.published for column in sheet.columns]
    before, number = marks.index(True), sum(marks)
    return (
        f'<tr><td colspan="{before}"></td><th scope="colgroup" class="published" '
        f'colspan="{number}">Published: {text(sheet.source)}</th>'
        f'<td colspan="{len(marks) - before - number}"></td></tr>'
    )


def _heading(column: Column[RowT], sheet: Sheet[RowT]) -> str:
    return column.heading.removeprefix("published ") if sheet.source else column.heading


def _row(sheet: Sheet[RowT], row: RowT, cells: tuple[str, ...], swatches: dict[str, str]) -> str:
    name, *values = cells
    failed = ' class="failed"' if isinstance(row, ArmRow) and row.failed else ""
    body = "".join(
        f'<td data-label="{text(column.heading)}"{_class(column)}{_bar(column, row)}>'
        f"{text(value)}</td>"
        for column, value in zip(sheet.columns[1:], values, strict=True)
    )
    return f'<tr{failed}><th scope="row">{swatches.get(name, "")}{text(name)}</th>{body}</tr>'


def _class(column: Column[RowT]) -> str:
    return ' class="published"' if column.published else ""


def _bar(column: Column[RowT], row: RowT) -> str:
    """An arm's mIoU has a bar under it."""
    if not isinstance(row, ArmRow) or column.heading != "mIoU" or row.mIoU.mean is None:
        return ""
    return f' class="main" style="--v:{min(max(row.mIoU.mean, 0.0), 100.0):.1f}%"'
