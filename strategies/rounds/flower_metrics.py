"""What Flower is told of a round: it logs these metrics, and its result of a run holds them."""

from collections.abc import Mapping

from flwr.app import MetricRecord

from fl_ppseg.learning.evaluation import Scores


def flower_metrics(values: Mapping[str, float | None]) -> MetricRecord | None:
    """The metrics that there are; None where there are none.

    >>> flower_metrics({"train_loss": 0.5, "mIoU": None})
    {'train_loss': 0.5}
    """
    known = {name: float(value) for name, value in values.items() if value is not None}
    return MetricRecord(known) if known else None  # type: ignore[arg-type]


def percentages(scores: Scores | None) -> dict[str, float | None]:
    """aAcc, mIoU and mAcc, in percent; nothing where a round has no scores."""
    if scores is None:
        return {}
    return {"aAcc": scores.aAcc, "mIoU": scores.mIoU, "mAcc": scores.mAcc}
