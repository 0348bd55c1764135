"""The same street as it is, encrypted, and as each adversary restores it, arm by arm."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fl_ppseg.leaks.cells import Cell, finding, is_encrypted, row
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import SURVIVORS, THUMBNAIL, ArmLeaks, LeakTable
from fl_ppseg.leaks.table import Picture as Pixels
from fl_ppseg.leaks.words import NAMES, told
from fl_ppseg.report.inline import swatch
from fl_ppseg.report.markup import text
from fl_ppseg.report.pictures import Picture, figure, slug, strip
from fl_ppseg.report.rows import MISSING
from fl_ppseg.report.styles import ArmStyle
from fl_ppseg.system.wording import sentence

IN_THE_CLEAR: Final = "Nothing is encrypted; these have the image itself, without an attack: "


def panels_html(table: LeakTable, styles: Mapping[str, ArmStyle], directory: Path) -> str:
    """Words for every arm and adversary, with pictures where the target may be shown.

    Without it no guess is shown either: a good one is as telling as the target. Each picture is
    also written to `directory`.
    """
    return "".join(_panel(arm, table, styles.get(arm.arm), directory) for arm in table.arms)


def scores_text(scores: Scores) -> str:
    """The scores of a guess, as they stand under a picture."""
    task = "" if scores.miou is None else f" · mIoU {scores.miou:.1f}"
    return (
        f"SSIM {scores.ssim:.3f} · PSNR {scores.psnr:.1f} dB · "
        f"correlation {scores.correlation:.2f}{task}"
    )


def _panel(arm: ArmLeaks, table: LeakTable, style: ArmStyle | None, directory: Path) -> str:
    name, cells = f"leak_{slug(arm.arm)}", row(arm)
    has_it = [NAMES[cell.adversary] for cell in cells if _needs_no_attack(cell)]
    bases = [figure(picture, name, directory) for picture in _bases(arm, table)]
    guesses = [_guess(cell, table, name, directory) for cell in cells if not _needs_no_attack(cell)]
    strips = [[*bases, *guesses]] if has_it else [bases, guesses]
    words = f"<p>{text(sentence(IN_THE_CLEAR + ', '.join(has_it)))}</p>" if has_it else ""
    return (
        f'<div class="scene street"><h3>{swatch(style)}{text(arm.arm)}</h3>'
        f'<p class="note">{text(sentence(arm.note))} {text(sentence(arm.protection))}</p>'
        f"{words}{''.join(strip(figures) for figures in strips if figures)}</div>"
    )


def _needs_no_attack(cell: Cell) -> bool:
    """Whether an adversary holds the image itself, for nobody encrypted it."""
    best = cell.best
    return best is not None and best.adversary == "ciphertext-thief" and not is_encrypted(cell.arm)


def _bases(arm: ArmLeaks, table: LeakTable) -> Iterator[Picture]:
    """The target, its ciphertext, and what the guesses are measured against."""
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


def _guess(cell: Cell, table: LeakTable, name: str, directory: Path) -> str:
    """The best attack of an adversary, in words and where it may be as a picture."""
    best, adversary = cell.best, NAMES[cell.adversary]
    words, detail = told(cell, table), ""
    if best is not None and best.scores is not None:
        detail = f"{best.attack}: {scores_text(best.scores)}"
    if table.targets and best is not None and best.picture is not None:
        shown = Picture("guess", adversary, words, _upright(best.picture), detail)
        return figure(shown, name, directory)
    height, width = table.image_size
    blank = f'<div class="blank" style="aspect-ratio:{width}/{height}">{MISSING}</div>'
    return (
        f'<figure class="guess">{blank if table.targets else ""}<figcaption><b>{text(adversary)}'
        f"</b> <span>{text(words)}</span><small>{text(detail)}</small></figcaption></figure>"
    )


def _upright(pixels: Pixels) -> Pixels:
    """(3, H, W) -> (H, W, 3)."""
    return pixels.transpose(1, 2, 0)
