"""An audit in a few fixed sentences with its numbers in them: a headline, the scale, the most that
each adversary got, what weights segment of ciphertexts, and what was read of label maps."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from fl_ppseg.leaks.cells import column, is_encrypted
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import ADVERSARIES, Adversary, ArmLeaks, LabelFinding, LeakTable, Maps
from fl_ppseg.leaks.words import ALMOST, OUTLINES, WEAKER, Sight, above, one, sight, sums
from fl_ppseg.system.wording import sentence

NOT_ATTACKED: Final = "No encrypted arm was attacked"
NO_PICTURE: Final = "No attack on an encrypted arm returned a picture"
GIVEN_AWAY: Final = "{num} of {all} encrypted arms gave the image or almost all of it away"
AT_MOST: Final = "No attack on an encrypted arm got more than {short} (SSIM\u00a0{ssim:.2f})"
GETS: Final = "{who} gets {short} at most (SSIM\u00a0{ssim:.2f}, of {arm}; {excess})"
GETS_NONE: Final = "{who} gets no picture of an encrypted arm"
KEYS: Final = "the whole key of {arms}"
READ: Final = (
    "An active coordinator that asks with {model} reads {right} of the labelled pixels of {images} "
    "{maps} label maps right, {certain} of them without doubt, by {requests} {asked} of an arm "
    "({answered} of {all} arms answer); the most frequent class of each place has {without} right "
    "without any request."
)
UNREAD: Final = (
    "An active coordinator that asks with {model} reads nothing of {maps} label maps: nodes answer "
    "no such request{why}."
)
_NUMBER: Final = re.compile(r"\d[\d.]*(e[+-]?\d+)?")
ASKED: Final[dict[Maps, str]] = {"held-out": "evaluations", "training": "updates"}
"""What the node was asked for."""
DIRECT: Final = (
    "Whoever holds a ciphertext and {weights} segments it without restoring anything: {miou:.1f} "
    "mIoU of {arm}{beside}."
)
BESIDE: Final = "; on the best that a thief of ciphertexts restores, a segmenter has {miou:.1f}"
TRAINED: Final = "the trained weights"
PUBLIC: Final = "the public weights of round 0"
SCALE: Final = (
    "SSIM is 1 for the image itself and {blind:.3f} for a blind guess: that of a network that "
    "knows streets and saw nothing of these."
)
ANSWER: Final = (
    "The answer alone has {answer:.3f}: that of a network of the same budget that sees the true "
    "label map and nothing else, as of a published segmentation. Excess is what an attack has "
    "above it, on the same images."
)
SEGMENTER: Final = "A segmenter reaches {plain:.1f} mIoU on the images themselves{guess}."


def headline(table: LeakTable) -> str:
    """How many encrypted arms gave an image away to any attack; if none, the most that one gave.

    An audit that tried less hard than the full one says so first.
    """
    found = _headline(table)
    if table.budget == "full":
        return found
    return f"{table.budget.capitalize()} budget: {found[:1].lower()}{found[1:]}"


def _headline(table: LeakTable) -> str:
    arms = [arm for arm in table.arms if arm.findings and is_encrypted(arm)]
    if not arms:
        return NOT_ATTACKED

    def shown(scores: Scores) -> tuple[Sight, float]:
        return sight(scores, table), scores.ssim

    pictures = [[found.scores for found in arm.findings if found.scores] for arm in arms]
    clearest = [max(each, key=shown) for each in pictures if each]
    if not clearest:
        return NO_PICTURE
    if num := sum(sight(each, table) >= ALMOST for each in clearest):
        return GIVEN_AWAY.format(num=num, all=len(arms))
    most = max(clearest, key=shown)
    return AT_MOST.format(short=sight(most, table).short, ssim=most.ssim)


def findings(table: LeakTable) -> tuple[str, ...]:
    """How hard the audit tried, the scale, the most that each adversary got of an encrypted arm,
    what weights segment of ciphertexts, what was read of label maps, and what a search for keys
    found."""
    told = [WEAKER[table.budget], scale(table), *(gets(who, table) for who in ADVERSARIES)]
    told += direct(table)
    if any(arm.has_label_maps for arm in table.arms):
        told.append(OUTLINES)
    told += [*label_maps(table), sentence(sums(table))]
    if table.key_search:
        told.append(f"Searched for keys: {table.key_search}.")
    return tuple(filter(None, told))


def gets(adversary: Adversary, table: LeakTable) -> str:
    """The most that an adversary got of an encrypted arm, and whose keys; empty where it attacked
    none."""
    cells = [cell for cell in column(table, adversary) if is_encrypted(cell.arm)]
    if not cells:
        return ""
    who, keys = one(adversary), [cell.arm.arm for cell in cells if (cell.key or 0) >= 1]
    bests = [(best, cell) for cell in cells if (best := cell.best) is not None]
    scored = [(s, best, cell) for best, cell in bests if (s := best.scores) is not None]
    said = GETS_NONE.format(who=who)
    if scored:
        scores, best, cell = max(scored, key=lambda each: each[0].ssim)
        short, arm = sight(scores, table).short, cell.arm.arm
        said = GETS.format(who=who, short=short, ssim=scores.ssim, arm=arm, excess=above(best))
    return sentence(f"{said}; {KEYS.format(arms=', '.join(keys))}" if keys else said)


def direct(table: LeakTable) -> tuple[str, ...]:
    """The most that trained and public weights segment of ciphertexts of an encrypted arm; nothing
    where it was measured of none."""
    arms = [arm for arm in table.arms if is_encrypted(arm)]
    trained = [(arm.direct.miou, arm) for arm in arms]
    public = [(arm.direct.start, arm) for arm in arms]
    return tuple(filter(None, (_direct(TRAINED, trained), _direct(PUBLIC, public))))


def _direct(weights: str, found: Sequence[tuple[float | None, ArmLeaks]]) -> str:
    known = [(miou, arm) for miou, arm in found if miou is not None]
    if not known:
        return ""
    miou, arm = max(known, key=lambda pair: pair[0])
    best = arm.best("ciphertext-thief")
    restored = None if best is None or best.scores is None else best.scores.miou
    beside = "" if restored is None else BESIDE.format(miou=restored)
    return DIRECT.format(weights=weights, miou=miou, arm=arm.arm, beside=beside)


def label_maps(table: LeakTable) -> tuple[str, ...]:
    """What a coordinator reads of label maps, a sentence for each kind of them and model."""
    return tuple(_of_label_maps(table))


def _of_label_maps(table: LeakTable) -> Iterator[str]:
    told = [found for arm in table.arms for found in arm.labels]
    for maps, model in dict.fromkeys((found.maps, found.model) for found in told):
        found = [each for each in told if (each.maps, each.model) == (maps, model)]
        answered = [each for each in found if each.right is not None]
        yield _read(answered, len(found)) if answered else _unread(found)


def _read(answered: Sequence[LabelFinding], num_asked: int) -> str:
    best = max(answered, key=lambda each: each.right or 0.0)
    return READ.format(
        model=best.model,
        right=_percent(best.right or 0.0),
        images=best.num_images,
        maps=best.maps,
        certain=_percent(best.certain),
        requests=best.num_requests,
        asked=ASKED[best.maps],
        answered=len(answered),
        all=num_asked,
        without=_percent(best.without),
    )


def _unread(found: Sequence[LabelFinding]) -> str:
    # nodes of several arms refuse with other numbers in the same words: the first says it
    alike = {_NUMBER.sub("#", each.note): each.note for each in reversed(found) if each.note}
    reasons = "; ".join(reversed(alike.values()))
    why = f" ({reasons})" if reasons else ""
    return UNREAD.format(model=found[0].model, maps=found[0].maps, why=why)


def _percent(part: float) -> str:
    return f"{100 * part:.1f}\u00a0%"


def scale(table: LeakTable) -> str:
    """What the ends of the scale are."""
    blind, plain = table.nothing, table.plain_miou
    text = f"{SCALE.format(blind=blind.ssim)} {ANSWER.format(answer=table.answer.ssim)}"
    if plain is None:
        return text
    ends = ((blind, "the blind guess"), (table.answer, "what the answer alone restores"))
    known = [f"and {scores.miou:.1f} on {what}" for scores, what in ends if scores.miou is not None]
    guess = f" {', '.join(known)}" if known else ""
    return f"{text} {SEGMENTER.format(plain=plain, guess=guess)}"
