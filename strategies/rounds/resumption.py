"""The finished rounds of a resumed run, reported to its observer."""

from collections.abc import Mapping, Sequence

from fl_ppseg.federation.results import Line
from fl_ppseg.learning.scores import round_scores
from fl_ppseg.progress.events import ArmResumed, RoundFinished
from fl_ppseg.progress.observer import Observer
from strategies.rounds.round_log import shown


def report_earlier_rounds(
    rounds: Mapping[tuple[str, int], int], lines: Sequence[Line], observer: Observer
) -> None:
    """Report the finished rounds of each arm and seed to an observer.

    Args:
        rounds: The newest finished round by arm and seed; 0 if there is none.
        lines: Lines of results.jsonl.
        observer: Is told of every arm and seed of which there are lines.
    """
    for (arm, seed), num_done in rounds.items():
        own = [line for line in lines if (line["arm"], line["seed"]) == (arm, seed)]
        finished = tuple(
            RoundFinished(
                arm,
                seed,
                line["round"],
                line.get("loss"),
                shown(round_scores(_val_lines(own, line["round"]))),
            )
            for line in own
            if line["role"] == "round"
        )
        if finished:
            observer.on_event(ArmResumed(arm, seed, num_done, finished))


def _val_lines(lines: Sequence[Line], number: int) -> list[Line]:
    return [line for line in lines if line["role"] == "val" and line["round"] == number]
