"""What TensorBoard shows of a run folder; whoever asks is skipped where it is not installed."""

from pathlib import Path

import pytest

Curves = dict[str, list[tuple[int, float]]]
"""(round, value) by tag."""


def curves(run: Path, arm: str, seed: int = 0) -> Curves:
    """The curves of an arm and seed, values to four digits."""
    name = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(name).EventAccumulator(
        str(run / "tensorboard" / arm / f"seed_{seed}")
    )
    accumulator.Reload()
    return {
        tag: [(entry.step, round(entry.value, 4)) for entry in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }
