"""An audit in sentences: a headline, and what each adversary gets from which arms."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fl_ppseg.leaks.cells import Cell, column, is_encrypted
from fl_ppseg.leaks.table import (
    ADVERSARIES,
    MORE_THAN,
    Adversary,
    LabelFinding,
    LeakTable,
    Maps,
)
from fl_ppseg.leaks.words import ALMOST, WEAKER, one, sight
from fl_ppseg.system.wording import sentence

NUM_NAMED: Final = 2
"""Arms that a sentence names one by one."""
ASKED: Final[Mapping[Maps, str]] = {"held-out": "evaluations", "training": "updates"}
"""What the node was asked for."""


def headline(table: LeakTable) -> str:
    """How many encrypted arms gave an image away to any attack; if none, the most that one gave.

    No longer than two lines of the page, whatever the arms are called. An audit that tried less
    hard than the full one says so first.
    """
    found = _headline(table)
    if table.budget == "full":
        return found
    return f"{table.budget.capitalize()} budget: {found[:1].lower()}{found[1:]}"


def _headline(table: LeakTable) -> str:
    arms = [arm for arm in table.arms if arm.findings and is_encrypted(arm)]
    if not arms:
        return "No encrypted arm was attacked"
    pictures = [[found.scores for found in arm.findings if found.scores] for arm in arms]
    clearest = [max(sight(each, table) for each in scores) for scores in pictures if scores]
    if not clearest:
        return "No attack on an encrypted arm returned a picture"
    num_given = sum(seen >= ALMOST for seen in clearest)
    if num_given:
        return f"{_part(num_given, len(arms))} gave the image or almost all of it away"
    return f"No attack got more than {max(clearest).short} from {_number(len(arms))}"


def findings(table: LeakTable) -> tuple[str, ...]:
    """How hard the audit tried, a sentence an adversary over the encrypted arms, what was read of
    label maps, and the scale."""
    told = (_told(adversary, table) for adversary in ADVERSARIES)
    searched = [f"Searched for keys: {table.key_search}."] if table.key_search else []
    sentences = (WEAKER[table.budget], *told, *label_maps(table), scale(table), *searched)
    return tuple(filter(None, sentences))


def label_maps(table: LeakTable) -> tuple[str, ...]:
    """What a coordinator reads of label maps, a sentence for each kind of them and model."""
    told = [found for arm in table.arms for found in arm.labels]
    kinds = dict.fromkeys((found.maps, found.model) for found in told)
    return tuple(
        _of_label_maps(maps, model, [f for f in told if (f.maps, f.model) == (maps, model)])
        for maps, model in kinds
    )


def _of_label_maps(maps: Maps, model: str, found: Sequence[LabelFinding]) -> str:
    answered = [each for each in found if each.right is not None]
    who = f"An active coordinator that asks with {model}"
    if not answered:
        reasons = dict.fromkeys(each.note for each in found if each.note)
        because = f" ({'; '.join(reasons)})" if reasons else ""
        return f"{who} reads nothing of {maps} label maps: nodes answer no such request{because}."
    best = max(answered, key=lambda each: each.right or 0.0)
    of = "" if len(answered) == len(found) else f" ({len(answered)} of {len(found)} arms answer)"
    return (
        f"{who} reads {_percent(best.right or 0.0)} of the labelled pixels of {best.num_images} "
        f"{maps} label maps right, {_percent(best.certain)} of them without doubt, by "
        f"{best.num_requests} {ASKED[maps]} of an arm{of}; the most frequent class of each place "
        f"has {_percent(best.without)} right without any request."
    )


def _percent(part: float) -> str:
    return f"{100 * part:.1f}\u00a0%"


def gets(adversary: Adversary, table: LeakTable) -> tuple[str, ...]:
    """What an adversary gets from which arms, all by name, what gives most away first."""
    return tuple(_parts(adversary, column(table, adversary), table, _names))


def scale(table: LeakTable) -> str:
    """What the ends of the scale are, in a sentence."""
    blind, plain = table.nothing, table.plain_miou
    text = (
        f"SSIM is 1 for the image itself and {blind.ssim:.3f} for a blind guess: that of a network "
        "that knows streets and saw nothing of these."
    )
    if plain is None:
        return text
    guess = "" if blind.miou is None else f" and {blind.miou:.1f} on the blind guess"
    return f"{text} A segmenter reaches {plain:.1f} mIoU on the images themselves{guess}."


def _part(num: int, of: int) -> str:
    if num < of:
        return f"{num} of {of} encrypted arms"
    return "The encrypted arm" if of == 1 else f"Each of {of} encrypted arms"


def _number(num: int) -> str:
    return "the encrypted arm" if num == 1 else f"{num} encrypted arms"


def _told(adversary: Adversary, table: LeakTable) -> str:
    """What an adversary gets, or that one that holds less gets as much."""
    parts, weaker = _of_encrypted(adversary, table), MORE_THAN.get(adversary)
    if not parts:
        return ""
    if weaker is not None and parts == _of_encrypted(weaker, table):
        return f"No attack gave {one(adversary)} more than {one(weaker)}."
    return sentence(f"{one(adversary)} gets {'; '.join(parts)}")


def _of_encrypted(adversary: Adversary, table: LeakTable) -> list[str]:
    cells = [cell for cell in column(table, adversary) if is_encrypted(cell.arm)]
    return _parts(adversary, cells, table, _named_or_counted)


def _parts(
    adversary: Adversary,
    cells: Sequence[Cell],
    table: LeakTable,
    name: Callable[[Sequence[Cell]], str],
) -> list[str]:
    """Pictures from the best to the worst, none, whole keys, and what needs no attack."""
    alike = _alike(_by_leak(cells), table)
    parts = [f"{short} from {name(same)} ({_span(same)})" for short, same in alike.items()]
    without = [cell for cell in cells if cell.best is None]
    parts += [f"no picture from {name(without)}"] if without else []
    keys = [cell for cell in cells if cell.key is not None and cell.key >= 1]
    parts += [f"the whole key of {name(keys)}"] if keys else []
    parts += ["outlines from all label maps"] if cells and adversary == "node-thief" else []
    return parts


def _alike(cells: Sequence[Cell], table: LeakTable) -> dict[str, list[Cell]]:
    """Cells by how much they show, in the order in which they come."""
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(_short(cell, table), []).append(cell)
    return alike


def _names(cells: Sequence[Cell]) -> str:
    return ", ".join(cell.arm.arm for cell in cells)


def _named_or_counted(cells: Sequence[Cell]) -> str:
    return _names(cells) if len(cells) <= NUM_NAMED else f"{len(cells)} encrypted arms"


def _by_leak(cells: Sequence[Cell]) -> list[Cell]:
    """Cells that have a picture, what gives most away first."""
    return sorted((cell for cell in cells if cell.best is not None), key=_ssim, reverse=True)


def _span(cells: Sequence[Cell]) -> str:
    """SSIM from the least to the most, of cells in falling order."""
    ends = dict.fromkeys(f"{_ssim(cell):.2f}" for cell in (cells[-1], cells[0]))
    return f"SSIM\u00a0{' to '.join(ends)}"


def _ssim(cell: Cell) -> float:
    best = cell.best
    return best.scores.ssim if best is not None and best.scores is not None else 0.0


def _short(cell: Cell, table: LeakTable) -> str:
    best = cell.best
    return "" if best is None or best.scores is None else sight(best.scores, table).short
