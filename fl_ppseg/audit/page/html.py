"""report.html of an audit: what each adversary gets from each arm, for somebody who was not there.

leaks.json has the same as data; figures/ holds the frontiers and the pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.audit.page.frontier import Frontier, frontiers, plot_frontiers
from fl_ppseg.audit.page.matrix import matrix_html
from fl_ppseg.audit.page.panels import panels_html
from fl_ppseg.config.run_layout import FIGURES, LEAKS, REPORT
from fl_ppseg.leaks.findings import findings, gets, headline
from fl_ppseg.leaks.table import (
    ADVERSARIES,
    Adversary,
    ArmLeaks,
    Finding,
    LabelFinding,
    LeakTable,
)
from fl_ppseg.leaks.words import HOLDS, NAMES, network, share, spent
from fl_ppseg.progress.state import duration
from fl_ppseg.report.inline import chart
from fl_ppseg.report.markup import definitions, items, page, section, text
from fl_ppseg.report.markup import table as sheet_html
from fl_ppseg.report.rows import MISSING, amount, fixed
from fl_ppseg.report.sheets import Column, Sheet
from fl_ppseg.report.styles import ArmStyle, arm_styles
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.wording import sentence

LIMITS: Final = (
    "A low score is no proof: it says what these attacks got, not what the next one will. Read "
    "every number as a lower bound of what leaks.",
    "The survivor network is the best that was found to restore images from what provably survives "
    "a cipher, with the public images and steps that stand beside it. A better network, more "
    "images or more steps restore more: no cipher is shown to hide what its figure leaves.",
    "Scores are means over the images attacked, of this size and with blocks of this side; larger "
    "images give attacks on a common permutation more to work with.",
    "SSIM, PSNR and correlation measure likeness. What may be told of a person or a place can be "
    "more or less than they say; the mIoU of a guess is what one machine makes of it.",
    "The coordinator's best case is a client that trains one step on one image; what an ordinary "
    "round tells it stands among all attacks.",
    "The active coordinator keeps to the agreed settings of the training, so it may get less than "
    "the other in that best case. Its weights are of one design, handed out in a few rounds; "
    "others, or more rounds, may get more.",
    "Label maps were asked for with weights of one design each, of one arm and one client; a run "
    "of several arms or seeds answers as often in each, about the same label maps. Training label "
    "maps are told by batches: images that share every batch, such as those of a client with no "
    "more than one, were not told apart, and the clients had one view an image. Nodes "
    "refuse these weights, for training could not have made them; of weights that it could have "
    "made, and that tell label maps, only those nearest to these were tried.",
    "Guesses of coordinators come in no order: each image is compared with the likest of them, "
    "which an adversary could not choose so well. The clients of these rounds had one view an "
    "image.",
    "Label maps lie plain on a training node: its thief has the outlines of everything labelled, "
    "whatever the cipher.",
    "What an arm keeps of plain's mIoU is taken from the run that was audited.",
)
MATRIX_LEAD: Final = (
    "The best attack of each adversary on each arm; the deeper the colour, the more it gets. "
    "Beside it what costs no attack: the ciphertext taken for the image, the thumbnail that "
    "anybody can make of it, and the best survivor network found, which restores images from what "
    "provably survives: a lower bound of what leaks. "
    "mIoU is what a segmenter tells apart on a guess, of what it does on the images themselves."
)
FRONTIER_LEAD: Final = (
    "To the left less is given away, upwards more of plain's mIoU is kept: upper left is better. "
    "The line joins the arms that no other beats at both; their dots are filled. Anybody can make "
    "the blind guess (dotted), so an attack that does no better counts as one."
)
PANELS_LEAD: Final = (
    "One street, arm by arm: what was encrypted, what it is measured against, and the best that "
    "each adversary restored."
)
LABELS_LEAD: Final = (
    "What a coordinator reads of one client's label maps by weights of its own making: of held-out "
    "ones in the confusion counts of evaluations, of training ones in updates. Nodes refuse "
    "weights that training could not have made (their trust region); beside them stand such "
    "weights moved to where nodes answer, and a node that compares nothing. Labelled pixels that "
    "are right, beside what the most frequent class of each place has right without any request."
)
HIDDEN: Final = " The images are not public, so neither they nor guesses at them are shown."


class _Attack(NamedTuple):
    """An attack that was run, and on which arm."""

    arm: str
    found: Finding

    def score(self, name: str, decimals: int) -> str:
        return fixed(getattr(self.found.scores, name, None), decimals)


ATTACKS: Final[tuple[Column[_Attack], ...]] = (
    Column("arm", "What was attacked.", lambda row: row.arm),
    Column("adversary", "Who attacked.", lambda row: NAMES[row.found.adversary]),
    Column("attack", "How.", lambda row: row.found.attack),
    Column("SSIM", "1 is the image itself.", lambda row: row.score("ssim", 3)),
    Column("PSNR, dB", "120 for an exact image.", lambda row: row.score("psnr", 1)),
    Column("corr.", "Correlation of block means.", lambda row: row.score("correlation", 2)),
    Column("mIoU", "Of a segmenter of plain images.", lambda row: row.score("miou", 1)),
    Column("key", "Share that was found.", lambda row: _key(row.found)),
    Column("time, s", "Wall time.", lambda row: amount(row.found.seconds)),
    Column("budget", "What it was given.", lambda row: row.found.budget),
    Column("note", "On what, and what came of it.", lambda row: row.found.note),
)


class _LabelAttack(NamedTuple):
    """An attack on label maps, and on which arm."""

    arm: str
    found: LabelFinding


LABEL_ATTACKS: Final[tuple[Column[_LabelAttack], ...]] = (
    Column("arm", "What was attacked.", lambda row: row.arm),
    Column("adversary", "Who attacked.", lambda row: NAMES[row.found.adversary]),
    Column("attack", "How.", lambda row: row.found.attack),
    Column("label maps", "Of which images.", lambda row: row.found.maps),
    Column("images", "Of one client.", lambda row: str(row.found.num_images)),
    Column("asked with", "Whose model it asks with.", lambda row: row.found.model),
    Column("requests", "That the node answered.", lambda row: str(row.found.num_requests)),
    Column("right, %", "Labelled pixels.", lambda row: _percent(row.found.right)),
    Column("certain, %", "Those without doubt.", lambda row: _percent(row.found.certain)),
    Column("without, %", "Without a request.", lambda row: _percent(row.found.without)),
    Column("time, s", "Wall time.", lambda row: amount(row.found.seconds)),
    Column("the node says", "Why it answers no more.", lambda row: row.found.note or MISSING),
)


def write_audit(out: Path, table: LeakTable) -> Path:
    """Writes leaks.json, the pictures under figures/, and report.html last.

    Args:
        out: Folder of the audit.
        table: What the attacks found.

    Returns:
        Path of report.html, which is whole or absent.
    """
    write_atomically(out / LEAKS, table.to_json())
    styles = arm_styles([arm.arm for arm in table.arms])
    figures = out / FIGURES
    hidden = "" if table.targets else HIDDEN
    whole = page(
        headline(table),
        text(_subtitle(table)),
        f'<ul class="findings">{items(findings(table))}</ul>',
        section("Who gets what", matrix_html(table, styles), f"{MATRIX_LEAD} {_network(table)}"),
        section("The adversaries", _adversaries(table)),
        section("Privacy against use", _frontier(table, styles, figures), FRONTIER_LEAD),
        section(
            "What each sees of your street",
            panels_html(table, styles, figures),
            f"{PANELS_LEAD}{hidden}",
        ),
        section("Label maps", _label_maps(table.arms), LABELS_LEAD),
        section("Every attack", _attacks(table.arms)),
        section("Limits", f"<ul>{items(LIMITS)}</ul>"),
        section("How it was made", _made(table)),
    )
    path = out / REPORT
    write_atomically(path, whole)
    return path


def _subtitle(table: LeakTable) -> str:
    height, width = table.image_size
    parts = (
        f"Leak audit of {len(table.arms)} arm{'' if len(table.arms) == 1 else 's'}",
        f"{table.source}, {table.num_targets} images of {height} x {width} attacked",
        f"blocks of {table.block_size} x {table.block_size}",
        f"took {duration(table.seconds)}",
        spent(table),
    )
    return " · ".join(parts)


def _adversaries(table: LeakTable) -> str:
    """What each holds, and what it gets of which arms."""
    described = "".join(_adversary(name, table) for name in ADVERSARIES)
    return f'<dl class="meanings adversaries">{described}</dl>'


def _adversary(adversary: Adversary, table: LeakTable) -> str:
    return (
        f"<div><dt>{text(NAMES[adversary])}</dt><dd>{text(HOLDS[adversary])}"
        f'<ul class="gets">{items(gets(adversary, table))}</ul></dd></div>'
    )


def _frontier(table: LeakTable, styles: Mapping[str, ArmStyle], figures: Path) -> str:
    found = frontiers(table)
    paths = plot_frontiers(found, table.nothing.ssim, styles, figures, spent(table))
    charts = (chart(path, _left_out(f)) for path, f in zip(paths, found, strict=True))
    return f'<div class="charts">{"".join(charts)}</div>' if found else ""


def _left_out(frontier: Frontier) -> str:
    """Who has no dot, and why."""
    if not frontier.left_out:
        return ""
    return f"<span>Without a ratio to plain: {text(', '.join(frontier.left_out))}.</span>"


def _attacks(arms: tuple[ArmLeaks, ...]) -> str:
    rows = tuple(_Attack(arm.arm, found) for arm in arms for found in arm.findings)
    if not rows:
        return ""
    return (
        f'<details class="attacks"><summary>All {len(rows)} that were run</summary>'
        f"{sheet_html(Sheet(ATTACKS, rows), {})}</details>"
    )


def _label_maps(arms: tuple[ArmLeaks, ...]) -> str:
    rows = tuple(_LabelAttack(arm.arm, found) for arm in arms for found in arm.labels)
    return sheet_html(Sheet(LABEL_ATTACKS, rows), {}) if rows else ""


def _made(table: LeakTable) -> str:
    numbers = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in table.effort.items())
    facts = {"budget": spent(table), "numbers": numbers, **table.made}
    return f'<dl class="facts">{definitions((k, v) for k, v in facts.items() if v)}</dl>'


def _network(table: LeakTable) -> str:
    return sentence(f"here: {network(table)}")


def _percent(part: float | None) -> str:
    return fixed(None if part is None else 100 * part, 1)


def _key(found: Finding) -> str:
    return MISSING if found.key_recovered is None else share(found.key_recovered)
