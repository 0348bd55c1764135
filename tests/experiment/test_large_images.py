"""What large images need: less memory without another result, and windows of encrypted frames."""

from pathlib import Path

import pytest
import small_federation as small

from fl_ppseg.config.loading import load_config
from fl_ppseg.progress.events import Event, RoundFinished
from fl_ppseg.progress.observer import SilentObserver


class StoppedAfterOne(SilentObserver):
    def on_event(self, event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round == 1:
            raise KeyboardInterrupt


def test_a_run_that_is_resumed_with_checkpointing_gives_the_same_bits(
    scenes: Path, tmp_path: Path
) -> None:
    """Of coded updates: what they lost lies on the nodes by the identity of the run."""
    off = small.config(scenes, arms=["plain"], training={"codec": "int8"})
    on = small.config(
        scenes, arms=["plain"], training={"codec": "int8", "gradient_checkpointing": True}
    )
    whole = small.federate(small.prepared(off, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        small.federate(small.prepared(off, tmp_path / "parted"), StoppedAfterOne())
    resumed = small.federate(small.prepared(on, tmp_path / "parted"))
    assert load_config(resumed.config).training.gradient_checkpointing
    assert small.bits(small.final(resumed, "plain")) == small.bits(small.final(whole, "plain"))
