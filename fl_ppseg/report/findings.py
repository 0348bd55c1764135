"""What the numbers say in a few fixed sentences, never more than they say."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.report.arms import ArmText, arm_texts
from fl_ppseg.report.audited import Audited
from fl_ppseg.report.rows import PLAIN, ArmRow, KeyRow, arm_rows, fixed, key_rows, no_image_row
from fl_ppseg.system.wording import sentence

WEAK_MIOU: Final = 20.0  # percent; below it a ratio to plain says little
NEAR_TIE: Final = 1.0  # points of mIoU below which one seed tells nothing

NO_SCORE: Final = "No arm of this run reached a score"
UNKNOWN: Final = "its settings are not known"
UNENCRYPTED: Final = "its training images are not encrypted"
COMMON: Final = (
    "its ciphertexts are broken: one permutation common to all blocks is found from them"
)
LEAVES: Final = "of each block its ciphertexts leave {leaves}"
NO_ATTACK: Final = "no attack was run"
NOT_KNOWN: Final = ", so what else it gives away is not known"

NO_PLAIN: Final = "Without a finished plain arm this run cannot tell what encryption costs."
FAILED: Final = "Without a score: {arms}."
TAUGHT: Final = "Training took plain from {start} to {end} mIoU, a gain of {gain}."
TAUGHT_NOTHING: Final = (
    "This run taught the model nothing: plain ends at {end} mIoU and started at {start}, a gain of "
    "{gain}, no more than chance makes; the scores are those of starting weights."
)
WEAK: Final = "Plain training itself reaches only {end} mIoU: ratios say little."
PRIOR: Final = (
    "The commonest class of each pixel, without a look at any image, scores {miou} mIoU ({aacc} "
    "aAcc); plain training is {above:.1f} points above that."
)
PRIOR_ALONE: Final = (
    "The commonest class of each pixel, without a look at any image, scores {miou} mIoU ({aacc} "
    "aAcc)."
)
NOT_ABOVE: Final = (
    "The commonest class of each pixel, without a look at any image, scores {miou} mIoU ({aacc} "
    "aAcc); plain training is not above that, so no arm shows that it sees anything."
)
FLOOR: Final = "Always answering the commonest class would score {floor:.1f} mIoU."
OWNERS_ANSWER: Final = (
    "{arm}: nodes score each pixel of a ciphertext; the owner of an image, who puts the answer in "
    "place and adds the decoder's scores, gets {miou:.1f} mIoU with the newest weights. Intervals "
    "over val images and places are of that."
)
ONE_SEED: Final = "One seed: differences of a few points may be chance."
UNDECIDED: Final = (
    "No difference from plain is shown where the 95 % interval of the ratio holds 1, or without "
    f"one where a single seed is less than {NEAR_TIE} points off: {{arms}}."
)
KEYS: Final = (
    "Queries to arms with a shared key get at most {wrong} mIoU with a wrong key and {none} with "
    "no key, at least {right} with the right one."
)


class Headline(NamedTuple):
    """The first two lines of a report."""

    reaches: str
    protects: str
    """What the arm of the first line protects; empty where that claims nothing."""


def headline(summary: RunSummary, config: Config, audited: Audited | None = None) -> Headline:
    """What the best arm reaches and protects, or why the run does not show what encryption costs.

    Arms whose ciphertexts are not broken come first, of these arms whose keys nobody shares: they
    are what the program is for. Percentages are rounded down, so none is claimed too high.
    """
    rows = arm_rows(summary)
    best = best_arm(summary, config, audited)
    if best is None:
        return Headline(NO_SCORE, "")
    plain = _plain(rows)
    if plain is not None and (why := _tells_nothing(plain, no_image_row(summary))):
        return Headline(f"What encryption costs is not shown: {why}", "")
    text = arm_texts([best.arm], config)[best.arm]
    protects = protection(best.arm, text, audited)
    limit = NOT_KNOWN if protects.endswith(NO_ATTACK) else ""
    return Headline(_reached(best, plain), sentence(f"{protects}{limit}"))


def best_arm(summary: RunSummary, config: Config, audited: Audited | None = None) -> ArmRow | None:
    """The arm that the headline is about; None where none has a score."""
    rows = [row for row in arm_rows(summary) if not row.failed]
    texts = arm_texts([row.arm for row in rows], config)

    def rank(row: ArmRow) -> tuple[bool, bool, bool, bool, float, float]:
        text = texts[row.arm]
        is_whole = text.encrypted and not is_broken(row.arm, text, audited)
        is_compared = row.ratio is not None
        return text.encrypted, is_whole, is_compared, not text.shared, row.ratio or 0.0, _miou(row)

    return max(rows, key=rank, default=None)


def is_broken(arm: str, text: ArmText, audited: Audited | None) -> bool:
    """Whether an arm's images come back from its ciphertexts alone: by its settings, or by what an
    attack got."""
    return text.common or (audited is not None and audited.is_broken(arm))


def protection(arm: str, text: ArmText, audited: Audited | None) -> str:
    """What an arm protects: what its ciphertexts leave, and what attacks got, if any was run."""
    got = None if audited is None else audited.most(arm)
    if not text.settings:
        return UNKNOWN if got is None else f"{UNKNOWN}; {got}"
    if not text.encrypted:
        return UNENCRYPTED if got is None else f"{UNENCRYPTED}; {got}"
    if text.common:
        return COMMON if got is None else f"{COMMON}; {got}"
    return f"{LEAVES.format(leaves=text.leaves)}; {NO_ATTACK if got is None else got}"


def cautions(summary: RunSummary, config: Config, floor: float | None = None) -> tuple[str, ...]:
    """What limits the numbers, a sentence each.

    Args:
        summary: Of the run.
        config: Of the run.
        floor: mIoU in percent of always answering the commonest class; None if unknown. Told where
            the summary has no answer without an image.
    """
    rows = arm_rows(summary)
    plain, finished = _plain(rows), [row for row in rows if not row.failed]
    told = [*_of_training(plain), *_without_image(no_image_row(summary), plain, floor)]
    if plain is None and finished:
        told.insert(0, NO_PLAIN)
    if any(row.num_seeds == 1 for row in finished):
        told.append(ONE_SEED)
    if plain is not None and (undecided := [r.arm for r in finished if _is_chance(r, plain)]):
        told.append(UNDECIDED.format(arms=", ".join(undecided)))
    told += owners_answers(summary, config)
    if failed := [row.arm for row in rows if row.failed]:
        told.append(FAILED.format(arms=", ".join(failed)))
    return (*told, *_of_keys(key_rows(summary)))


def owners_answers(summary: RunSummary, config: Config) -> Iterator[str]:
    """Of arms with encrypted labels what is scored by whom."""
    arms = arms_of(config)
    for name, own in summary.arms.items():
        if name in arms and arms[name].labels == "encrypted" and own.newest_mIoU is not None:
            yield OWNERS_ANSWER.format(arm=name, miou=own.newest_mIoU)


def _plain(rows: Sequence[ArmRow]) -> ArmRow | None:
    return next((row for row in rows if row.arm == PLAIN and not row.failed), None)


def _tells_nothing(plain: ArmRow, prior: ArmRow | None) -> str | None:
    """Why ratios to this plain arm say nothing; None where they do."""
    if _has_taught(plain) is False:
        return "this run taught the model nothing"
    if prior is not None and not prior.failed and _miou(plain) <= _miou(prior):
        return "plain training is not above what is scored without a look at any image"
    if _miou(plain) < WEAK_MIOU:
        return f"plain training itself reaches only {_miou(plain):.1f} mIoU"
    return None


def _reached(row: ArmRow, plain: ArmRow | None) -> str:
    seeds = " (one seed)" if row.num_seeds == 1 else ""
    if plain is None or row.arm == PLAIN or row.ratio is None:
        return f"{row.arm} reaches {_miou(row):.1f} mIoU on unseen clients{seeds}"
    above = "" if row.above is None else f", {_percent(row.above)} of it above no image"
    share = f"{_percent(row.ratio)} of plain's mIoU on unseen clients{above}{seeds}"
    if _is_chance(row, plain):
        return f"{row.arm} reaches {share}: no difference is shown"
    return f"{row.arm} {'reaches' if row.ratio >= 1 else 'keeps'} {share}"


def _percent(share: float) -> str:
    """A share in percent, rounded down."""
    return f"{math.floor(100 * share + 1e-9)}\u00a0%"


def _is_chance(row: ArmRow, plain: ArmRow) -> bool:
    """Whether an arm's distance from plain may be chance."""
    if row.arm == PLAIN:
        return False
    known = sure(row, "ratio")
    if known:
        return any(low <= 1 <= high for low, high in known.values())
    return row.num_seeds == 1 and abs(_miou(row) - _miou(plain)) < NEAR_TIE


def sure(row: ArmRow, name: str) -> dict[str, tuple[float, float]]:
    """The intervals of a score over seeds and over images; those over few places are rough."""
    rows = (entry for entry in row.intervals if entry.kind != "places")
    return {each.kind: ends for each in rows if (ends := getattr(each, name)) is not None}


def _has_taught(plain: ArmRow) -> bool | None:
    """Whether training added more to plain's start than chance may; None where nobody scored that.

    Chance it is where a 95 % interval of the gain, over seeds or val images, reaches below 0, and
    always where the gain is below `NEAR_TIE` points.
    """
    gain = plain.gain.mean
    if gain is None:
        return None
    return gain >= NEAR_TIE and all(low > 0 for low, _ in sure(plain, "gain").values())


def _of_training(plain: ArmRow | None) -> Iterator[str]:
    if plain is None:
        return
    has_taught, end = _has_taught(plain), plain.mIoU.text()
    if has_taught is not None:
        sentence = TAUGHT if has_taught else TAUGHT_NOTHING
        yield sentence.format(start=fixed(plain.start, 1), end=end, gain=_gain(plain))
    if _miou(plain) < WEAK_MIOU:
        yield WEAK.format(end=end)


def _gain(plain: ArmRow) -> str:
    """The gain with its intervals; those over images are of the newest weights."""
    over = {"seeds": "the seeds", "images": "the val images of the newest weights"}
    known = sure(plain, "gain").items()
    each = " and ".join(f"{low:+.1f} to {high:+.1f} over {over[k]}" for k, (low, high) in known)
    return f"{plain.gain.mean or 0.0:+.1f}{f' (95 % interval {each})' if each else ''}"


def _without_image(
    prior: ArmRow | None, plain: ArmRow | None, floor: float | None
) -> Iterator[str]:
    if prior is None or prior.failed:
        if floor is not None:
            yield FLOOR.format(floor=floor)
        return
    scores: Mapping[str, str] = {"miou": prior.mIoU.text(), "aacc": prior.aAcc.text()}
    above = None if plain is None else _miou(plain) - _miou(prior)
    if above is None:
        yield PRIOR_ALONE.format(**scores)
    elif above <= 0:
        yield NOT_ABOVE.format(**scores)
    else:
        yield PRIOR.format(**scores, above=above)


def _of_keys(rows: Sequence[KeyRow]) -> Iterator[str]:
    """What the wrong key and no key get, the most that any arm gives away."""
    wrong, none, right = (
        [score for row in rows if (score := getattr(row, f"{key}_miou")) is not None]
        for key in ("wrong", "no_key", "right")
    )
    if rows:
        most = {"wrong": max(wrong, default=None), "none": max(none, default=None)}
        least = {"right": min(right, default=None)}
        yield KEYS.format(**{key: fixed(score, 1) for key, score in (most | least).items()})


def _miou(row: ArmRow) -> float:
    return row.mIoU.mean or 0.0
