"""report.html: one file that explains a run to somebody who was not there."""

import logging
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from fl_ppseg.config.loading import described
from fl_ppseg.config.run_layout import FIGURES, REPORT
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import ClassTable
from fl_ppseg.federation.profile import load_profile
from fl_ppseg.federation.provenance import commit
from fl_ppseg.federation.results import Line
from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.pages.inline import inline_svg
from fl_ppseg.pages.rendering import render
from fl_ppseg.pages.styles import arm_styles
from fl_ppseg.progress.state import duration
from fl_ppseg.report.arms import arm_texts
from fl_ppseg.report.audited import NOT_RUN, Audited, audit_of
from fl_ppseg.report.figures import MANY_ARMS, plot_classes, plot_clients, plot_curves
from fl_ppseg.report.findings import best_arm, cautions, headline
from fl_ppseg.report.glance import glance_sheet
from fl_ppseg.report.pictures import Picture
from fl_ppseg.report.profiled import Profiled, profiled
from fl_ppseg.report.scenes import (
    CipherGallery,
    Scene,
    ScenePanel,
    gallery_of,
    hero_of,
    legend_of,
    scenes_of,
)
from fl_ppseg.report.series import collect
from fl_ppseg.report.sheets import (
    comparison_sheet,
    drawn,
    elsewhere_sheet,
    interval_sheet,
    key_sheet,
)
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.version import VERSION
from fl_ppseg.system.wording import counted

logger = logging.getLogger(__name__)

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
TOLD: Final = ("headline", "told")
"""Parts of the page that tell of an audit: templates, between marks of these names."""


def write_report(
    run_dir: Path,
    summary: RunSummary,
    results: Iterable[Line],
    config: Config,
    panels: Sequence[ScenePanel],
    classes: ClassTable,
    gallery: CipherGallery | None = None,
) -> Path:
    """Writes report.html, and its pictures under figures/.

    Args:
        run_dir: The run folder.
        summary: Of the run; an arm without scores is shown as failed.
        results: The lines of results.jsonl, read once.
        config: Of the run; paths in it are not shown.
        panels: A scene of each val client; may be empty.
        classes: Names and colours of the classes.
        gallery: One image under every cipher.

    Returns:
        Path of report.html, which is whole or absent.
    """
    lines = list(results)
    val_clients = sorted({line["client"] for line in lines if line["role"] == "val"})
    figures, styles = run_dir / FIGURES, arm_styles(list(summary.arms))
    no_image = None if summary.no_image is None else summary.no_image.mIoU
    series = collect(lines, no_image)
    scenes = scenes_of(panels, classes, styles, figures)
    bars = [
        *plot_clients(summary, val_clients, styles, figures),
        *plot_classes(summary, classes.names, styles, figures),
    ]
    elsewhere = elsewhere_sheet(config)
    page = render(
        "report/report.html",
        **_told(summary, config, audit_of(run_dir), series.floor()),
        name=config.name,
        subtitle=_subtitle(lines, val_clients, config),
        hero=_hero(scenes, summary, config),
        curves=[inline_svg(path) for path in plot_curves(series, styles, figures)],
        is_wide=len(styles) >= MANY_ARMS,
        comparison=comparison_sheet(summary, config),
        last_rounds=_last_rounds(config),
        has_seeds=any(len(arm.per_seed) > 1 for arm in summary.arms.values()),
        notes=summary.notes,
        intervals=interval_sheet(summary),
        drawn=drawn(summary),
        keys=key_sheet(summary),
        arms=arm_texts(list(styles), config),
        scenes=scenes,
        legend=legend_of(panels, classes),
        gallery=[] if gallery is None else gallery_of(gallery, figures),
        bars=[inline_svg(path) for path in bars],
        profile=_profiled(run_dir),
        elsewhere=elsewhere,
        sources=list(dict.fromkeys(row.source for row in elsewhere.rows)),
        limits=LIMITS,
        facts_of_run=_facts(summary, lines),
        settings=_flat(described(config)),
    )
    write_atomically(run_dir / REPORT, page)
    return run_dir / REPORT


def tell_of_audit(
    report: Path,
    summary: RunSummary,
    results: Iterable[Line],
    config: Config,
    audited: Audited,
) -> bool:
    """Have a run's report tell of an audit that was made after it.

    Args:
        report: The report; what else is in it stays as it is.
        summary: Of the run.
        results: The lines of results.jsonl.
        config: Of the run.
        audited: The audit.

    Returns:
        Whether it does now; not where no report of this version lies there.
    """
    if not report.is_file() or report.stat().st_size > MAX_REPORT:
        return False
    page = report.read_text("utf-8", errors="replace")
    values = _told(summary, config, audited, collect(list(results)).floor())
    for name in TOLD:
        part = render(f"report/{name}.html", **values).strip()
        pattern = rf"<!--{name}-->.*?<!--/{name}-->"
        page, count = re.subn(pattern, lambda _, part=part: part, page, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            return False
    write_atomically(report, page)
    return True


def _told(
    summary: RunSummary, config: Config, audit: Audited | str | None, floor: float | None
) -> dict[str, Any]:
    """What the parts show that tell of an audit.

    Args:
        summary: Of the run.
        config: Of the run.
        audit: Of the run; why it cannot be read; None where there is none.
        floor: mIoU in percent of always answering the commonest class; None if unknown.
    """
    audited = audit if isinstance(audit, Audited) else None
    return {
        "headline": headline(summary, config, audited),
        "glance": glance_sheet(summary, config, audited),
        "styles": arm_styles(list(summary.arms)),
        "cautions": cautions(summary, config, floor),
        "audit": audit,
        "not_run": NOT_RUN,
    }


def _subtitle(lines: Sequence[Line], val_clients: Sequence[str], config: Config) -> list[str]:
    clients = {line["client"] for line in lines if line["role"] in ("train", "heldout")}
    rounds = max((line["round"] for line in lines), default=0)
    parts = [f"Run “{config.name}”"]
    parts += [counted(len(clients), "training client")] if clients else []
    parts += [f"unseen: {', '.join(val_clients)}"] if val_clients else []
    return parts + ([counted(rounds, "round")] if rounds else [])


def _hero(scenes: Sequence[Scene], summary: RunSummary, config: Config) -> list[Picture]:
    """Pictures of the first screen, of the arm that stands first by its settings and score."""
    best = best_arm(summary, config)
    if best is None or not scenes:
        return []
    return hero_of(scenes[0], best.arm, arm_texts([best.arm], config)[best.arm].picture)


def _profiled(run_dir: Path) -> Profiled | None:
    """Where the run's time went; None where it was not measured, or cannot be read."""
    try:
        profile = load_profile(run_dir)
    except InputError as error:
        logger.warning("%s; the report does not show it", error)
        return None
    return None if profile is None else profiled(profile, run_dir / FIGURES)


def _last_rounds(config: Config) -> str:
    num = min(config.federation.last_rounds, config.federation.num_rounds)
    return "scores of the last round" if num == 1 else f"mean of the last {num} rounds"


def _facts(summary: RunSummary, lines: Sequence[Line]) -> list[tuple[str, object]]:
    seconds, memory = summary.total_seconds, summary.peak_rss_mb
    whole = "" if seconds is None else f"{duration(seconds)} ({seconds:,.1f} seconds)"
    peak = "" if memory is None else f"{memory:,.0f} MB, last start, all processes"
    return [
        ("whole run", whole),
        ("peak memory", peak),
        ("seeds", ", ".join(map(str, sorted({line["seed"] for line in lines})))),
        ("rounds", max((line["round"] for line in lines), default="")),
        ("fl_ppseg", VERSION),
        ("commit", commit()),
        ("Python", platform.python_version()),
        *((name, _version(name)) for name in LIBRARIES),
    ]


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
