"""What a run folder says of a model: its data, its scores, and what an audit found."""

from dataclasses import replace
from pathlib import Path

from fl_ppseg.config import run_layout
from fl_ppseg.config.loading import load_config
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_summary import read_summary
from fl_ppseg.inference.about import Facts, ReachedScores
from fl_ppseg.leaks.file import read_leaks
from fl_ppseg.leaks.findings import findings
from fl_ppseg.system.errors import InputError


def facts_of(arm: str, seed: int, round: int, run: Path | None) -> Facts:
    """How a model came to be, as far as its run folder says.

    Args:
        arm: That trained it.
        seed: Of the training.
        round: Of its weights.
        run: Its run folder, if there is one; what cannot be read there is not said.
    """
    if run is None:
        return Facts(seed=seed, round=round)
    images = RunFolder(run).num_images()
    return Facts(
        seed=seed,
        round=round,
        data=_data(run),
        places=tuple(images),
        num_images=sum(images.values()) if images else None,
        scores=_scores(arm, run),
        audit=_audit(arm, run),
    )


def _data(run: Path) -> str | None:
    try:
        data = load_config(run / run_layout.CONFIG).data
    except InputError:
        return None
    height, width = data.image_size
    kind = "procedural street scenes" if data.root is None else "images of the clients' own"
    how = "scaled" if data.fit == "resize" else "cut"
    return f"{kind}, {how} to {height} x {width} pixels (height x width)"


def _scores(arm: str, run: Path) -> ReachedScores | None:
    try:
        summary = read_summary(run / run_layout.SUMMARY)
    except InputError:
        return None
    if (own := summary.arms.get(arm)) is None:
        return None
    plain, without = summary.arms.get("plain"), summary.no_image
    return ReachedScores(
        aAcc=own.aAcc,
        mIoU=own.mIoU,
        own_mIoU=own.own_mIoU,
        start_mIoU=own.start_mIoU,
        no_image_mIoU=None if without is None else without.mIoU,
        plain_mIoU=None if plain is None else plain.mIoU,
        num_seeds=len(own.per_seed),
    )


def _audit(arm: str, run: Path) -> tuple[str, ...]:
    try:
        table = read_leaks(run / run_layout.AUDIT / run_layout.LEAKS)
    except InputError:
        return ()
    own = tuple(each for each in table.arms if each.arm == arm)
    return findings(replace(table, arms=own)) if own else ()
