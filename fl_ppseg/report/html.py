"""report.html: one file that explains a run to somebody who was not there."""

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

from fl_ppseg import __version__
from fl_ppseg.classes import ClassTable
from fl_ppseg.files import write_atomically
from fl_ppseg.progress.state import duration
from fl_ppseg.report.arms import ArmText, arm_texts
from fl_ppseg.report.figures import arm_colours, plot_cities, plot_classes, plot_curves
from fl_ppseg.report.findings import findings, headline
from fl_ppseg.report.inline import dot, inline_svg
from fl_ppseg.report.rows import ArmRow, arm_rows, number
from fl_ppseg.report.scenes import ScenePanel, scenes_html
from fl_ppseg.report.series import collect
from fl_ppseg.report.tables import COLUMNS, cells

LIBRARIES = ("flwr", "ray", "torch", "timm", "numpy", "cryptography")
LIMITS = (
    "Perceptual encryption is not semantic security: whoever holds a ciphertext sees what the "
    "cipher leaves unchanged, at least each block's set of values, hence a thumbnail.",
    "One permutation common to all blocks of a large image can be recovered from the image alone; "
    "a permutation for each block leaves the set of values only.",
    "Label maps lie plain on the training node: the outlines of everything labelled.",
    "The coordinator sees the weights of every client, losses and confusion counts. Against it the "
    "cipher adds nothing where the embedding is private and frozen; federation protects there.",
    "A private embedding beside public weights is as good as the client's key: it never leaves the "
    "owner's own node, which must be trusted.",
    "No attack was run for this report.",
)
_PATH = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?|~[/\\][\w./\\-]+")


def write_report(
    run_dir: Path,
    summary: Mapping[str, Any],
    results: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any],
    panels: Sequence[ScenePanel],
    class_table: ClassTable,
) -> Path:
    """Writes report.html, and its pictures under figures/.

    Args:
        run_dir: The run folder.
        summary: As in summary.json; an arm without scores is shown as failed.
        results: The lines of results.jsonl, read once.
        config: The run's config as plain values; paths in it are not shown.
        panels: A scene of each val city; may be empty.
        class_table: Names and colours of the classes.

    Returns:
        Path of report.html, which is whole or absent.
    """
    lines = list(results)
    arms = list(summary["arms"])
    colours = arm_colours(arms)
    figures = run_dir / "figures"
    val_cities = sorted({str(line["city"]) for line in lines if line["role"] == "val"})
    series = collect(lines)
    title = headline(summary, config)
    sections = (
        _findings(findings(summary, config, series.floor())),
        _section("Comparison", _table(arm_rows(summary), colours, config)),
        _section("What the arms mean", _arms(arm_texts(arms, config), colours)),
        _section(
            "One scene of each unseen city",
            scenes_html(panels, class_table, colours, figures),
            "What the owner sees, what a training node would see, and what each arm answers.",
        ),
        _section("Over the rounds", _charts(plot_curves(series, colours, figures))),
        _section(
            "Cities and classes",
            _charts(
                plot_cities(summary, val_cities, colours, figures)
                + plot_classes(summary, class_table.names, colours, figures)
            ),
            "Training cities are scored on held-out images, unseen cities with keys and streets "
            "that training never met.",
        ),
        _section("Limits", f"<ul>{_items(LIMITS)}</ul>"),
        _section("Run", _facts(summary, lines, config)),
    )
    page = _page(title, _subtitle(lines, val_cities, config), "".join(sections))
    path = run_dir / "report.html"
    write_atomically(path, page)
    return path


def without_paths(text: str) -> str:
    """Hides absolute paths, which tell user names and machines.

    >>> without_paths("no file /home/ann/city.png")
    'no file [path]'
    """
    return _PATH.sub("[path]", text)


def _page(title: str, subtitle: str, body: str) -> str:
    package = resources.files("fl_ppseg.report")
    template = Template((package / "page.html").read_text(encoding="utf-8"))
    style = (package / "style.css").read_text(encoding="utf-8")
    shown = _text(title).replace("-", "\u2011")  # no break inside per-client
    return template.substitute(
        title=_text(title), headline=shown, subtitle=subtitle, style=style, body=body
    )


def _text(value: object) -> str:
    return escape(without_paths(str(value)))


def _items(texts: Iterable[object]) -> str:
    return "".join(f"<li>{_text(text)}</li>" for text in texts)


def _section(title: str, content: str, lead: str = "") -> str:
    if not content:
        return ""
    lead = f'<p class="lead">{_text(lead)}</p>' if lead else ""
    return f"<section><h2>{_text(title)}</h2>{lead}{content}</section>"


def _subtitle(
    lines: Sequence[Mapping[str, Any]], val_cities: Sequence[str], config: Mapping[str, Any]
) -> str:
    clients = {str(line["city"]) for line in lines if line["role"] == "train"}
    rounds = max((int(line["round"]) for line in lines), default=0)
    parts = [f"Run “{config.get('name', 'unnamed')}”"]
    parts += [f"{len(clients)} training clients"] if clients else []
    parts += [f"unseen: {', '.join(val_cities)}"] if val_cities else []
    parts += [f"{rounds} rounds"] if rounds else []
    return _text(" · ".join(parts))


def _findings(texts: Sequence[str]) -> str:
    return f'<ul class="findings">{_items(texts)}</ul>'


def _table(rows: Sequence[ArmRow], colours: Mapping[str, str], config: Mapping[str, Any]) -> str:
    head = "".join(f'<th scope="col">{_text(column.heading)}</th>' for column in COLUMNS)
    body = "".join(_table_row(row, colours[row.arm]) for row in rows)
    meanings = "".join(
        f"<dt>{_text(column.heading)}</dt><dd>{_text(column.meaning)}</dd>" for column in COLUMNS
    )
    spread = " ± is the sample standard deviation over seeds." if _several(rows) else ""
    return (
        f'<table class="arms"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f'<p class="note">Scores are the {_last_rounds(config)}.{spread}</p>'
        f"<details><summary>What the columns mean</summary><dl>{meanings}</dl></details>"
    )


def _table_row(row: ArmRow, colour: str) -> str:
    name, *texts = cells(row)
    headings = [column.heading for column in COLUMNS[1:]]
    failed = ' class="failed"' if row.failed else ""
    body = "".join(
        f'<td data-label="{_text(heading)}"{_bar(heading, row)}>{_text(text)}</td>'
        for heading, text in zip(headings, texts, strict=True)
    )
    return f'<tr{failed}><th scope="row">{dot(colour)}{_text(name)}</th>{body}</tr>'


def _bar(heading: str, row: ArmRow) -> str:
    if heading != "mIoU" or row.mIoU.mean is None:
        return ""
    return f' class="main" style="--v:{min(max(row.mIoU.mean, 0.0), 100.0):.1f}%"'


def _several(rows: Sequence[ArmRow]) -> bool:
    return any(row.num_seeds > 1 for row in rows)


def _last_rounds(config: Mapping[str, Any]) -> str:
    federation = config.get("federation")
    last = federation.get("last_rounds") if isinstance(federation, Mapping) else None
    return f"mean of the last {last} rounds" if last else "mean of the last rounds"


def _arms(texts: Mapping[str, ArmText], colours: Mapping[str, str]) -> str:
    return f'<dl class="meanings">{"".join(_arm(a, t, colours[a]) for a, t in texts.items())}</dl>'


def _arm(arm: str, text: ArmText, colour: str) -> str:
    tag = '<span class="tag">reconstruction</span>' if text.reconstruction else ""
    settings = f"<small>{_text(' · '.join(text.settings))}</small>" if text.settings else ""
    note = _text(_sentence(text.note))
    return f"<div><dt>{dot(colour)}{_text(arm)}{tag}</dt><dd>{note}{settings}</dd></div>"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _charts(paths: Sequence[Path]) -> str:
    charts = [
        f'<figure class="chart">{inline_svg(p.read_text("utf-8"), p.stem, _title(p))}</figure>'
        for p in paths
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _title(path: Path) -> str:
    return escape(path.stem.replace("_", " "))


def _facts(
    summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> str:
    seconds, memory = number(summary.get("total_seconds")), number(summary.get("peak_rss_mb"))
    seeds = sorted({int(line["seed"]) for line in lines})
    facts = {
        "whole run": "" if seconds is None else f"{duration(seconds)} ({seconds:,.1f} seconds)",
        "peak memory": "" if memory is None else f"{memory:,.0f} MB, all processes",
        "seeds": ", ".join(map(str, seeds)),
        "fl_ppseg": __version__,
        "Python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }
    return (
        f'<dl class="facts">{_definitions((k, v) for k, v in facts.items() if v)}</dl>'
        f"<details><summary>Configuration</summary>"
        f'<dl class="facts">{_definitions(_flat(config))}</dl></details>'
    )


def _definitions(pairs: Iterable[tuple[str, object]]) -> str:
    return "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in pairs
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            pairs.append((name, ", ".join(map(str, value))))
        else:
            pairs.append((name, "–" if value is None else value))
    return pairs


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
