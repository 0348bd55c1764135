"""Ciphertexts segmented by an arm's own weights: what is measured, and of which arms it is not."""

from pathlib import Path

import numpy as np
import pytest
import small_federation as small
import torch

from fl_ppseg.audit.direct import (
    OF_EACH,
    PRIVATE,
    SHARED,
    UNTRAINED,
    ArmWeights,
    InPlace,
)
from fl_ppseg.audit.material import Holdings, Scenes, holdings, read_scenes
from fl_ppseg.audit.segmenter import Segmenter
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.pixels import to_input
from fl_ppseg.federation.checkpoints import latest, model_of
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.leaks.table import NO_WEIGHTS, DirectSegmentation
from fl_ppseg.setr.model import Logits

BLOCK = 8
LABELS = "per-image-invariant-spatial-labels"


@pytest.fixture(scope="module")
def shown(scenes: Path) -> Scenes:
    dataset = open_dataset(scenes, load_class_table("cityscapes"))
    return read_scenes(dataset, DataConfig(image_size=(32, 64)), 3, 6)


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm whose answers are in the order of the ciphertexts."""
    settings = small.config(scenes, arms=[LABELS], federation={"num_rounds": 1, "last_rounds": 1})
    experiment = small.prepared(settings, tmp_path_factory.mktemp("direct"))
    return small.federate(experiment).path


def held(shown: Scenes, arm: str) -> Holdings:
    weights = small.model().state_dict()
    return holdings(arm, builtin_arms()[arm], shown, weights, BLOCK)


def weights(run: Path | None, arm: str, seed: int = 0) -> ArmWeights:
    head = {"pixel_head": True, "invariant": "pixels"} if arm == LABELS else {}
    return ArmWeights(run, seed, {arm: small.model(**head)}, 19)


@pytest.mark.parametrize(
    ("arm", "reason", "has_start"),
    [
        ("per-client-private", PRIVATE, False),
        ("domain-adaptation", SHARED, False),
        ("conventional-2", SHARED, False),
        ("access-control-np", SHARED, False),
        ("local-only", OF_EACH, True),
        *((arm, UNTRAINED, True) for arm in ("plain", "per-client", "per-image")),
        ("conventional-1", UNTRAINED, True),  # its training images are plain
    ],
)
def test_where_there_is_no_figure_its_reason_stands(
    arm: str, reason: str, has_start: bool, shown: Scenes, tmp_path: Path
) -> None:
    own = held(shown, arm)
    found = weights(tmp_path, arm).segmented(own, shown)
    assert (found.miou, found.note) == (None, reason)
    start = Segmenter(small.model(), 19).miou(own.ciphertexts, shown.labels)
    assert found.start == (start if has_start else None)


def test_without_a_run_there_are_public_weights_alone(shown: Scenes) -> None:
    found = weights(None, "plain").segmented(held(shown, "plain"), shown)
    start = Segmenter(small.model(), 19).miou(shown.targets, shown.labels)
    assert found == DirectSegmentation(None, start, NO_WEIGHTS)


def test_of_a_pixel_head_the_decoder_alone_is_scored_and_the_key_changes_nothing(
    run: Path, shown: Scenes
) -> None:
    first, second = (held(shown, LABELS) for _ in range(2))
    assert not np.array_equal(first.ciphertexts, second.ciphertexts)
    found, again = (weights(run, LABELS).segmented(own, shown) for own in (first, second))
    assert found.miou is not None and 0 < found.miou <= 100
    assert again.miou == pytest.approx(found.miou, abs=0.1)  # sums of floats may differ
    assert found.start is not None and again.start == pytest.approx(found.start, abs=0.1)
    assert "round 1, seed 0; 3 ciphertexts; the decoder's scores alone" in found.note
    checkpoint = latest(RunFolder(run), LABELS, 0)
    assert checkpoint is not None
    model = model_of(checkpoint)
    with torch.inference_mode():
        whole: Logits = model(to_input(torch.from_numpy(first.ciphertexts)))
        seen: Logits = InPlace(model)(to_input(torch.from_numpy(first.ciphertexts)))
    assert whole.decoder is not None and torch.equal(seen.main, whole.decoder)
    assert whole.main.shape != seen.main.shape
    assert found.miou == Segmenter(InPlace(model), 19).miou(first.ciphertexts, shown.labels)


def test_another_seed_has_no_checkpoint_here(run: Path, shown: Scenes) -> None:
    found = weights(run, LABELS, seed=1).segmented(held(shown, LABELS), shown)
    assert (found.miou, found.note) == (None, UNTRAINED)
