"""The finished rounds of a resumed run, reported to its observer."""

from collections.abc import Mapping, Sequence

from fl_ppseg.federation.results import Line
from fl_ppseg.learning.scores import round_scores
from fl_ppseg.progress.observer import RunObserver


def report_earlier_rounds(
    rounds: Mapping[tuple[str, int], int], lines: Sequence[Line], observer: RunObserver
) -> None:
    """Report the finished rounds of each arm and seed to an observer.

    Args:
        rounds: The newest finished round by arm and seed; 0 if there is none.
        lines: Lines of results.jsonl.
        observer: Is told of every arm and seed that has finished rounds.
    """
    for (arm, seed), number in rounds.items():
        if number == 0:
            continue
        own = [line for line in lines if (line["arm"], line["seed"]) == (arm, seed)]
        losses = [line["loss"] for line in own if line["role"] == "round"]
        scored = {line["round"] for line in own if line["role"] == "val"}
        scores = [
            round_scores(x for x in own if x["role"] == "val" and x["round"] == round_)
            for round_ in sorted(scored)
        ]
        observer.arm_resumed(
            arm,
            seed,
            number,
            [loss for loss in losses if loss is not None],
            [found.mIoU for found in scores if found is not None],
        )
