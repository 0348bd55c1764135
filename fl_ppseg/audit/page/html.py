"""report.html of an audit: what each adversary recovers from each arm.

leaks.json holds the same as data, figures/ the frontiers and the pictures.
"""

from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.audit.page.frontier import frontiers, plot_frontiers
from fl_ppseg.audit.page.matrix import BASES, DIRECT, LABELS, ends, matrix
from fl_ppseg.audit.page.panels import panels
from fl_ppseg.config.run_layout import AUDIT, FIGURES, LEAKS, REPORT, SUMMARY
from fl_ppseg.leaks.findings import findings, gets, headline
from fl_ppseg.leaks.table import ADVERSARIES, Finding, LabelFinding, LeakTable
from fl_ppseg.leaks.words import NAMES, effort, holds, network, share, spent
from fl_ppseg.pages.inline import inline_svg
from fl_ppseg.pages.rendering import render
from fl_ppseg.pages.styles import arm_styles
from fl_ppseg.progress.state import duration
from fl_ppseg.report.rows import MISSING, amount, fixed
from fl_ppseg.report.sheets import Column, Sheet
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.wording import counted, sentence

LIMITS: Final = (
    "A low score is not a proof: it says what these attacks recovered, not what others will. Read "
    "every number as a lower bound of what leaks.",
    "The survivor network is the best network found that reconstructs images from what provably "
    "survives a cipher, with the public images and steps given beside it. A larger network, more "
    "images or more steps may reconstruct more.",
    "Scores are means over the attacked images, of this size and with blocks of this side; attacks "
    "on a common permutation get more from larger images.",
    "The answer alone is a network of the same budget on true label maps of the model's size. An "
    "answer of a service has errors and confidences, which were not tried. It is a lower bound of "
    "what a label map tells, so excess, a difference of two lower bounds, is a bound of nothing.",
    "What an arm's own weights segment is of the newest checkpoint of one seed and of round 0, on "
    "images of a client that trained it; of other images it may be less.",
    "SSIM, PSNR and correlation measure similarity. A person or a place may be recognised at a low "
    "score, or not at a high one; the mIoU of a reconstruction is that of one segmenter.",
    "The coordinator's best case is a client that trains one step on one image; what it recovers "
    "from an ordinary round is listed among all attacks.",
    "The active coordinator keeps to the agreed training settings, so it may recover less than in "
    "that best case. Its crafted weights are of one design, sent in a few rounds; other designs, "
    "or more rounds, may recover more.",
    "Label maps were attacked with crafted weights of one design each, in one arm and one client; "
    "a run of several arms or seeds answers as many requests in each, about the same label maps. "
    "Updates reveal sums over batches: images that share every batch, such as those of a client "
    "with no more images than a batch, were not separated, and the clients had one view per image. "
    "Nodes refuse these weights, for training cannot make them (trust region); of the weights that "
    "a node accepts, only those nearest to these were tried.",
    "A coordinator's reconstructions have no order: each image is compared with the best of them, "
    "which an adversary could not choose as well. The clients of these rounds had one view per "
    "image.",
    "Label maps are stored in plain on a training node: its thief has the outlines of everything "
    "labelled, whatever the cipher.",
    "What an arm keeps of plain's mIoU is taken from the run that was audited.",
)


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
    Column("excess", "SSIM above the answer alone.", lambda row: _excess(row.found)),
    Column("PSNR, dB", "120 for an exact image.", lambda row: row.score("psnr", 1)),
    Column("corr.", "Correlation of block means.", lambda row: row.score("correlation", 2)),
    Column("mIoU", "Of a segmenter of plain images.", lambda row: row.score("miou", 1)),
    Column("key", "Share of the key that is right.", lambda row: _key(row.found)),
    Column("time, s", "Wall time.", lambda row: amount(row.found.seconds)),
    Column("budget", "Data and training steps.", lambda row: row.found.budget),
    Column("note", "Input of the attack, and remarks.", lambda row: row.found.note, is_text=True),
)


class _LabelAttack(NamedTuple):
    """An attack on label maps, and on which arm."""

    arm: str
    found: LabelFinding


LABEL_ATTACKS: Final[tuple[Column[_LabelAttack], ...]] = (
    Column("arm", "What was attacked.", lambda row: row.arm),
    Column("adversary", "Who attacked.", lambda row: NAMES[row.found.adversary]),
    Column("attack", "How.", lambda row: row.found.attack),
    Column("label maps", "Held-out or training images.", lambda row: row.found.maps),
    Column("images", "Of one client.", lambda row: str(row.found.num_images)),
    Column("asked with", "Model of the requests.", lambda row: row.found.model),
    Column("requests", "Requests that the node answered.", lambda row: str(row.found.num_requests)),
    Column("right, %", "Labelled pixels that are right.", lambda row: _percent(row.found.right)),
    Column("certain, %", "Those right and certain.", lambda row: _percent(row.found.certain)),
    Column("without, %", "Right by the prior alone.", lambda row: _percent(row.found.without)),
    Column("time, s", "Wall time.", lambda row: amount(row.found.seconds)),
    Column(
        "the node says",
        "Reason of its refusal.",
        lambda row: row.found.note or MISSING,
        is_text=True,
    ),
)


class _Adversary(NamedTuple):
    """Who attacks, what it holds, and the most that it got."""

    name: str
    holds: str
    gets: str


def write_audit(out: Path, table: LeakTable) -> Path:
    """Writes leaks.json, the pictures under figures/, and report.html last.

    Args:
        out: Folder of the audit; the page links the report of a run whose folder it lies in.
        table: What the attacks found.

    Returns:
        Path of report.html, which is whole or absent.
    """
    write_atomically(out / LEAKS, table.to_json())
    styles, figures = arm_styles([arm.arm for arm in table.arms]), out / FIGURES
    found, (height, width) = frontiers(table), table.image_size
    marks = {"blind guess": table.nothing.ssim, "answer alone": table.answer.ssim}
    plots = plot_frontiers(found, marks, styles, figures, spent(table))
    attacks = tuple(_Attack(arm.arm, each) for arm in table.arms for each in arm.findings)
    of_labels = tuple(_LabelAttack(arm.arm, each) for arm in table.arms for each in arm.labels)
    page = render(
        "audit/page/audit.html",
        headline=headline(table),
        subtitle=_subtitle(table),
        run_href=_run_link(out),
        findings=findings(table),
        network=sentence(f"here: {network(table)}"),
        columns=(*BASES, *(NAMES[who] for who in ADVERSARIES), LABELS),
        ends=ends(table),
        direct=DIRECT.capitalize(),
        matrix=matrix(table),
        styles=styles,
        adversaries=[_Adversary(NAMES[w], holds(w, table), gets(w, table)) for w in ADVERSARIES],
        frontiers=[(inline_svg(p), f.left_out) for p, f in zip(plots, found, strict=True)],
        panels=panels(table, figures),
        shows=bool(table.targets),
        height=height,
        width=width,
        label_attacks=Sheet(LABEL_ATTACKS, of_labels),
        attacks=Sheet(ATTACKS, attacks),
        limits=LIMITS,
        made=[("budget", spent(table)), ("numbers", effort(table)), *table.made.items()],
    )
    write_atomically(out / REPORT, page)
    return out / REPORT


def _run_link(out: Path) -> str:
    """The report of the run that an audit lies in, relative to the audit; empty if in none."""
    run = out.absolute().parent
    is_inside = out.name == AUDIT and any((run / name).is_file() for name in (SUMMARY, REPORT))
    return f"../{REPORT}" if is_inside else ""


def _subtitle(table: LeakTable) -> list[str]:
    height, width = table.image_size
    return [
        f"Leak audit of {counted(len(table.arms), 'arm')}",
        f"{table.source}, {table.num_targets} images of {height} x {width} attacked",
        f"blocks of {table.block_size} x {table.block_size}",
        f"took {duration(table.seconds)}",
        spent(table),
    ]


def _percent(part: float | None) -> str:
    return fixed(None if part is None else 100 * part, 1)


def _excess(found: Finding) -> str:
    return MISSING if found.excess is None else f"{found.excess:+.3f}"


def _key(found: Finding) -> str:
    return MISSING if found.key_recovered is None else share(found.key_recovered)
