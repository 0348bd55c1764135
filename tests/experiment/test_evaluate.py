"""A checkpoint scored by the command gives the counts that the federation gave."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation
from PIL import Image

from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.evaluate import main
from fl_ppseg.experiment import scoring
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.evaluation import Scores, evaluate, score
from fl_ppseg.learning.scores import MEAN_OF
from fl_ppseg.system.command_line import run

ARMS = [
    "plain",
    "per-image",
    "per-client-private",
    "per-image-invariant",
    "conventional-1",
    "conventional-2",
    "local-only",
]


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = small_federation.config(scenes, arms=ARMS)
    experiment = small_federation.prepared(config, tmp_path_factory.mktemp("evaluated"))
    small_federation.federate(experiment)
    return experiment.folder


def checkpoint_of(folder: RunFolder, arm: str) -> str:
    return str(folder.path / arm / "seed_0" / "round_0002.safetensors")


def key_of(folder: RunFolder) -> str:
    """The shared key, where `small_federation.prepared` puts the vaults."""
    return str(folder.path.parent / "vaults" / ".shared" / "master.key")


def scores_of(
    capsys: pytest.CaptureFixture[str], folder: RunFolder, arm: str, scenes: Path, *options: str
) -> dict[str, Any]:
    arguments = [checkpoint_of(folder, arm), "--data-root", str(scenes), "--json", "--quiet"]
    assert run(main, [*arguments, *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("arm", "tolerance"),
    [
        ("plain", 0.01),
        ("per-image-invariant", 0.01),  # new keys, the same answer bit for bit
        ("per-client-private", 0.2),  # new keys, the same answer to rounding
        ("conventional-1", 0.2),  # scored on plain images in the run
        ("conventional-2", 0.01),  # the same key
    ],
)
def test_scores_equal_those_of_the_run(
    arm: str,
    tolerance: float,
    finished: RunFolder,
    scenes: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--key", key_of(finished)] if arm.startswith("conventional") else []
    found = scores_of(capsys, finished, arm, scenes, *options)
    lines = [
        line
        for line in finished.lines()
        if (line["arm"], line["role"], line["round"]) == (arm, "val", 2)
    ]
    assert found["clients"].keys() == {line["client"] for line in lines}
    for line in lines:
        expected = score(np.asarray(line["confusion"]))
        mine = found["clients"][line["client"]]["mIoU"]
        assert mine == pytest.approx(expected.mIoU, abs=tolerance)
    total = score(np.sum([line["confusion"] for line in lines], axis=0))
    assert found["all"]["aAcc"] == pytest.approx(total.aAcc, abs=tolerance)


@pytest.mark.parametrize("arm", ["conventional-1", "conventional-2"])
def test_right_wrong_and_no_key_score_differently(
    arm: str, finished: RunFolder, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = [
        scores_of(capsys, finished, arm, scenes, "--key", key)["all"]
        for key in (key_of(finished), "wrong", "none")
    ]
    assert all(a != b for a, b in itertools.combinations(tries, 2))


def test_cropped_images_are_scored_whole_and_as_in_the_run(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"image_size": [16, 32], "fit": "crop"}
    config = small_federation.config(
        scenes, arms=["plain"], data=data, federation={"num_rounds": 1}
    )
    folder = small_federation.prepared(config, tmp_path)
    small_federation.federate(folder)
    path = folder.folder.path / "plain" / "seed_0" / "round_0001.safetensors"
    assert run(main, [str(path), "--data-root", str(scenes), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    lines = [line for line in folder.folder.lines() if (line["role"], line["round"]) == ("val", 1)]
    total = np.sum([line["confusion"] for line in lines], axis=0)
    scored = open_dataset(scenes, load_class_table("cityscapes")).split("val").values()
    labelled = sum(int((s.load()[1] != 255).sum()) for own in scored for s in own)
    assert total.sum() == labelled  # all of it, not a window of 16x32
    assert found["all"]["aAcc"] == pytest.approx(score(total).aAcc, abs=0.01)


def test_any_split_of_the_tree_is_scored(
    finished: RunFolder, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small_federation.tree_of_links(scenes, tmp_path / "tree")
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind / "val").rename(root / kind / "test")
    path = checkpoint_of(finished, "plain")
    outputs = []
    for place, split in ((scenes, "val"), (root, "test")):
        options = [path, "--data-root", str(place), "--split", split, "--json", "--quiet"]
        assert run(main, options) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("arm", "differ"),
    [("per-image", True), ("per-client-private", True), ("conventional-2", False)],
)
def test_each_evaluation_makes_keys_of_its_own_unless_owners_share_one(
    arm: str,
    differ: bool,
    finished: RunFolder,
    scenes: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        scoring,
        "evaluate",
        lambda model, samples, *rest: evaluate(model, _noted(samples, seen), *rest),
    )
    options = ["--key", key_of(finished)] if arm == "conventional-2" else []
    for _ in range(2):
        scores_of(capsys, finished, arm, scenes, *options)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == len(second) == 8  # four images, at the end and at the start
    equal = [np.array_equal(a, b) for a, b in zip(first, second, strict=True)]
    assert equal == [not differ] * 8


def _noted(samples: Iterator[tuple[Any, Any]], seen: list[Any]) -> Iterator[tuple[Any, Any]]:
    for image, labels in samples:
        seen.append(np.array(image))
        yield image, labels


def test_table_names_each_client(
    finished: RunFolder, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, [checkpoint_of(finished, "plain"), "--data-root", str(scenes)]) == 0
    *rows, sure = capsys.readouterr().out.splitlines()
    names = [row.split("  ")[0] for row in rows]
    assert names == ["client", "lindau", "munster", "all", "all: start", "all: no image"]
    assert re.fullmatch(
        r"mIoU of all, 95 % interval over images: \d+\.\d\d to \d+\.\d\d "
        r"\(other photographs of the same places\)",
        sure,
    )


def test_the_score_has_its_interval_over_images_and_over_three_places(
    finished: RunFolder, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two val clients have none over places; the three training clients, scored as a split, do."""
    found = scores_of(capsys, finished, "plain", scenes)["all"]
    low, high = found["mIoU_ci95_images"]
    assert low < found["mIoU"] < high
    assert found["mIoU_ci95_places"] is None
    found = scores_of(capsys, finished, "plain", scenes, "--split", "train")["all"]
    assert found["mIoU_ci95_places"][0] < found["mIoU_ci95_places"][1]
    path = checkpoint_of(finished, "plain")
    options = [path, "--data-root", str(scenes), "--split", "train", "--quiet"]
    assert run(main, options) == 0
    assert "over places: " in (told := capsys.readouterr().out)
    assert "(other places; of 3 it is too narrow: " in told


def test_start_and_no_image_stand_beside_the_score_and_equal_those_of_the_run(
    finished: RunFolder, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scores_of(capsys, finished, "per-image-invariant", scenes)
    (total,) = totals(finished, "per-image-invariant", 0)
    assert found["start"]["mIoU"] == pytest.approx(score(total).mIoU, abs=0.01)
    assert found["start"] != found["all"]
    assert found["no_image"]["mIoU"] == pytest.approx(prior_of(finished, scenes).mIoU, abs=0.01)
    alone = tmp_path / "round_0002.safetensors"
    for suffix in (".safetensors", ".json"):
        source = Path(checkpoint_of(finished, "plain")).with_suffix(suffix)
        alone.with_suffix(suffix).write_bytes(source.read_bytes())
    assert run(main, [str(alone), "--data-root", str(scenes), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["start"] is None and found["no_image"] is None


def totals(folder: RunFolder, arm: str, *rounds: int) -> list[Any]:
    """Counts over the val clients, a matrix a round."""
    val = [x for x in folder.lines() if (x["arm"], x["role"]) == (arm, "val")]
    return [np.sum([x["confusion"] for x in val if x["round"] == k], axis=0) for k in rounds]


def prior_of(folder: RunFolder, scenes: Path) -> Scores:
    """Pixel by pixel, with no code of ours but the score: label maps of the model's own size."""
    answer = np.array(Image.open(folder.path / "no_image.png"))
    counts = np.zeros((19, 19), np.int64)
    dataset = open_dataset(scenes, load_class_table("cityscapes"), ("val",))
    for scene in (scene for client in dataset.split("val").values() for scene in client):
        labels = scene.load()[1]
        assert labels.shape == answer.shape
        for truth, guess in zip(labels.ravel(), answer.ravel(), strict=True):
            if truth != 255:
                counts[truth, guess] += 1
    return score(counts)


def test_bad_input_is_one_line(
    finished: RunFolder, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, root = checkpoint_of(finished, "plain"), ["--data-root", str(scenes)]
    broken = tmp_path / "round_0001.safetensors"
    broken.write_bytes(Path(plain).read_bytes()[:-10])
    broken.with_suffix(".json").write_bytes(Path(plain).with_suffix(".json").read_bytes())
    cases = {
        "hash differs": [str(broken), *root],
        "not a readable checkpoint": [str(tmp_path / "none.safetensors"), *root],
        "--data-root": [plain],
        "other classes": [plain, *root, "--classes", "camvid"],
        "model per client": [checkpoint_of(finished, "local-only"), *root],
        "no such folder": [plain, "--data-root", str(tmp_path / "nowhere")],
        "give --key FILE": [checkpoint_of(finished, "conventional-1"), *root],
        "leave out --key": [checkpoint_of(finished, "per-image"), *root, "--key", "none"],
        "key file": [checkpoint_of(finished, "conventional-2"), *root, "--key", "missing.key"],
    }
    for said, arguments in cases.items():
        assert run(main, arguments) == 2, said
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def with_label_maps(scenes: Path, place: Path, value: int) -> Path:
    """A copy of the tree where all of lindau has one labelId."""
    root = small_federation.tree_of_links(scenes, place / "tree")
    for path in (root / "gtFine/val/lindau").iterdir():
        ids = np.array(Image.open(path))
        path.unlink()
        Image.fromarray(np.full_like(ids, value)).save(path)
    return root


def test_what_label_maps_hold_is_told_and_judged_first(
    finished: RunFolder, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = checkpoint_of(finished, "plain")
    assert run(main, [checkpoint, "--data-root", str(scenes)]) == 0
    captured = capsys.readouterr()
    assert "classes that never occur" in captured.err and "val    lindau" in captured.err
    assert MEAN_OF in captured.err
    assert "classes that never occur" not in captured.out
    assert "train " not in captured.err  # what is not scored is not looked at

    root = with_label_maps(scenes, tmp_path, 255)
    assert run(main, [checkpoint, "--data-root", str(root), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {root / 'gtFine/val/lindau'}") and error.count("\n") == 1
    assert "no labelled pixel" in error
