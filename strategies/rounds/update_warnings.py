"""What is said of updates that are accepted and yet unusual: one line each."""

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Final

from strategies.aggregation.streaming_mean import capped

FAR: Final = 10
"""Updates longer than this multiple of the median are reported; honest ones had up to 3."""


def heavy_client(weights: Mapping[str, int], max_share: float) -> str | None:
    """A line if one of several clients has more than half of the weight in the mean.

    Args:
        weights: By client.
        max_share: Largest share of a client in the mean.
    """
    client = max(sorted(weights), key=weights.__getitem__)
    total = sum(weights.values())
    rest = total - weights[client]
    if weights[client] <= rest:
        return None
    kept = capped(weights[client], rest, max_share)
    cut = f", reduced to {kept / (kept + rest):.0%} (federation.max_share)" if rest else ""
    share = f"{client} weighs {weights[client] / total:.0%} of the mean"
    return f"{share}, {weights[client]} of {total} images" + (cut if kept < weights[client] else "")


def long_updates(lengths: Mapping[str, float]) -> Iterator[str]:
    """A line for each client whose update is much longer than those of the others.

    Args:
        lengths: Norms of the updates, by client.
    """
    if len(lengths) < 3:
        return
    usual = median(lengths.values())
    for client in sorted(lengths):
        if lengths[client] > FAR * usual:
            yield (
                f"the update of {client} is more than {FAR} times as long as the median; see "
                "update_norm in results.jsonl, and federation.max_norm_ratio"
            )
