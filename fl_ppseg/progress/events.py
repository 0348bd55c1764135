"""What happens in a run, as data: an event is a frozen value that says all there is to know.

An observer (`fl_ppseg.progress.observer`) is told of each as it happens. Percentages are in
percent, rounds count from 1; round 0 is the scoring of the weights that training starts from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["train", "evaluate"]


@dataclass(frozen=True)
class RoundScores:
    """Scores over the val clients, in percent."""

    aAcc: float  # noqa: N815 - the field's own words
    mIoU: float  # noqa: N815
    mAcc: float  # noqa: N815


@dataclass(frozen=True)
class RunStarted:
    """The run begins, or is resumed; arms and seeds are in the order in which they will run."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    num_rounds: int
    num_train_clients: int
    num_val_nodes: int
    event: Literal["run_started"] = "run_started"


@dataclass(frozen=True)
class ArmStarted:
    """The rounds of this arm and seed come next."""

    arm: str
    seed: int
    event: Literal["arm_started"] = "arm_started"


@dataclass(frozen=True)
class RoundStarted:
    """The clients are asked next."""

    arm: str
    seed: int
    round: int
    event: Literal["round_started"] = "round_started"


@dataclass(frozen=True)
class Replied:
    """One client has answered; `loss` is of its local update."""

    arm: str
    seed: int
    round: int
    client: str
    phase: Phase
    num_done: int
    num_expected: int
    loss: float | None
    event: Literal["replied"] = "replied"


@dataclass(frozen=True)
class RoundFinished:
    """A round is on disk.

    `train_loss` is None for round 0, `scores` in rounds that are not evaluated or where a val
    client did not answer.
    """

    arm: str
    seed: int
    round: int
    train_loss: float | None
    scores: RoundScores | None
    event: Literal["round_finished"] = "round_finished"

    def scalars(self) -> Mapping[str, float]:
        """The finite numbers by the names that plots use, e.g. `val/mIoU`."""
        values = {"train/loss": self.train_loss}
        if self.scores is not None:
            values |= {f"val/{name}": value for name, value in vars(self.scores).items()}
        return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}


@dataclass(frozen=True)
class ArmResumed:
    """An earlier start of the run has finished `num_done` rounds of this arm and seed."""

    arm: str
    seed: int
    num_done: int
    rounds: tuple[RoundFinished, ...]
    """They, and round 0 where it was scored."""
    event: Literal["arm_resumed"] = "arm_resumed"


@dataclass(frozen=True)
class ArmFinished:
    """All rounds of this arm and seed are done."""

    arm: str
    seed: int
    event: Literal["arm_finished"] = "arm_finished"


@dataclass(frozen=True)
class Notice:
    """A line that the user must see, such as a rejected reply."""

    text: str
    event: Literal["notice"] = "notice"


@dataclass(frozen=True)
class RunFinished:
    """No event follows."""

    event: Literal["run_finished"] = "run_finished"


Event = (
    RunStarted
    | ArmResumed
    | ArmStarted
    | RoundStarted
    | Replied
    | RoundFinished
    | ArmFinished
    | Notice
    | RunFinished
)
