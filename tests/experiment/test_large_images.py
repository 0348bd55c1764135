"""What large images need: less memory without another result, and windows of encrypted frames."""

from pathlib import Path

import numpy as np
import pytest
import small_federation as small

from clients.policy.node_policy import load_policy, policy_path
from fl_ppseg.config.loading import load_config
from fl_ppseg.data.shard import open_shard
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


FRAMES = {"fit": "crop", "image_size": [16, 32], "frame_size": [32, 64], "num_views": 2}


@pytest.mark.parametrize(
    "arms",
    [["plain", "per-client-private", "per-image-invariant"], ["per-image-invariant-labels"]],
    ids=["labels in place", "encrypted labels"],
)
def test_windows_of_encrypted_frames_are_trained_on_and_whole_frames_scored(
    arms: list[str], scenes: Path, tmp_path: Path
) -> None:
    config = small.config(scenes, arms=arms, data=FRAMES, federation={"num_rounds": 1})
    experiment = small.prepared(config, tmp_path)
    folder = small.federate(experiment)
    policies = [load_policy(policy_path(experiment.nodes, n)) for n in range(experiment.num_nodes)]
    labelled = {}
    for policy in policies:
        for arm in arms:
            shard = open_shard(policy.arms[arm].shards[0])
            assert shard.image_size == (16, 32)
            assert shard.parts[0].images.shape[-2:] == (32, 64)
            assert all(image.shape == (3, 32, 64) for image, _ in shard.heldout())
            maps = [labels for _, labels in shard.heldout()]
            labelled[policy.client, arm] = sum(int((each != 255).sum()) for each in maps)
    scored = [line for line in folder.lines() if line["confusion"] is not None]
    assert {line["client"] for line in scored} == {policy.client for policy in policies}
    for line in scored:  # each labelled pixel once, in however many windows it lies
        assert np.sum(line["confusion"]) == labelled[line["client"], line["arm"]]
    for arm in arms:
        start, trained = folder.start(arm, 0), folder.latest(arm, 0)
        assert start is not None and trained is not None and trained.round == 1
        assert trained.description.image_size == (16, 32)
        assert small.bits(start.arrays) != small.bits(trained.arrays)
