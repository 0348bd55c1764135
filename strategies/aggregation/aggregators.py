"""The aggregator that a config asks for."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from fl_ppseg.config.federation import FederationConfig
from strategies.aggregation.private_mean import PrivateMean
from strategies.aggregation.robust import (
    ClippedMean,
    CoordinateMedian,
    Krum,
    TrimmedMean,
)
from strategies.aggregation.streaming_mean import Aggregator, StreamingMean


def aggregator_of(
    config: FederationConfig,
    reference: Mapping[str, np.ndarray],
    num_asked: int,
    max_share: float = 1.0,
) -> Aggregator:
    """An empty aggregator.

    Args:
        config: Names the aggregation.
        reference: The weights that are averaged, as they were sent out.
        num_asked: Number of clients that were asked in this round.
        max_share: Largest weight of a client in a weighted mean, 0 to 1.
    """
    if config.privacy is not None:
        return PrivateMean(reference, config.privacy, num_asked)
    match config.aggregation:
        case "mean":
            return StreamingMean(reference, max_share)
        case "norm-clipping":
            return ClippedMean(reference, config.clip_norm or 0.0, max_share)
        case "median":
            return CoordinateMedian(reference)
        case "trimmed-mean":
            return TrimmedMean(reference, config.trim_fraction)
        case "krum" | "multi-krum":
            return Krum(reference, config.num_byzantine, config.aggregation == "multi-krum")
    assert_never(config.aggregation)


def robustness_warning(config: FederationConfig, num_asked: int) -> str | None:
    """Why a robust aggregation withstands nothing with so few clients; None if it does."""
    if num_asked >= config.fewest_replies or config.aggregation not in ("median", "trimmed-mean"):
        return None
    cut = "cuts off no update" if config.aggregation == "trimmed-mean" else "has no middle"
    return (
        f"federation.aggregation {config.aggregation} {cut} with {num_asked} clients per round: "
        "it is their plain mean and withstands no lying client; use 3 clients or more"
    )
