"""From the config to the aggregator of a round."""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from fl_ppseg.config import FederationConfig
from strategies.aggregation import Aggregator, StreamingMean
from strategies.private_mean import PrivateMean
from strategies.robust import (
    ClippedMean,
    CoordinateMedian,
    Krum,
    TrimmedMean,
    fewest_for_krum,
)


def aggregator_of(
    config: FederationConfig, reference: Mapping[str, np.ndarray], num_asked: int
) -> Aggregator:
    """An empty aggregator.

    Args:
        config: Says which.
        reference: The weights that travel, as they were sent out.
        num_asked: Cities that were asked in this round.
    """
    if config.privacy is not None:
        return PrivateMean(reference, config.privacy, num_asked)
    match config.aggregation:
        case "mean":
            return StreamingMean(reference)
        case "norm-clipping":
            return ClippedMean(reference, config.clip_norm or 0.0)
        case "median":
            return CoordinateMedian(reference)
        case "trimmed-mean":
            return TrimmedMean(reference, config.trim_fraction)
        case "krum" | "multi-krum":
            return Krum(reference, config.num_byzantine, config.aggregation == "multi-krum")
    assert_never(config.aggregation)


def fewest_replies(config: FederationConfig) -> int:
    """Good replies that an aggregation cannot do without."""
    is_krum = config.aggregation in ("krum", "multi-krum")
    return fewest_for_krum(config.num_byzantine) if is_krum else 1
