"""The same street plain, encrypted, and as each adversary reconstructs it, arm by arm."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fl_ppseg.leaks.cells import Cell, finding, is_encrypted, row
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import SURVIVORS, THUMBNAIL, ArmLeaks, LeakTable
from fl_ppseg.leaks.table import Picture as Pixels
from fl_ppseg.leaks.words import NAMES, above, told
from fl_ppseg.report.pictures import Picture, slug, written


class Guess(NamedTuple):
    """The best attack of an adversary as text, and as a picture if it may be shown."""

    adversary: str
    words: str
    detail: str
    picture: Picture | None


class Panel(NamedTuple):
    """An arm's street."""

    arm: ArmLeaks
    bases: list[Picture]
    """The target, its ciphertext, and the baselines."""
    has_it: list[str]
    """Adversaries that hold the image itself, since it is not encrypted."""
    guesses: list[Guess]


def panels(table: LeakTable, directory: Path) -> list[Panel]:
    """Text for every arm and adversary, with pictures if the target may be shown.

    Otherwise no reconstruction is shown either: a good one reveals the target. Each picture is also
    written to `directory`, under a name that begins with the budget unless it is the full one.
    """
    return [_panel(arm, table, directory) for arm in table.arms]


def scores_text(scores: Scores) -> str:
    """The scores of a reconstruction, as under a picture."""
    task = "" if scores.miou is None else f" · mIoU {scores.miou:.1f}"
    return (
        f"SSIM {scores.ssim:.3f} · PSNR {scores.psnr:.1f} dB · "
        f"correlation {scores.correlation:.2f}{task}"
    )


def _panel(arm: ArmLeaks, table: LeakTable, directory: Path) -> Panel:
    effort = "" if table.budget == "full" else f"{table.budget}_"
    name, cells = f"{effort}leak_{slug(arm.arm)}", row(arm)
    guesses = [_guess(cell, table) for cell in cells if not _needs_no_attack(cell)]
    written((guess.picture for guess in guesses if guess.picture), name, directory)
    return Panel(
        arm,
        written(_bases(arm, table), name, directory),
        [NAMES[cell.adversary] for cell in cells if _needs_no_attack(cell)],
        guesses,
    )


def _needs_no_attack(cell: Cell) -> bool:
    """Whether an adversary holds the image itself, since it is not encrypted."""
    best = cell.best
    return best is not None and best.adversary == "ciphertext-thief" and not is_encrypted(cell.arm)


def _bases(arm: ArmLeaks, table: LeakTable) -> Iterator[Picture]:
    """The target, its ciphertext, and the baselines."""
    if not table.targets:
        return
    yield Picture("plain", "plain image", table.source, _upright(table.targets[0]))
    if arm.encrypted is not None and is_encrypted(arm):
        yield _shown("encrypted", "ciphertext", arm.encrypted, arm.ciphertext)
    for caption, attack in (("thumbnail", THUMBNAIL), ("survivor network", SURVIVORS)):
        found = finding(arm, attack)
        if found is not None and found.picture is not None and found.scores is not None:
            yield _shown("base", caption, found.picture, found.scores)


def _shown(kind: str, caption: str, pixels: Pixels, scores: Scores) -> Picture:
    return Picture(kind, caption, "", _upright(pixels), scores_text(scores))


def _guess(cell: Cell, table: LeakTable) -> Guess:
    best, adversary = cell.best, NAMES[cell.adversary]
    words, detail, picture = told(cell, table), "", None
    if best is not None and best.scores is not None:
        detail = f"{best.attack}: {scores_text(best.scores)} · {above(best, 3)}"
    if table.targets and best is not None and best.picture is not None:
        picture = Picture("guess", adversary, words, _upright(best.picture), detail)
    return Guess(adversary, words, detail, picture)


def _upright(pixels: Pixels) -> Pixels:
    """(3, H, W) -> (H, W, 3)."""
    return pixels.transpose(1, 2, 0)
