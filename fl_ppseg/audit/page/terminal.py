"""The leak matrix for the terminal and as plain text for logs."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape

from fl_ppseg.leaks.cells import Cell, thumbnail
from fl_ppseg.leaks.findings import label_maps
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import ADVERSARIES, Adversary, ArmLeaks, LeakTable
from fl_ppseg.leaks.words import NAMES, holds, network, share, spent, sums
from fl_ppseg.report.rows import MISSING, fixed
from fl_ppseg.report.sheets import Column, Sheet
from fl_ppseg.report.tables import bare_table, sheet_text

NAME: Final = 14
"""Characters in which a key's share fits beside a score, and most names fold into two lines."""
LEAST_NAME: Final = 11
"""Characters of the longest word that names an adversary or an attack."""
LEAST_ARM: Final = 17
"""Characters of the three scores to compare with, side by side."""
SEGMENTS: Final = "segm. "
"""Before the mIoU of an arm's own weights, which stands among scores of SSIM."""
SEGM: Final = (
    "mIoU of the arm's own weights on its ciphertexts, without an attack: trained, and the public "
    "ones of round 0"
)
BETWEEN: Final = " · "
"""Between a score and the attack that reached it; a line's end in the terminal."""


@dataclass(frozen=True)
class LeakMatrix:
    """The leak matrix as a console prints it: one row per arm, one column per adversary."""

    table: LeakTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fold names if the console is narrow, never numbers."""
        rows = _rows(leak_sheet(self.table))
        widths = _widths(rows, options.max_width)
        shown = bare_table(_ends(self.table), padding=0)
        shown.title, shown.title_style = escape("\n".join(_title(self.table))), "bold"
        headings, *cells = [
            [escape(_folded(text, width)) for text, width in zip(texts, widths, strict=True)]
            for texts in rows
        ]
        for heading, width in zip(headings, widths, strict=True):
            shown.add_column(heading, width=width, no_wrap=True)
        for texts in cells:
            shown.add_row(*texts)
        yield shown


def leak_table_text(table: LeakTable) -> LeakMatrix:
    """What a console prints at the end of an audit."""
    return LeakMatrix(table)


def leak_table_plain(table: LeakTable) -> str:
    """The same as aligned plain text, for logs and files."""
    *warning, what, scale = _title(table)
    return "\n".join([*warning, f"{what}; {scale}", sheet_text(leak_sheet(table), _ends(table))])


def leak_sheet(table: LeakTable) -> Sheet[ArmLeaks]:
    """One row per arm: the ciphertext itself, thumbnail, survivor network, and each adversary."""
    return Sheet((*BASES, *(_adversary(name, table) for name in ADVERSARIES)), table.arms)


BASES: Final[tuple[Column[ArmLeaks], ...]] = (
    Column("arm", "One setting of the run.", lambda arm: arm.arm),
    Column(
        "as is",
        "The ciphertext, scored as if it were the image.",
        lambda arm: _ssim(arm.ciphertext),
    ),
    Column("thumb", "Block means of the ciphertext.", lambda arm: _ssim(thumbnail(arm))),
    Column(
        "surv.", "The best survivor network found: a lower bound.", lambda arm: _ssim(arm.survivors)
    ),
    Column(
        "segments",
        "mIoU of the arm's own weights on its ciphertexts.",
        lambda arm: f"{SEGMENTS}{fixed(arm.direct.miou, 1)} {fixed(arm.direct.start, 1)}",
    ),
)


def _adversary(adversary: Adversary, table: LeakTable) -> Column[ArmLeaks]:
    return Column(
        NAMES[adversary], holds(adversary, table), lambda arm: _text(Cell(arm, adversary))
    )


def _text(cell: Cell) -> str:
    """The score, its excess, how much of the key was found, and the name of the attack."""
    best = cell.best
    key = "" if cell.key is None else f" key {share(cell.key).replace(' ', '')}"
    if best is None or best.excess is None:
        return f"{MISSING}{key}"
    return f"{_ssim(best.scores)} {best.excess:+.2f}{key}{BETWEEN}{best.attack}"


def _title(table: LeakTable) -> list[str]:
    """Its lines, which a console of 80 characters need not fold."""
    warning = [] if table.budget == "full" else [spent(table).upper()]
    return [
        *warning,
        "SSIM of each adversary's best attack, with its excess above the answer alone",
        f"1 is the image itself, {table.nothing.ssim:.3f} a blind guess, "
        f"{table.answer.ssim:.3f} the answer alone",
    ]


def _ends(table: LeakTable) -> str:
    """Scores of a blind guess and of the images themselves, and how the numbers were made."""
    how = ", ".join(f"{name} {value}" for name, value in table.made.items())
    surv, segm = f"surv.: {network(table)}", f"segm.: {SEGM}"
    told = (_scale(table), surv, segm, *label_maps(table), sums(table), spent(table), how)
    return "; ".join(filter(None, (each.removesuffix(".") for each in told)))


def _scale(table: LeakTable) -> str:
    blind, answer, plain = table.nothing.miou, table.answer.miou, table.plain_miou
    if plain is None:
        return f"{table.num_targets} images; no mIoU, for the segmenter has other classes"
    return (
        f"{table.num_targets} images; mIoU of a segmenter: {fixed(blind, 1)} on a blind guess, "
        f"{fixed(plain, 1)} on the images themselves, {fixed(answer, 1)} on what the answer alone "
        "restores (a network of the same budget that sees the true label map and nothing else)"
    )


def _rows(sheet: Sheet[ArmLeaks]) -> list[tuple[str, ...]]:
    """Headings and cells; the scores to compare with stand under the arm's name."""
    rows = [tuple(column.heading for column in sheet.columns), *sheet.cells]
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    num = len(BASES)
    return [(_under(texts[:num], widths), *texts[num:]) for texts in rows]


def _under(texts: Sequence[str], widths: Sequence[int]) -> str:
    name, *compared, segments = texts
    scores = " ".join(map(str.ljust, compared, widths[1:]))
    return BETWEEN.join((name, scores, segments))


def _widths(rows: Sequence[Sequence[str]], line: int) -> list[int]:
    """Of an arm's name and of the adversaries; a space after each, one before all."""
    num, room = len(ADVERSARIES), line - 2
    width = min(NAME, max(LEAST_NAME, (room - LEAST_ARM) // num - 1))
    longest = max(len(part) for name, *_ in rows for part in name.split(BETWEEN))
    return [min(longest, room - num * (width + 1)), *[width] * num]


class _Names(textwrap.TextWrapper):
    """Breaks compound names as `closed-form` and `imprint+network` where they are joined."""

    wordsep_re = re.compile(r"(\s+|(?<=\w[-+])(?=\w))")


def _folded(text: str, width: int) -> str:
    """One line per part; one longer than `width` breaks after a space, a hyphen or a plus."""
    return "\n".join(_Names(width).fill(part) for part in text.split(BETWEEN))


def _ssim(scores: Scores | None) -> str:
    return fixed(None if scores is None else scores.ssim, 3)
