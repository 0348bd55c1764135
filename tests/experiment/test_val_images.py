"""Val images of a run scored one by one: the sums are those of the run and of `evaluate`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from rich.console import Console

from fl_ppseg.config.run_layout import VAL_IMAGES
from fl_ppseg.experiment import val_images
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.experiment.val_counts import NO_IMAGE, ValCounts, load_counts, save_counts
from fl_ppseg.experiment.val_images import count_val_images
from fl_ppseg.experiment.val_intervals import val_intervals
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.learning.evaluation import score
from fl_ppseg.learning.scores import mean
from fl_ppseg.progress.steps import StepProgress

ARMS = ["plain", "per-client-private", "per-image-invariant", "conventional-2", "local-only"]


@pytest.fixture(scope="module")
def experiment(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    made = small.prepared(small.config(scenes, arms=ARMS), tmp_path_factory.mktemp("val"))
    small.federate(made)
    return made


@pytest.fixture(scope="module")
def counts(experiment: Experiment) -> ValCounts:
    return counted(experiment)


def counted(experiment: Experiment) -> ValCounts:
    return count_val_images(experiment, StepProgress(Console(), quiet=True))


def table(counts: ValCounts, arm: str, which: str = "newest") -> Any:
    found = counts.of(arm, 0, which)
    assert found is not None
    return found


def lines(experiment: Experiment, arm: str, round: int) -> dict[tuple[str, str], Any]:
    """(model, val client) -> the counts of the run."""
    return {
        (line.get("model") or "", line["client"]): np.array(line["confusion"])
        for line in experiment.folder.lines()
        if (line["arm"], line["role"], line["round"]) == (arm, "val", round)
    }


@pytest.mark.parametrize(("which", "round"), [("newest", 2), ("start", 0)])
@pytest.mark.parametrize("arm", ["plain", "per-image-invariant"])
def test_the_counts_of_images_sum_to_those_of_the_run(
    arm: str, which: str, round: int, counts: ValCounts, experiment: Experiment
) -> None:
    """An invariant embedding answers alike under every key; a batch may change a last digit."""
    assert counts.clients == {"lindau": 2, "munster": 2}
    (each,) = table(counts, arm, which)
    found = lines(experiment, arm, round)
    for number, client in enumerate(counts.clients):
        mine, theirs = each[2 * number : 2 * number + 2].sum(axis=0), found["", client]
        np.testing.assert_array_equal(mine.sum(axis=1), theirs.sum(axis=1))  # the truth
        assert np.abs(mine.astype(int) - theirs).sum() <= 0.01 * theirs.sum()


@pytest.mark.parametrize("arm", ["per-client-private", "conventional-2"])
def test_other_keys_and_the_shared_one_score_as_in_the_run(
    arm: str, counts: ValCounts, experiment: Experiment
) -> None:
    mine = score(table(counts, arm)[0].sum(axis=0)).mIoU
    assert mine == pytest.approx(score(sum(lines(experiment, arm, 2).values())).mIoU, abs=0.3)


def test_where_every_client_has_a_model_each_is_asked(
    counts: ValCounts, experiment: Experiment
) -> None:
    found = lines(experiment, "local-only", 2)
    models = sorted({model for model, _ in found})
    each = table(counts, "local-only")
    assert len(each) == len(models) == 3
    assert len(table(counts, "local-only", "start")) == 1
    expected = [score(sum(v for (m, _), v in found.items() if m == model)) for model in models]
    for own, theirs in zip(each, expected, strict=True):
        assert score(own.sum(axis=0)).mIoU == pytest.approx(theirs.mIoU, abs=0.3)
    entry = val_intervals(counts, ARMS, (0,))[1]["local-only"]
    assert entry.newest_mIoU == pytest.approx(mean(s.mIoU for s in expected), abs=0.3)


def test_without_an_image_it_is_what_the_run_says(
    counts: ValCounts, experiment: Experiment
) -> None:
    assert score(counts.tables[NO_IMAGE][0].sum(axis=0)) == experiment.no_image


def test_no_file_name_of_an_owner_is_in_the_file(experiment: Experiment, counts: ValCounts) -> None:
    content = (experiment.folder.path / VAL_IMAGES).read_bytes()
    scenes = [s for own in experiment.dataset.split("val").values() for s in own]
    assert b"lindau" in content
    for scene in scenes:
        assert scene.stem.encode() not in content
        assert scene.content is not None and scene.content.encode() not in content


def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arms and rounds that are scored from now on."""
    seen: list[str] = []
    inner = val_images.counts_by_image

    def noting(checkpoint: Checkpoint, *rest: Any) -> Any:
        seen.append(f"{checkpoint.description.arm} {checkpoint.round}")
        return inner(checkpoint, *rest)

    monkeypatch.setattr(val_images, "counts_by_image", noting)
    return seen


def test_what_was_scored_is_not_scored_again(
    experiment: Experiment, counts: ValCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = scored(monkeypatch)
    again = counted(experiment)
    assert seen == []
    assert again.weights == counts.weights
    assert val_intervals(again, ARMS, (0,)) == val_intervals(counts, ARMS, (0,))


def test_other_weights_and_other_images_are_scored_anew(
    experiment: Experiment, counts: ValCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, run = scored(monkeypatch), experiment.folder.path
    name = "plain/0/newest"
    save_counts(run, counts.including(name, table(counts, "plain"), "those of another round"))
    assert counted(experiment).weights == counts.weights
    assert seen == ["plain 2"]
    seen.clear()
    save_counts(run, ValCounts("other images", counts.clients, counts.tables, counts.weights))
    assert counted(experiment).images == counts.images
    assert len(seen) == 2 * len(ARMS) + 2  # local-only has three models and one start
    seen.clear()
    few = {name: each[..., :2, :2] for name, each in counts.tables.items()}
    save_counts(run, ValCounts(counts.images, counts.clients, few, counts.weights))
    assert table(counted(experiment), "plain").shape == table(counts, "plain").shape
    save_counts(run, ValCounts(counts.images, {"ulm": 4}, counts.tables, counts.weights))
    assert counted(experiment).clients == counts.clients


def test_a_damaged_start_costs_the_interval_of_its_gain_alone(
    experiment: Experiment, counts: ValCounts, caplog: pytest.LogCaptureFixture
) -> None:
    path = experiment.folder.path / "plain" / "seed_0" / "round_0000.safetensors"
    whole = path.read_bytes()
    (experiment.folder.path / VAL_IMAGES).unlink()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        found = counted(experiment)
    finally:
        path.write_bytes(whole)
    assert found.tables.keys() == counts.tables.keys() - {"plain/0/start"}
    assert "the gain of arm plain has no interval" in caplog.text


def test_an_interrupted_scoring_goes_on_where_it_was(
    experiment: Experiment, counts: ValCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = experiment.folder.path / VAL_IMAGES
    path.unlink()
    inner, seen = val_images.counts_by_image, scored(monkeypatch)
    noting = val_images.counts_by_image

    def interrupted(*arguments: Any) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        return noting(*arguments)

    monkeypatch.setattr(val_images, "counts_by_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        counted(experiment)
    kept = load_counts(experiment.folder.path)
    assert kept is not None
    assert len(kept.tables) == 1 + 3
    monkeypatch.setattr(val_images, "counts_by_image", inner)
    assert counted(experiment).weights == counts.weights
