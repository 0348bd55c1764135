"""report.html: one file that explains a run to somebody who was not there."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from fl_ppseg import __version__
from fl_ppseg.config.run_layout import FIGURES, REPORT
from fl_ppseg.data.classes import ClassTable
from fl_ppseg.federation.provenance import commit
from fl_ppseg.progress.state import duration
from fl_ppseg.report.arms import ArmText, arm_texts
from fl_ppseg.report.audited import Audited, attacks_html, audit_of, retell
from fl_ppseg.report.figures import MANY_ARMS, plot_cities, plot_classes, plot_curves
from fl_ppseg.report.findings import findings, headline
from fl_ppseg.report.inline import chart, swatch
from fl_ppseg.report.markup import (
    definitions,
    items,
    meanings,
    page,
    section,
    table,
    text,
)
from fl_ppseg.report.rows import number
from fl_ppseg.report.scenes import DEMO_KEY, CipherGallery, ScenePanel, gallery_html, scenes_html
from fl_ppseg.report.series import collect
from fl_ppseg.report.sheets import (
    comparison_sheet,
    drawn,
    elsewhere_sheet,
    interval_sheet,
    key_sheet,
)
from fl_ppseg.report.styles import ArmStyle, arm_styles
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.wording import counted, sentence

MAX_REPORT = 512 * 2**20
"""Bytes of a report that is changed; its pictures are inside."""
LIBRARIES = ("flwr", "ray", "torch", "timm", "numpy", "cryptography")
LIMITS = (
    "Perceptual encryption is not semantic security: whoever holds a ciphertext sees what the "
    "cipher leaves unchanged: under shuffle each block's set of values, hence a thumbnail; under "
    "shuffle-spatial its set of pixels, in colour; under negative-positive distances from grey.",
    "One permutation common to all blocks is found from the ciphertexts alone, within seconds; "
    "with parameters of its own for each block no more than what survives is left.",
    "Label maps lie plain on the training node: the outlines of everything labelled.",
    "The coordinator sees the weights of every client, losses and confusion counts. Against it the "
    "cipher adds nothing where the embedding is private and frozen; federation protects there, as "
    "long as the weights that it hands out are honest averages.",
    "A private embedding beside public weights is as good as the client's key: it never leaves the "
    "owner's own node, which must be trusted.",
)
KEYS_LEAD = (
    "Arms whose clients share one key, with their newest weights: what a query gets that was "
    "encrypted with the shared key, with another one, or not at all. Percent, mean over seeds."
)
SCENES_LEAD = "What the owner sees, what a training node would see, and what each arm answers."
GALLERY_LEAD = f"What each cipher leaves to be seen; each picture has a {DEMO_KEY} of its own."
CITIES_LEAD = (
    "Training cities are scored on held-out images, unseen cities with keys and streets that "
    "training never met."
)
ELSEWHERE_LEAD = (
    "Other data, models and budgets: not comparable with this run, and no figure above is taken "
    "from here."
)


def write_report(
    run_dir: Path,
    summary: Mapping[str, Any],
    results: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any],
    panels: Sequence[ScenePanel],
    class_table: ClassTable,
    gallery: CipherGallery | None = None,
) -> Path:
    """Writes report.html, and its pictures under figures/.

    Args:
        run_dir: The run folder.
        summary: As in summary.json; an arm without scores is shown as failed.
        results: The lines of results.jsonl, read once.
        config: The run's config as plain values; paths in it are not shown.
        panels: A scene of each val city; may be empty.
        class_table: Names and colours of the classes.
        gallery: One image under every cipher.

    Returns:
        Path of report.html, which is whole or absent.
    """
    lines = list(results)
    val_cities = sorted({str(line["city"]) for line in lines if line["role"] == "val"})
    styles = arm_styles(list(summary["arms"]))
    figures = run_dir / FIGURES
    series = collect(lines, number((summary.get("no_image") or {}).get("mIoU")))
    audit = audit_of(run_dir)
    audited = audit if isinstance(audit, Audited) else None
    told = findings(summary, config, series.floor(), audited)
    whole = page(
        headline(summary, config, audited),
        _subtitle(lines, val_cities, config),
        f'<ul class="findings">{items(told)}</ul>',
        attacks_html(audit),
        section("Comparison", _comparison(summary, styles, config)),
        section("How sure", _intervals(summary, styles)),
        section("With the wrong key", _keys(summary, styles), KEYS_LEAD),
        section("What the arms mean", _arms(arm_texts(list(styles), config), styles)),
        section(
            "One scene of each unseen city",
            scenes_html(panels, class_table, styles, figures),
            SCENES_LEAD,
        ),
        section(
            "One image under every cipher",
            gallery_html(gallery, figures) if gallery else "",
            GALLERY_LEAD,
        ),
        section("Over the rounds", _charts(plot_curves(series, styles, figures), len(styles))),
        section(
            "Cities and classes",
            _cities_and_classes(summary, val_cities, class_table.names, styles, figures),
            CITIES_LEAD,
        ),
        section("Published elsewhere", _elsewhere(config), ELSEWHERE_LEAD),
        section("Limits", f"<ul>{items(LIMITS)}</ul>"),
        section("Run", _facts(summary, lines, config)),
    )
    path = run_dir / REPORT
    write_atomically(path, whole)
    return path


def tell_of_audit(
    report: Path,
    summary: Mapping[str, Any],
    results: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any],
    audited: Audited,
) -> bool:
    """Have a run's report tell of an audit that was made after it.

    Args:
        report: The report; what else is in it stays as it is.
        summary: As in summary.json.
        results: The lines of results.jsonl.
        config: The run's config as plain values.
        audited: The audit.

    Returns:
        Whether it does now; not where no report of this version lies there.
    """
    if not report.is_file() or report.stat().st_size > MAX_REPORT:
        return False
    told = findings(summary, config, collect(list(results)).floor(), audited)
    page = report.read_text("utf-8", errors="replace")
    new = retell(page, headline(summary, config, audited), items(told), audited)
    if new is not None:
        write_atomically(report, new)
    return new is not None


def _subtitle(
    lines: Sequence[Mapping[str, Any]], val_cities: Sequence[str], config: Mapping[str, Any]
) -> str:
    clients = {str(line["city"]) for line in lines if line["role"] == "train"}
    rounds = max((int(line["round"]) for line in lines), default=0)
    parts = [f"Run “{config.get('name', 'unnamed')}”"]
    parts += [counted(len(clients), "training client")] if clients else []
    parts += [f"unseen: {', '.join(val_cities)}"] if val_cities else []
    parts += [counted(rounds, "round")] if rounds else []
    return text(" · ".join(parts))


def _comparison(
    summary: Mapping[str, Any], styles: Mapping[str, ArmStyle], config: Mapping[str, Any]
) -> str:
    sheet = comparison_sheet(summary, config)
    several = any(row.num_seeds > 1 for row in sheet.rows)
    spread = " ± is the sample standard deviation over seeds." if several else ""
    theirs = " Published columns are of other runs, in their own setting (below)."
    own = f"Scores are the {_last_rounds(config)}.{spread}"
    note = f'<p class="note">{own}{theirs if sheet.source else ""}</p>'
    how = "".join(f'<p class="note">{text(each)}</p>' for each in summary.get("notes", ()))
    return f"{table(sheet, _swatches(styles))}{note}{how}{meanings(sheet)}"


def _intervals(summary: Mapping[str, Any], styles: Mapping[str, ArmStyle]) -> str:
    sheet = interval_sheet(summary)
    if sheet is None:
        return ""
    lead = f'<p class="lead">95 % intervals over {text(drawn(summary))}.</p>'
    return f"{lead}{table(sheet, _swatches(styles))}{meanings(sheet)}"


def _keys(summary: Mapping[str, Any], styles: Mapping[str, ArmStyle]) -> str:
    sheet = key_sheet(summary)
    return "" if sheet is None else table(sheet, _swatches(styles))


def _elsewhere(config: Mapping[str, Any]) -> str:
    sheet = elsewhere_sheet(config)
    sources = dict.fromkeys(row.source for row in sheet.rows)
    notes = (f"{s.name} ({s.where}): {s.data}; {s.setting}." for s in sources)
    return f"{table(sheet, {})}<ul>{items(notes)}</ul>"


def _swatches(styles: Mapping[str, ArmStyle]) -> dict[str, str]:
    return {arm: swatch(style) for arm, style in styles.items()}


def _last_rounds(config: Mapping[str, Any]) -> str:
    federation = config.get("federation") or {}
    rounds = [int(federation[key]) for key in ("last_rounds", "num_rounds") if key in federation]
    if not rounds:
        return "mean of the last rounds"
    return (
        "scores of the last round" if min(rounds) == 1 else f"mean of the last {min(rounds)} rounds"
    )


def _arms(texts: Mapping[str, ArmText], styles: Mapping[str, ArmStyle]) -> str:
    return f'<dl class="meanings">{"".join(_arm(a, t, styles[a]) for a, t in texts.items())}</dl>'


def _arm(arm: str, about: ArmText, style: ArmStyle) -> str:
    tag = '<span class="tag">reconstruction</span>' if about.reconstruction else ""
    settings = f"<small>{text(' · '.join(about.settings))}</small>" if about.settings else ""
    note = text(sentence(about.note))
    return f"<div><dt>{swatch(style)}{text(arm)}{tag}</dt><dd>{note}{settings}</dd></div>"


def _cities_and_classes(
    summary: Mapping[str, Any],
    val_cities: Sequence[str],
    classes: Sequence[str],
    styles: Mapping[str, ArmStyle],
    figures: Path,
) -> str:
    charts = plot_cities(summary, val_cities, styles, figures)
    return _charts([*charts, *plot_classes(summary, classes, styles, figures)], len(styles))


def _charts(paths: Sequence[Path], num_arms: int) -> str:
    kind = "charts many" if num_arms >= MANY_ARMS else "charts"
    return f'<div class="{kind}">{"".join(map(chart, paths))}</div>' if paths else ""


def _facts(
    summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> str:
    seconds, memory = number(summary.get("total_seconds")), number(summary.get("peak_rss_mb"))
    seeds = sorted({int(line["seed"]) for line in lines})
    facts = {
        "whole run": "" if seconds is None else f"{duration(seconds)} ({seconds:,.1f} seconds)",
        "peak memory": "" if memory is None else f"{memory:,.0f} MB, last start, all processes",
        "seeds": ", ".join(map(str, seeds)),
        "rounds": str(max((int(line["round"]) for line in lines), default=0) or ""),
        "fl_ppseg": __version__,
        "commit": commit(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }
    return (
        f'<dl class="facts">{definitions((k, v) for k, v in facts.items() if v)}</dl>'
        f"<details><summary>Configuration</summary>"
        f'<dl class="facts">{definitions(_flat(config))}</dl></details>'
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
