import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from cityscapesscripts.helpers.labels import trainId2label
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from fl_ppseg.data.pixels import to_input
from fl_ppseg.learning import evaluation
from fl_ppseg.learning.evaluation import confusion_counts, evaluate, score, segment
from fl_ppseg.setr.model import Logits


def random_maps(
    num_classes: int, size: tuple[int, ...], seed: int, wrong: float = 0.4
) -> tuple[Tensor, Tensor]:
    """A prediction that is wrong at some pixels, and a truth of which a tenth is ignored."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(num_classes, size, generator=generator, dtype=torch.uint8)
    noise = torch.randint(num_classes, size, generator=generator, dtype=torch.uint8)
    draw = torch.rand(size, generator=generator)
    prediction = torch.where(draw < wrong, noise, truth)
    truth[torch.rand(size, generator=generator) < 0.1] = 255
    return prediction, truth


@settings(max_examples=30)
@given(
    st.integers(2, 19),
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 2**32),
)
def test_counts_equal_torchmetrics(num_classes: int, size: tuple[int, ...], seed: int) -> None:
    prediction, truth = random_maps(num_classes, size, seed)
    counts = confusion_counts(prediction, truth, num_classes)
    expected = multiclass_confusion_matrix(
        prediction.long(), truth.long(), num_classes, ignore_index=255
    )
    assert counts.dtype == torch.int64
    assert torch.equal(counts, expected)


def test_counts_add_up_over_images() -> None:
    prediction, truth = random_maps(5, (4, 16, 16), seed=0)
    parts = [confusion_counts(p, t, 5) for p, t in zip(prediction, truth, strict=True)]
    assert torch.equal(torch.stack(parts).sum(dim=0), confusion_counts(prediction, truth, 5))


def test_scores_equal_torchmetrics() -> None:
    prediction, truth = random_maps(7, (3, 40, 40), seed=1)
    found = score(confusion_counts(prediction, truth, 7))
    maps = (prediction.long(), truth.long(), 7)
    iou = multiclass_jaccard_index(*maps, average="none", ignore_index=255)
    recall = multiclass_accuracy(*maps, average="macro", ignore_index=255)
    accuracy = multiclass_accuracy(*maps, average="micro", ignore_index=255)
    np.testing.assert_allclose(found.per_class_iou, 100 * iou, rtol=1e-5)
    assert found.mIoU == pytest.approx(100 * float(iou.mean()), rel=1e-5)
    assert found.mAcc == pytest.approx(100 * float(recall), rel=1e-5)
    assert found.aAcc == pytest.approx(100 * float(accuracy), rel=1e-5)


def test_scores_equal_cityscapes_scripts_on_the_same_maps(tmp_path: Path) -> None:
    label_ids = np.zeros(256, np.uint8)
    for train_id in range(19):
        label_ids[train_id] = trainId2label[train_id].id
    pairs, counts = [], torch.zeros(19, 19, dtype=torch.int64)
    for index, (prediction, truth) in enumerate(zip(*random_maps(19, (3, 30, 50), 2), strict=True)):
        counts += confusion_counts(prediction, truth, 19)
        pair = (tmp_path / f"{index}_pred.png", tmp_path / f"{index}_labelIds.png")
        for path, train_ids in zip(pair, (prediction, truth), strict=True):
            Image.fromarray(label_ids[train_ids.numpy()]).save(path)
        pairs.append([str(path) for path in pair])

    options = evalPixelLevelSemanticLabeling.CArgs()
    vars(options).update(vars(evalPixelLevelSemanticLabeling.args))
    options.evalInstLevelScore, options.JSONOutput, options.quiet = False, False, True
    predictions, truths = map(list, zip(*pairs, strict=True))
    report = evalPixelLevelSemanticLabeling.evaluateImgLists(predictions, truths, options)

    found = score(counts)
    names = [trainId2label[train_id].name for train_id in range(19)]
    expected = [100 * report["classScores"][name] for name in names]
    np.testing.assert_allclose(found.per_class_iou, expected, rtol=1e-12)
    assert found.mIoU == pytest.approx(100 * report["averageScoreClasses"], rel=1e-12)


COUNTS = st.integers(2, 19).flatmap(
    lambda size: arrays(
        np.int64, (size, size), elements=st.sampled_from([0, 0, 0, 1, 2, 50, 10**9])
    )
)
"""Confusion counts with classes that are nowhere true, never predicted, or neither."""


@settings(max_examples=300)
@given(COUNTS)
def test_scores_of_any_counts_equal_cityscapes_scripts(counts: np.ndarray) -> None:
    """Its own functions over its own labels: trainIds 0 to 18 where they stand in its matrix."""
    size = len(counts)
    ids = [trainId2label[train_id].id for train_id in range(size)]
    args = evalPixelLevelSemanticLabeling.CArgs()
    args.evalLabels = ids
    matrix = np.zeros((max(ids) + 1,) * 2, np.ulonglong)
    matrix[np.ix_(ids, ids)] = counts
    theirs = {
        id_: evalPixelLevelSemanticLabeling.getIouScoreForLabel(id_, matrix, args) for id_ in ids
    }
    mean = evalPixelLevelSemanticLabeling.getScoreAverage(theirs, args)
    found = score(counts)
    if not counts.any():
        assert math.isnan(found.mIoU) and math.isnan(mean)
        return
    assert found.mIoU == pytest.approx(100 * mean, rel=1e-12)
    ours = [math.nan if value is None else value for value in found.per_class_iou]
    np.testing.assert_allclose(ours, [100 * theirs[id_] for id_ in ids], rtol=1e-12)


@settings(max_examples=50)
@given(st.integers(2, 7), st.integers(0, 2**32), st.sets(st.integers(0, 6), max_size=5))
def test_the_mean_equals_torchmetrics_where_classes_are_absent(
    num_classes: int, seed: int, absent: set[int]
) -> None:
    """Classes that are predicted and nowhere true, and classes that are neither."""
    prediction, truth = random_maps(num_classes, (2, 8, 8), seed)
    for train_id in absent:
        truth[truth == train_id] = 255
    prediction[prediction == num_classes - 1] = 0
    if not (truth != 255).any():
        return
    found = score(confusion_counts(prediction, truth, num_classes))
    maps = (prediction.long(), truth.long(), num_classes)
    expected = multiclass_jaccard_index(*maps, average="macro", ignore_index=255)
    assert found.mIoU == pytest.approx(100 * float(expected), rel=1e-5)


def test_scores_by_hand_count_a_class_that_is_only_predicted() -> None:
    # Truth: 4 of class 0 (3 hit, 1 called 2) and 2 of class 1 (both hit); class 2 only predicted.
    # Class 3 is neither true nor predicted.
    counts = np.zeros((4, 4), np.int64)
    counts[:2, :3] = [[3, 0, 1], [0, 2, 0]]
    found = score(counts)
    assert found.per_class_iou == (75.0, 100.0, 0.0, None)
    assert found.mIoU == pytest.approx(175 / 3)
    assert found.mAcc == 87.5
    assert found.aAcc == pytest.approx(100 * 5 / 6)


def test_nothing_labelled_has_no_score() -> None:
    found = score(torch.zeros(3, 3, dtype=torch.int64))
    assert all(math.isnan(value) for value in (found.aAcc, found.mIoU, found.mAcc))
    assert found.per_class_iou == (None, None, None)


@pytest.mark.parametrize(
    ("prediction", "truth"), [([0, 3], [0, 1]), ([0, 1], [0, 3]), ([-1, 1], [0, 1]), ([0], [0, 1])]
)
def test_impossible_maps_are_refused(prediction: list[int], truth: list[int]) -> None:
    with pytest.raises(ValueError, match=r"trainIds|prediction"):
        confusion_counts(torch.tensor(prediction), torch.tensor(truth), 3)


def test_input_scaling_by_hand_and_its_oddness() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    scaled = to_input(values)
    expected = (2 * np.arange(256, dtype=np.float64) - 255) / 255
    np.testing.assert_array_equal(scaled.numpy(), expected.astype(np.float32))
    assert torch.equal(to_input(255 - values), -scaled)


class PatchClassifier(nn.Module):
    """(B, 3, H, W) -> logits (B, C, H / 4, W / 4), with dropout that evaluation must turn off."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, num_classes, kernel_size=4, stride=4)
        self.dropout = nn.Dropout(0.5)
        self.batch_sizes: list[int] = []

    def forward(self, images: Tensor) -> Logits:
        self.batch_sizes.append(len(images))
        return Logits(self.dropout(self.project(images)), ())


def classifier() -> PatchClassifier:
    torch.manual_seed(0)
    return PatchClassifier(5)


def samples(label_sizes: list[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    pairs = []
    for size in label_sizes:
        labels = rng.integers(0, 5, size, dtype=np.uint8)
        labels[rng.random(size) < 0.2] = 255
        pairs.append((rng.integers(0, 256, (3, 16, 24), dtype=np.uint8), labels))
    return pairs


def test_segment_is_the_argmax_of_bilinear_logits() -> None:
    model = classifier().eval()
    images = torch.from_numpy(np.stack([image for image, _ in samples([(1, 1)] * 2)]))
    logits = model((2 * images.float() - 255) / 255).main
    expected = F.interpolate(logits, (31, 45), mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(segment(model, images, (31, 45)), expected)


@torch.no_grad()
def test_evaluate_equals_one_image_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = classifier(), samples([(16, 24), (30, 20), (16, 24), (30, 20), (16, 24)])
    monkeypatch.setattr(evaluation, "MAX_BATCH", 2)
    counts, loss = evaluate(model, iter(pairs), 5)
    assert sorted(model.batch_sizes) == [1, 2, 2]
    assert model.training

    model.eval()
    expected, losses, num_labelled = torch.zeros(5, 5, dtype=torch.int64), 0.0, 0
    for image, labels in pairs:
        truth = torch.from_numpy(labels)
        logits = model(to_input(torch.from_numpy(image)[None])).main
        logits = F.interpolate(logits, labels.shape, mode="bilinear", align_corners=False)
        expected += multiclass_confusion_matrix(
            logits.argmax(1)[0], truth.long(), 5, ignore_index=255
        )
        right = logits[0].log_softmax(0).gather(0, truth.long().clamp(max=4)[None])[0]
        losses -= float(right[truth != 255].sum())
        num_labelled += int((truth != 255).sum())
    assert torch.equal(counts, expected)
    assert loss == pytest.approx(losses / num_labelled, rel=1e-5)


def test_evaluate_takes_read_only_arrays_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    pairs = samples([(8, 8)])
    for array in pairs[0]:
        array.setflags(write=False)
    evaluate(classifier(), pairs, 5)
    assert not recwarn.list


def test_evaluate_without_samples_has_no_loss() -> None:
    counts, loss = evaluate(classifier(), [], 5)
    assert counts.sum() == 0 and math.isnan(loss)


def test_full_size_logits_stay_within_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each size as many images at a time as fit, and one where none does."""
    monkeypatch.setattr(evaluation, "LOGITS_BYTES", 3 * 5 * 4 * 16 * 24)
    model = classifier()
    evaluate(model, samples([(16, 24)] * 7), 5)
    assert model.batch_sizes == [3, 3, 1]
    model.batch_sizes.clear()
    evaluate(model, samples([(200, 300)] * 2), 5)
    assert model.batch_sizes == [1, 1]


def test_no_second_set_of_full_size_logits_is_made() -> None:
    size = (1, 5, 64, 96)
    model, pairs = classifier(), samples([size[2:]])
    with torch.profiler.profile(profile_memory=True) as profile:
        evaluate(model, pairs, 5)
    nbytes = 4 * math.prod(size)
    large = [event for event in profile.events() if event.self_cpu_memory_usage >= nbytes]
    assert len(large) == 1, [event.name for event in large]


@pytest.mark.parametrize("layers", [5, 19, 66])
def test_bands_of_any_height_give_the_same_bits(
    layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = PatchClassifier(layers)
    pairs = samples([(57, 83), (130, 41)])
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    whole, whole_map = evaluate(model, pairs, layers), segment(model.eval(), images, (57, 83))
    for rows in (1, 2, 7, 50):
        monkeypatch.setattr(evaluation, "LOGITS_BYTES", 4 * layers * 83 * rows)
        counts, loss = evaluate(model, pairs, layers)
        assert torch.equal(counts, whole[0]) and loss == whole[1]
        assert torch.equal(segment(model, images, (57, 83)), whole_map)


def test_logits_of_a_large_image_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 megapixels of 66 classes took 3 GB for their logits alone; here a hundredth."""
    monkeypatch.setattr(evaluation, "LOGITS_BYTES", 2**18)
    size, layers = (300, 400), 66
    model, pairs = PatchClassifier(layers), samples([size])
    with torch.profiler.profile(profile_memory=True) as profile:
        evaluate(model, pairs, layers)
        segment(model, torch.from_numpy(pairs[0][0])[None], size)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4 * layers * math.prod(size) / 10
