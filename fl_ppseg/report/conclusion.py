"""The end of a run, wherever it was trained: summary.json, the report, what the terminal says."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import ClassTable
from fl_ppseg.federation.profile import RunProfile
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.progress.lines import say
from fl_ppseg.report.html import write_report
from fl_ppseg.report.profiled import profile_table
from fl_ppseg.report.scenes import CipherGallery, ScenePanel
from fl_ppseg.report.tables import comparison_table, comparison_text
from fl_ppseg.system.files import write_atomically

logger = logging.getLogger(__name__)


class Pictures(NamedTuple):
    """What a report shows of images."""

    panels: Sequence[ScenePanel] = ()
    """A scene of each val client."""
    gallery: CipherGallery | None = None
    """One image under every cipher."""


def conclude(
    config: Config,
    folder: RunFolder,
    summary: RunSummary,
    classes: ClassTable,
    pictures: Callable[[], Pictures] = Pictures,
) -> Path:
    """Write summary.json, then the report.

    Args:
        config: The experiment.
        folder: Its run folder.
        summary: Of `summarise`.
        classes: Its class table.
        pictures: Makes the report's, where whoever concludes has images.

    Returns:
        Path of the report.
    """
    write_atomically(folder.summary, summary.to_json())
    logger.info("result\n%s", comparison_text(summary, config))
    panels, gallery = pictures()
    return write_report(folder.path, summary, folder.lines(), config, panels, classes, gallery)


def show(
    config: Config,
    summary: RunSummary,
    report: Path,
    notes: Iterable[str] = (),
    profile: RunProfile | None = None,
) -> None:
    """Print the final table, what else there is to say, and where the report lies."""
    console = Console()
    console.print(comparison_table(summary, config))
    if profile is not None:
        console.print(profile_table(profile))
    for line in (*notes, f"report: {report}"):
        say(console, line)
