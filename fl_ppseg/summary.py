"""From results.jsonl to summary.json: confusion counts are summed, never averaged.

Scores are taken once a round from counts pooled over cities, then averaged over the last K rounds
and over seeds.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from fl_ppseg.evaluation import Scores, score

Line = Mapping[str, Any]
Summary = dict[str, Any]
SCHEMA = 1


def summarise(
    lines: Iterable[Line],
    arms: Sequence[str],
    class_names: Sequence[str],
    last_rounds: int,
    total_seconds: float,
    peak_rss_mb: float,
) -> Summary:
    """The summary of a run.

    Args:
        lines: Lines of results.jsonl.
        arms: Arm ids in the order to show; arms without an evaluation are left out.
        class_names: Names by trainId.
        last_rounds: K of the mean over the last rounds.
        total_seconds: Wall time of the run.
        peak_rss_mb: Peak memory of all processes together, in MB.
    """
    by_arm: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_arm[line["arm"]].append(line)
    shown = {
        arm: _summarise_arm(by_arm[arm], class_names, last_rounds)
        for arm in arms
        if any(line["role"] == "val" for line in by_arm[arm])
    }
    plain = shown.get("plain")
    for entry in shown.values():
        entry["ratio_to_plain"] = _ratio(entry["mIoU"], plain["mIoU"] if plain else None)
    return {
        "schema": SCHEMA,
        "arms": shown,
        "total_seconds": round(total_seconds, 1),
        "peak_rss_mb": round(peak_rss_mb),
    }


def _summarise_arm(lines: list[Line], names: Sequence[str], last_rounds: int) -> dict[str, Any]:
    seeds = sorted({line["seed"] for line in lines})
    per_seed = []
    for seed in seeds:
        own = [line for line in lines if line["seed"] == seed]
        val = _last(own, "val", last_rounds)
        if val:
            heldout = _last(own, "heldout", last_rounds)
            per_seed.append({"seed": seed} | _mean_scores(val) | {"own_mIoU": _own(heldout)})
    val = _last(lines, "val", last_rounds)
    return {
        **{key: _mean(entry[key] for entry in per_seed) for key in _SCORES},
        "own_mIoU": _mean(entry["own_mIoU"] for entry in per_seed),
        "per_class_iou": _per_class(val, names),
        "per_city_mIoU": _per_city(val + _last(lines, "heldout", last_rounds)),
        "per_seed": per_seed,
        "rounds": max(line["round"] for line in lines),
        "seconds": sum(line["seconds"] for line in lines if line["role"] == "round"),
        "bytes_up": sum(line["bytes_up"] for line in lines),
        "bytes_down": sum(line["bytes_down"] for line in lines),
    }


_SCORES = ("aAcc", "mIoU", "mAcc")


def _last(lines: Iterable[Line], role: str, last_rounds: int) -> list[Line]:
    """Lines of a role in the last evaluated rounds."""
    own = [line for line in lines if line["role"] == role and line["confusion"] is not None]
    rounds = sorted({line["round"] for line in own})[-last_rounds:]
    return [line for line in own if line["round"] in rounds]


def _pooled(lines: Iterable[Line]) -> list[Scores]:
    """A score for each round (and seed, and model where clients have their own)."""
    pools: dict[object, list[np.ndarray]] = defaultdict(list)
    for line in lines:
        key = (line["seed"], line["round"], line.get("model"))
        pools[key].append(np.asarray(line["confusion"], dtype=np.int64))
    return [score(np.sum(counts, axis=0)) for counts in pools.values()]


def _mean_scores(lines: Iterable[Line]) -> dict[str, float | None]:
    scores = _pooled(lines)
    return {key: _mean(getattr(entry, key) for entry in scores) for key in _SCORES}


def _own(lines: list[Line]) -> float | None:
    return _mean(entry.mIoU for entry in _pooled(lines))


def _per_class(lines: list[Line], names: Sequence[str]) -> dict[str, float | None]:
    scores = _pooled(lines)
    return {name: _mean(entry.per_class_iou[k] for entry in scores) for k, name in enumerate(names)}


def _per_city(lines: list[Line]) -> dict[str, float | None]:
    cities = sorted({line["city"] for line in lines})
    return {
        city: _mean(s.mIoU for s in _pooled(line for line in lines if line["city"] == city))
        for city in cities
    }


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and not np.isnan(value)]
    return fmean(known) if known else None
