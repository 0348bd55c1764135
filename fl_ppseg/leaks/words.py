"""What each adversary holds, and what its scores mean, in plain sentences."""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from fl_ppseg.leaks.cells import Cell
from fl_ppseg.leaks.scores import BEST_PSNR, Scores
from fl_ppseg.leaks.table import SHIPPED_STEPS, Adversary, Budget, Finding, LeakTable

NAMES: Final[Mapping[Adversary, str]] = {
    "ciphertext-thief": "thief of ciphertexts",
    "known-plaintext": "thief with a known image",
    "node-thief": "thief of a node",
    "coordinator": "coordinator",
    "active-coordinator": "active coordinator",
}
HOLDS: Final[Mapping[Adversary, str]] = {
    "ciphertext-thief": "Holds one client's encrypted images and no key. The cipher, its settings, "
    "the starting weights and street images of others are public.",
    "known-plaintext": "Holds what the thief of ciphertexts holds, and one or two of these images "
    "as they were before encryption.",
    "node-thief": "Holds all that lies on a training node: the encrypted images, their label maps "
    "(in place, or in the order of the encrypted pixels if labels are encrypted), the model, and "
    "the private embedding where the arm has one.",
    "coordinator": "Holds the weights that it sent, one client's reply to them, and what is "
    "public. It has no ciphertext. Its figure allows it its best case: a client that trains one "
    "step on one image.",
    "active-coordinator": "Holds what the coordinator holds, but instead of the averaged weights "
    "it sends crafted weights, under which updates reveal images or label maps, and the counts of "
    "evaluations reveal label maps. Settings, model and number of requests stay those that the "
    "owner agreed to.",
}
HOLDS_SUM: Final = (
    "Holds the weights that it sent, the sum of {num} clients' updates, and what is public: with "
    "secure aggregation it has no single update. It has no ciphertext. Its figure allows it its "
    "best case: clients that train one step on one image each."
)
SUMS: Final = (
    "Updates were attacked as secure aggregation shows them: the sum of {num} clients' updates, "
    "the same clients in every round, each guess compared with the images of one. Evaluations "
    "are not added up"
)
SPENT: Final[Mapping[Budget, str]] = {
    "full": "full audit",
    "quick": "quick audit, weaker attacks",
    "other": "audit with other numbers than the full one",
}
WEAKER: Final[Mapping[Budget, str]] = {
    "full": "",
    "quick": "Quick audit: the attacks were weaker than they can be, and may show much less than "
    "the full audit does (0.47 in place of 0.90, in one case). Run it without --quick before you "
    "rely on a number here.",
    "other": "The attacks were given other numbers of images, rounds, steps or requests than in "
    "the full audit, so its figures may be higher.",
}
OUTLINES: Final = "The label maps show the outlines of everything labelled, without an attack."
NO_BETTER: Final = 0.02
"""A difference of SSIM up to which a guess is not better than a blind one."""
LAYOUT: Final = 0.2
"""Share of a blind guess's missing correlation of block means that a reconstruction must gain to
show the layout of this street and not of any."""
THUMBNAIL_LIKE: Final = 0.8
"""Correlation of block means from which a guess is a thumbnail."""
BRIGHTNESS_LIKE: Final = 0.4
"""Correlation of block means from which a reconstruction shows light and dark."""


class Sight(NamedTuple):
    """How much of a street a guess shows: what shows more is larger."""

    rank: int
    short: str
    sentence: str


ITSELF: Final = Sight(8, "the image itself", "Everything: the image, to the bit.")
WHOLE: Final = Sight(7, "the whole image", "Everything, as sharp as the image itself.")
ALMOST: Final = Sight(6, "almost all", "Almost everything; only the finest detail is off.")
SOFT: Final = Sight(
    5, "a softened scene", "The scene with most of its shapes; fine detail is lost."
)
LARGE: Final = Sight(4, "large shapes", "The large shapes of the scene; small things are lost.")
BRIGHTNESS: Final = Sight(2, "light and dark", "Roughly where it is light and where it is dark.")
TRACES: Final = Sight(1, "traces", "Traces: a hint of the street at most.")
BLIND: Final = Sight(0, "a blind guess", "No more than a guess that has seen other streets only.")
SHARP: Final = ((0.98, WHOLE), (0.9, ALMOST), (0.7, SOFT), (0.45, LARGE))
"""Least SSIM of each."""


def sight(scores: Scores, table: LeakTable) -> Sight:
    """What a guess of these scores shows, never more than they say.

    High scores are told by SSIM. Below 0.5 it tells little, and the correlation of block means
    decides, where it is better than that of a network that saw nothing of the target.

    Args:
        scores: Of the guess.
        table: The audit, for the blind guess and the size of a thumbnail.
    """
    if scores.psnr >= BEST_PSNR:
        return ITSELF
    for least, seen in SHARP:
        if scores.ssim >= least:
            return seen
    blind = table.nothing
    has_layout = 1 - scores.correlation <= (1 - LAYOUT) * (1 - blind.correlation)
    if has_layout and scores.correlation >= THUMBNAIL_LIKE:
        height, width = (side // table.block_size for side in table.image_size)
        size = f"{height} x {width}"
        return Sight(3, "a thumbnail", f"Little but a thumbnail: the street as {size} patches.")
    if has_layout and scores.correlation >= BRIGHTNESS_LIKE:
        return BRIGHTNESS
    return TRACES if has_layout or scores.ssim > blind.ssim + NO_BETTER else BLIND


def above(found: Finding, decimals: int = 2) -> str:
    """What a finding has above the answer alone; empty where it has no picture.

    >>> above(Finding("x", "node-thief", Scores(0.52, 20.0, 0.9), "", 1.0, excess=0.0712))
    'excess +0.07'
    """
    return "" if found.excess is None else f"excess {found.excess:+.{decimals}f}"


def holds(adversary: Adversary, table: LeakTable) -> str:
    """What an adversary holds, in a few sentences."""
    if adversary == "coordinator" and table.summed > 1:
        return HOLDS_SUM.format(num=table.summed)
    return HOLDS[adversary]


def sums(table: LeakTable) -> str:
    """That updates were attacked in sums; empty where they were attacked one by one."""
    return SUMS.format(num=table.summed) if table.summed > 1 else ""


def one(adversary: Adversary) -> str:
    """An adversary with its article.

    >>> one("active-coordinator")
    'an active coordinator'
    """
    name = NAMES[adversary]
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def spent(table: LeakTable) -> str:
    """Name of the audit's effort."""
    return SPENT[table.budget]


def effort(table: LeakTable) -> str:
    """The numbers behind the budget, in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in table.effort.items())


def network(table: LeakTable) -> str:
    """What the survivor network is, with its budget.

    Where the audit does not say what it spent, neither do the words.
    """
    names = ("num_public", "network_steps")
    if any(name not in table.effort for name in names):
        return "best survivor network found: a lower bound of what leaks"
    images, steps = (table.effort[name] for name in names)
    before = table.effort.get(SHIPPED_STEPS, 0)
    after = f" after the {before} of the network that ships" if before else ""
    return (
        f"best survivor network found with {images} public images at most and {steps} steps"
        f"{after}: a lower bound of what leaks"
    )


def told(cell: Cell, table: LeakTable) -> str:
    """What an adversary sees of an arm's streets, in sentences."""
    if not cell.reached:
        return "Not attacked."
    outlines = [OUTLINES] if cell.adversary == "node-thief" and cell.arm.has_label_maps else []
    return " ".join([_seen(cell, table), *_key(cell), *outlines])


def share(part: float) -> str:
    """A part of the whole in percent, rounded down.

    >>> share(0.999)
    '99 %'
    """
    return f"{math.floor(100 * part + 1e-9)} %"


def _seen(cell: Cell, table: LeakTable) -> str:
    best = cell.best
    if best is None or best.scores is None:
        return "No attack gave a picture."
    seen = sight(best.scores, table).sentence
    if best.adversary == cell.adversary:
        return seen
    return f"{seen} As much as {one(best.adversary)} gets."


def _key(cell: Cell) -> list[str]:
    """How much of the key was found, never rounded up; nothing where no attack looked for it."""
    if cell.key is None:
        return []
    found = "the whole key" if cell.key >= 1 else f"{share(cell.key)} of the key"
    return [f"The attacks found {found}."]
