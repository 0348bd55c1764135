"""The end of a deployed run: summary, table and report from the nodes' replies.

The coordinator holds no image, so the report has no pictures of scenes.
"""

from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.summary import summarise
from fl_ppseg.learning.scores import MEAN_OF
from fl_ppseg.report.conclusion import conclude, show

NO_IMAGE_UNKNOWN = (
    "no image: not known; it needs all clients' training label maps, which stay on their nodes"
)
"""Note in place of the score without an image."""


def write_report(config: Config, run: RunFolder) -> None:
    """Write summary.json and report.html of a finished run, and print its table."""
    classes = load_class_table(config.data.classes)
    lines = run.lines()
    seconds = sum(line["seconds"] for line in lines if line["role"] == "round")
    last = config.federation.last_rounds
    notes = (MEAN_OF, NO_IMAGE_UNKNOWN)
    summary = summarise(lines, config.arms, classes.names, last, seconds, None, notes=notes)
    show(config, summary, conclude(config, run, summary, classes))
