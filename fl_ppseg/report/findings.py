"""What the numbers say in plain words, never more than they say."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fl_ppseg.report.arms import ArmText, arm_texts
from fl_ppseg.report.rows import PLAIN, ArmRow, KeyRow, arm_rows, fixed, key_rows, no_image_row

if TYPE_CHECKING:
    from fl_ppseg.report.audited import Audited

WEAK_MIOU = 20.0  # percent; below it a ratio to plain says little
NEAR_TIE = 1.0  # points of mIoU below which one seed tells nothing
COMMON = "the ciphertexts are broken: one permutation common to all blocks is found from them"
NUM_TOLD = 6  # arms that are told in a sentence each; of more, some share one


def headline(
    summary: Mapping[str, Any], config: Mapping[str, Any], audited: "Audited | None" = None
) -> str:
    """The first sentence of the report. Percentages are rounded down, so none is claimed too high.

    Arms whose ciphertexts are not broken come first, of these arms whose keys nobody shares: they
    are what the program is for. No score stands without what it protects: what attacks got, or that
    none was run. Without a plain arm it gives scores only; without any score it says so.
    """
    said = _headline(summary, config, audited)
    return said if said is not None else "No arm of this run reached a score"


def _headline(
    summary: Mapping[str, Any], config: Mapping[str, Any], audited: "Audited | None"
) -> str | None:
    rows = [row for row in arm_rows(summary) if not row.failed]
    texts = arm_texts(list(summary["arms"]), config)
    encrypted = [row for row in rows if texts[row.arm].encrypted]
    whole = [row for row in encrypted if not is_broken(row.arm, texts[row.arm], audited)]
    encrypted = whole or encrypted
    compared = [row for row in encrypted if row.ratio is not None]
    unshared = [row for row in compared if not texts[row.arm].shared]
    if compared:
        kind = (
            "arms without a shared key" if 0 < len(unshared) < len(compared) else "encrypted arms"
        )
        ordered = sorted(unshared or compared, key=_ratio, reverse=True)
        told = _kept(ordered, texts, kind)
        return f"{told}; {protection(ordered[0].arm, texts[ordered[0].arm], audited)}"
    best = max(encrypted or rows, key=_miou, default=None)
    if best is None:
        return None
    text = texts[best.arm]
    reached = f"{text.subject} reach {_miou(best):.1f} mIoU on cities never seen in training"
    return f"{reached}; {protection(best.arm, text, audited)}"


def is_broken(arm: str, text: ArmText, audited: "Audited | None") -> bool:
    """Whether an arm's images come back from its ciphertexts alone: by its settings, or by what an
    attack got."""
    return text.common or (audited is not None and audited.is_broken(arm))


def protection(arm: str, text: ArmText, audited: "Audited | None") -> str:
    """What an arm protects, in a clause: what attacks got, or that none was run."""
    got = None if audited is None else audited.most(arm)
    if not text.encrypted:
        return "nothing is encrypted" if got is None else f"nothing is encrypted: {got}"
    if got is not None and audited is not None:
        return f"{COMMON}; {got}" if text.common else got
    return COMMON if text.common else "no attack was run, so what this protects is not known"


def findings(
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    floor: float | None = None,
    audited: "Audited | None" = None,
) -> tuple[str, ...]:
    """One sentence a finding, then what limits them.

    Of many arms those with an embedding made for keys that nobody shares, and those that failed,
    have a sentence each; the others are told together.

    Args:
        summary: As in summary.json.
        config: The run's config.
        floor: mIoU in percent of always answering the commonest class; None if unknown. Told where
            the summary has no answer without an image.
        audited: An audit of the run; None: no attack was run.
    """
    rows = arm_rows(summary)
    texts = arm_texts([row.arm for row in rows], config)
    plain = next((row for row in rows if row.arm == PLAIN and not row.failed), None)
    others = [row for row in rows if row is not plain]
    alone = [
        row for row in others if len(others) <= NUM_TOLD or row.failed or texts[row.arm].tailored
    ]
    together = [row for row in others if row not in alone]
    return (
        *(_told(row, plain, texts[row.arm], audited) for row in alone),
        *_told_together(together, plain, texts, audited),
        *_keys(key_rows(summary)),
        *_cautions(rows, plain, floor, no_image_row(summary)),
    )


def _kept(rows: Sequence[ArmRow], texts: Mapping[str, ArmText], kind: str) -> str:
    best, *others = rows
    verb = "reach" if _ratio(best) >= 1 else "keep"
    text = f"{texts[best.arm].subject} {verb} {_percent(best)}\u00a0%"
    if len(others) == 1:
        second = texts[others[0].arm].subject
        text += f" and {second[:1].lower()}{second[1:]} {_percent(others[0])}\u00a0%"
    text += " of the mIoU of plain training on cities never seen"
    if len(others) > 1:
        low, high = _percent(others[-1]), _percent(others[0])
        text += f"; the other {kind} {f'{low} to ' if low != high else ''}{high}\u00a0%"
    return text


def _told(row: ArmRow, plain: ArmRow | None, text: ArmText, audited: "Audited | None") -> str:
    scored = _scored(row, plain, text)
    if row.failed or not text.encrypted:
        return f"{scored}."
    return f"{scored}; {protection(row.arm, text, audited)}."


def _scored(row: ArmRow, plain: ArmRow | None, text: ArmText) -> str:
    if row.failed:
        return f"{text.subject} gave no score{f': {row.error}' if row.error else ''}"
    reached = f"{text.subject}: {row.mIoU.text()} mIoU on unseen cities"
    if row.own_mIoU.mean is not None:
        reached += f" ({row.own_mIoU.text()} on held-out images of the training cities)"
    if plain is None:
        return reached
    gap = _miou(row) - _miou(plain)
    side = "above" if gap >= 0 else "below"
    against = f"{abs(gap):.1f} points {side} plain images ({plain.mIoU.text()})"
    return f"{reached}, {against}{_certainty(row, gap)}"


def _certainty(row: ArmRow, gap: float) -> str:
    """The ratio with its intervals; says when a difference may be chance."""
    known = _sure(row, "ratio")
    if not known:
        return "; too close to call with one seed" if abs(gap) < NEAR_TIE else ""
    told = f": {_ratio(row):.3f} of it, 95 % interval {_each(known, '.3f')}"
    is_open = any(low <= 1 <= high for low, high in known.values())
    return f"{told}, so no difference is shown" if is_open else told


def _sure(row: ArmRow, name: str) -> dict[str, tuple[float, float]]:
    """The intervals of a score over seeds and over images; those over few places are rough."""
    rows = (entry for entry in row.intervals if entry.kind != "places")
    return {each.kind: ends for each in rows if (ends := getattr(each, name)) is not None}


def _each(known: Mapping[str, tuple[float, float]], form: str) -> str:
    """Intervals, each with what it is over; those over images are of the newest weights."""
    over = {"seeds": "the seeds", "images": "the val images (newest weights)"}
    return " and ".join(
        f"{low:{form}} to {high:{form}} over {over[kind]}" for kind, (low, high) in known.items()
    )


def _told_together(
    rows: Sequence[ArmRow],
    plain: ArmRow | None,
    texts: Mapping[str, ArmText],
    audited: "Audited | None",
) -> list[str]:
    """A sentence for each kind of arm: keys shared with nobody, one shared key, no encryption."""
    kinds: tuple[tuple[str, Callable[[ArmText], bool]], ...] = (
        ("Keys that nobody shares, ordinary embedding", lambda t: t.encrypted and not t.shared),
        ("One key shared by all", lambda t: t.shared),
        ("No encryption", lambda t: not t.encrypted and not t.shared),
    )
    measure = "mIoU" if plain is None else "mIoU as a share of plain's"
    if plain is not None and any("seeds" in _sure(row, "ratio") for row in rows):
        measure += " (95 % interval over the seeds)"
    groups = [(kind, [row for row in rows if fits(texts[row.arm])]) for kind, fits in kinds]
    return [
        f"{kind}, {measure}: {', '.join(_briefly(row, plain) for row in group)}"
        f"{_which_broken(group, texts, audited)}."
        for kind, group in groups
        if group
    ]


def _which_broken(
    rows: Sequence[ArmRow], texts: Mapping[str, ArmText], audited: "Audited | None"
) -> str:
    """Which of several arms hide nothing."""
    broken = [
        row.arm
        for row in rows
        if texts[row.arm].encrypted and is_broken(row.arm, texts[row.arm], audited)
    ]
    if not broken:
        return ""
    which = "all" if len(broken) == len(rows) else ", ".join(broken)
    return f"; whose ciphertexts are broken: {which}"


def _briefly(row: ArmRow, plain: ArmRow | None) -> str:
    if plain is None:
        return f"{row.arm} {row.mIoU.text()}"
    if row.ratio is None:
        return f"{row.arm} unknown"
    ends = _sure(row, "ratio").get("seeds")
    interval = "" if ends is None else f" ({ends[0]:.3f} to {ends[1]:.3f})"
    return f"{row.arm} {row.ratio:.3f}{interval}"


def _keys(rows: Sequence[KeyRow]) -> list[str]:
    """What the wrong key and no key get, the most any arm gives away."""
    told = []
    for key, column in (("a wrong key", "wrong_miou"), ("no key", "no_key_miou")):
        known = [row for row in rows if getattr(row, column) is not None]
        if known:
            most = max(known, key=lambda row: float(getattr(row, column)))
            scores = _span(getattr(row, column) for row in known)
            right = _span(row.right_miou for row in known if row.right_miou is not None)
            told.append(
                f"With {key} a query gets {scores} mIoU where the right key gets {right}"
                f"{f' (most: {most.arm})' if len(known) > 1 else ''}."
            )
    return told


def _span(values: Iterable[float]) -> str:
    texts = [f"{value:.1f}" for value in sorted(values)]
    if not texts:
        return "no score"
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _cautions(
    rows: Sequence[ArmRow], plain: ArmRow | None, floor: float | None, prior: ArmRow | None
) -> list[str]:
    told = []
    finished = [row for row in rows if not row.failed]
    if plain is None and finished:
        told.append("Without a finished plain arm this run cannot tell what encryption costs.")
    if plain is not None and (taught := _taught(plain)):
        told.append(taught)
    if plain is not None and _miou(plain) < WEAK_MIOU:
        told.append(f"Plain training itself reaches only {_miou(plain):.1f}: ratios say little.")
    if prior is not None and not prior.failed:
        told.append(_without_image(prior, plain))
    elif floor is not None:
        told.append(f"Always answering the commonest class would score {floor:.1f} mIoU.")
    if any(row.num_seeds == 1 for row in finished):
        told.append("One seed: differences of a few points may be chance.")
    return told


def _taught(plain: ArmRow) -> str | None:
    """What training added to plain's start; whether it is no more than chance may do.

    That is where a 95 % interval of the gain, over seeds or val images, reaches below 0, and always
    where it is below `NEAR_TIE` points. None where the start was not scored.
    """
    gain, known = plain.gain.mean, _sure(plain, "gain")
    if gain is None:
        return None
    within = f" (95 % interval {_each(known, '+.1f')})" if known else ""
    start, end = fixed(plain.start, 1), plain.mIoU.text()
    if gain >= NEAR_TIE and all(low > 0 for low, _ in known.values()):
        return f"Training took plain from {start} to {end} mIoU, a gain of {gain:+.1f}{within}."
    return (
        f"This run taught the model nothing: plain ends at {end} mIoU and started at {start}, a "
        f"gain of {gain:+.1f}{within}, no more than chance makes; the scores are those of starting "
        "weights."
    )


def _without_image(prior: ArmRow, plain: ArmRow | None) -> str:
    told = (
        f"Who looks at no image and answers the commonest class of each pixel scores "
        f"{prior.mIoU.text()} mIoU ({prior.aAcc.text()} aAcc)"
    )
    if plain is None:
        return f"{told}."
    above = _miou(plain) - _miou(prior)
    if above <= 0:
        return f"{told}; plain training is not above that, so no arm shows that it sees anything."
    return f"{told}: plain training is {above:.1f} points above that."


def _percent(row: ArmRow) -> int:
    return math.floor(100 * _ratio(row) + 1e-9)


def _ratio(row: ArmRow) -> float:
    return row.ratio or 0.0


def _miou(row: ArmRow) -> float:
    return row.mIoU.mean or 0.0
