"""From results.jsonl to summary.json: confusion counts are summed, never averaged.

Scores are taken once a round (`fl_ppseg.learning.scores`), then averaged over the last K rounds
that were scored, which are those that all val clients answered, and over seeds.

`own_mIoU` pools the held-out counts of all training clients, each scored by the model that it uses:
the common one, or in `local-only` its own. So it is of the same images in every arm.

`start_mIoU` is of round 0, the weights that training starts from, under the arm's own protection;
`gain` is what training added to it. `no_image` is what the training label maps score without a look
at any image, null where nobody has them all.

`ratio_to_plain` is the mean of the ratios of mIoU taken seed by seed, `ratio_ci95` its 95 %
Student interval: null with fewer than two seeds, as `mIoU_ci95`, `gain_ci95` and the sample
standard deviations `<score>_std`. `of_plain_above_no_image` is so of (arm - no image) / (plain - no
image): null where plain is not above it in every seed.

These intervals are over seeds. Where the images are at hand, `val_images` says what `newest_mIoU`,
`<name>_ci95_images` and `<name>_ci95_places` were drawn from (`fl_ppseg.experiment.val_intervals`).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fl_ppseg.federation.results import ClientLine, Line
from fl_ppseg.federation.run_summary import (
    SCHEMA,
    ArmSummary,
    ImageIntervals,
    KeyScores,
    RunSummary,
    SeedSummary,
    TwoScores,
    ValImages,
)
from fl_ppseg.learning.evaluation import Scores
from fl_ppseg.learning.intervals import deviation, paired_above, paired_ratios, t_interval
from fl_ppseg.learning.scores import mean, pooled_scores, round_scores

KeyTrials = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Arm -> `right`, `wrong`, `none` -> score by name, in percent."""


def summarise(
    lines: Iterable[Line],
    arms: Sequence[str],
    class_names: Sequence[str],
    last_rounds: int,
    total_seconds: float,
    peak_rss_mb: float | None,
    key_trials: KeyTrials | None = None,
    no_image: Scores | None = None,
    val_images: tuple[ValImages, Mapping[str, ImageIntervals]] | None = None,
    notes: Sequence[str] = (),
) -> RunSummary:
    """The summary of a run.

    Args:
        lines: Lines of results.jsonl.
        arms: Arm ids in the order to show; arms without a scored round are left out.
        class_names: Names by trainId.
        last_rounds: K of the mean over the last rounds.
        total_seconds: Wall time of the run.
        peak_rss_mb: Peak memory of all processes together, in MB; None where they ran on several
            machines.
        key_trials: Scores of queries under the right key, a wrong one and none, for the arms with
            a shared key; other arms have no `key_trials`.
        no_image: Scores of the answer without an image; None where nobody has all label maps.
        val_images: What was drawn, and by arm the intervals over val images and places; None where
            nobody has the images.
        notes: What a reader must know of the data.
    """
    by_arm: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_arm[line["arm"]].append(line)
    shown = {
        arm: _summarise_arm(by_arm[arm], class_names, last_rounds)
        for arm in arms
        if any(_is_scored(line) and line["round"] for line in by_arm[arm])
    }
    base = shown["plain"].by_seed if "plain" in shown else {}
    floor = None if no_image is None else mean([no_image.mIoU])
    compared = {arm: _compared(entry, base, floor) for arm, entry in shown.items()}
    if key_trials is not None:
        compared = {
            arm: _with_trials(entry, key_trials[arm]) if arm in key_trials else entry
            for arm, entry in compared.items()
        }
    summary = RunSummary(
        schema_=SCHEMA,
        no_image=_without_image(no_image),
        arms=compared,
        total_seconds=round(total_seconds, 1),
        peak_rss_mb=None if peak_rss_mb is None else round(peak_rss_mb),
        notes=tuple(notes),
    )
    return summary if val_images is None else _with_val_images(summary, *val_images)


def _summarise_arm(lines: list[Line], names: Sequence[str], last_rounds: int) -> ArmSummary:
    rounds = _last_rounds(lines, last_rounds)
    val = [_of_role(round_, "val") for round_ in rounds]
    both = [_of_role(round_, "val", "heldout") for round_ in rounds]
    starts = _starts(lines)
    per_seed = tuple(
        SeedSummary(seed=seed, **_with_gain(_seed_scores(own), starts.get(seed)))
        for seed in sorted({round_[0]["seed"] for round_ in rounds})
        if (own := [r for r in rounds if r[0]["seed"] == seed])
    )
    columns = {key: [getattr(entry, key) for entry in per_seed] for key in _COLUMNS}
    means: dict[str, Any] = {key: mean(values) for key, values in columns.items()}
    means |= {f"{key}_std": _deviation(values) for key, values in columns.items()}
    return ArmSummary(
        **means,
        mIoU_ci95=_interval(columns["mIoU"]),
        gain_ci95=_interval(columns["gain"]),
        per_class_iou=_per_class(val, names),
        per_client_mIoU=_per_client(both),
        per_seed=per_seed,
        rounds=max(line["round"] for line in lines),
        seconds=sum(line["seconds"] for line in lines if line["role"] == "round"),
        bytes_up=sum(line["bytes_up"] for line in lines),
        bytes_down=sum(line["bytes_down"] for line in lines),
    )


_SCORES = ("aAcc", "mIoU", "mAcc")
_COLUMNS = (*_SCORES, "own_mIoU", "start_mIoU", "gain")


def _is_scored(line: Line) -> bool:
    return line["role"] == "val" and line["confusion"] is not None


def _last_rounds(lines: Iterable[Line], number: int) -> list[list[Line]]:
    """The lines of each of the last scored rounds of each seed, a list a round; never round 0."""
    by_seed: dict[int, dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["round"]:
            by_seed[line["seed"]][line["round"]].append(line)
    scored = [
        [own for _, own in sorted(rounds.items()) if any(map(_is_scored, own))]
        for rounds in by_seed.values()
    ]
    return [own for rounds in scored for own in rounds[-number:]]


def _starts(lines: Iterable[Line]) -> dict[int, float | None]:
    """mIoU of round 0 by seed, where all val clients scored it."""
    by_seed: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if line["round"] == 0 and _is_scored(line):
            by_seed[line["seed"]].append(line)
    return {
        seed: mean(s.mIoU for s in _known([round_scores(own)])) for seed, own in by_seed.items()
    }


def _with_gain(scores: dict[str, float | None], start: float | None) -> dict[str, float | None]:
    end = scores["mIoU"]
    gain = None if end is None or start is None else end - start
    return scores | {"start_mIoU": start, "gain": gain}


def _of_role(lines: Iterable[Line], *roles: str) -> list[ClientLine]:
    return [
        line
        for line in lines
        if line["role"] != "round" and line["role"] in roles and line["confusion"] is not None
    ]


def _seed_scores(rounds: list[list[Line]]) -> dict[str, float | None]:
    val = _known(round_scores(_of_role(lines, "val")) for lines in rounds)
    own = _known(pooled_scores(_of_role(lines, "heldout")) for lines in rounds)
    scores = {key: mean(getattr(entry, key) for entry in val) for key in _SCORES}
    return scores | {"own_mIoU": mean(entry.mIoU for entry in own)}


def _per_class(rounds: list[list[ClientLine]], names: Sequence[str]) -> dict[str, float | None]:
    scores = _known(map(round_scores, rounds))
    return {name: mean(entry.per_class_iou[k] for entry in scores) for k, name in enumerate(names)}


def _per_client(rounds: list[list[ClientLine]]) -> dict[str, float | None]:
    clients = sorted({line["client"] for lines in rounds for line in lines})
    return {
        client: mean(
            scores.mIoU
            for scores in _known(
                round_scores(line for line in lines if line["client"] == client) for lines in rounds
            )
        )
        for client in clients
    }


def _known(scores: Iterable[Scores | None]) -> list[Scores]:
    return [entry for entry in scores if entry is not None]


def _deviation(values: Iterable[float | None]) -> float | None:
    return deviation([value for value in values if value is not None])


def _compared(
    entry: ArmSummary, base: Mapping[int, float | None], no_image: float | None
) -> ArmSummary:
    """The entry with its ratios to the mIoU of plain, seed by seed and together."""
    ratios = paired_ratios(entry.by_seed, base)
    above = paired_above(entry.by_seed, base, no_image)
    return entry.model_copy(
        update={
            "per_seed": tuple(
                own.model_copy(
                    update={
                        "ratio_to_plain": ratios.get(own.seed),
                        "of_plain_above_no_image": above.get(own.seed),
                    }
                )
                for own in entry.per_seed
            ),
            "ratio_to_plain": mean(ratios.values()),
            "ratio_ci95": _interval(ratios.values()),
            "of_plain_above_no_image": mean(above.values()),
            "of_plain_above_no_image_ci95": _interval(above.values()),
        }
    )


def _with_val_images(
    summary: RunSummary, drawn: ValImages, intervals: Mapping[str, ImageIntervals]
) -> RunSummary:
    arms = {
        arm: entry.model_copy(update=dict(intervals[arm])) if arm in intervals else entry
        for arm, entry in summary.arms.items()
    }
    return summary.model_copy(update={"arms": arms, "val_images": drawn})


def _with_trials(entry: ArmSummary, trials: Mapping[str, Mapping[str, float]]) -> ArmSummary:
    """The entry with the scores of queries by kind of key, None where nothing was labelled."""
    scores = {
        key: KeyScores(**{name: v if math.isfinite(v) else None for name, v in own.items()})
        for key, own in trials.items()
    }
    return entry.model_copy(update={"key_trials": scores})


def _interval(values: Iterable[float | None]) -> tuple[float, float] | None:
    return t_interval([value for value in values if value is not None])


def _without_image(scores: Scores | None) -> TwoScores | None:
    if scores is None:
        return None
    return TwoScores(mIoU=mean([scores.mIoU]), aAcc=mean([scores.aAcc]))
