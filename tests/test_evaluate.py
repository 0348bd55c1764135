"""A checkpoint scored by the command gives the counts that the federation gave."""

import json
from pathlib import Path

import numpy as np
import pytest
import small_federation

from fl_ppseg.command_line import run
from fl_ppseg.evaluate import main
from fl_ppseg.evaluation import score
from fl_ppseg.run_folder import RunFolder


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = small_federation.config(scenes, arms=["plain", "per-image", "local-only"])
    experiment = small_federation.prepared(config, tmp_path_factory.mktemp("evaluated"))
    small_federation.federate(experiment)
    return experiment.folder


def checkpoint_of(folder: RunFolder, arm: str) -> str:
    return str(folder.path / arm / "seed_0" / "round_0002.safetensors")


def test_plain_scores_equal_those_of_the_run(
    finished: RunFolder, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_of(finished, "plain")
    assert run(main, [path, "--data-root", str(scenes), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    lines = [
        line
        for line in finished.lines()
        if (line["arm"], line["role"], line["round"]) == ("plain", "val", 2)
    ]
    assert found["cities"].keys() == {line["city"] for line in lines}
    for line in lines:
        expected = score(np.asarray(line["confusion"]))
        assert found["cities"][line["city"]]["mIoU"] == pytest.approx(expected.mIoU, abs=0.01)
    total = score(np.sum([line["confusion"] for line in lines], axis=0))
    assert found["all"]["aAcc"] == pytest.approx(total.aAcc, abs=0.01)


def test_crop_is_scored_where_the_model_looks(
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
    assert 0 < total.sum() <= 4 * 16 * 32
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


def test_queries_of_an_encrypted_arm_have_other_keys_each_time(
    finished: RunFolder, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [checkpoint_of(finished, "per-image"), "--data-root", str(scenes), "--json"]
    outputs = []
    for _ in range(2):
        assert run(main, [*arguments, "--quiet"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] != outputs[1]


def test_table_names_each_city(
    finished: RunFolder, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, [checkpoint_of(finished, "plain"), "--data-root", str(scenes)]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["city", "lindau", "munster", "all"]


def test_bad_input_is_one_line(
    finished: RunFolder, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, root = checkpoint_of(finished, "plain"), ["--data-root", str(scenes)]
    broken = tmp_path / "round_0001.safetensors"
    broken.write_bytes(Path(plain).read_bytes()[:-10])
    broken.with_suffix(".json").write_bytes(Path(plain).with_suffix(".json").read_bytes())
    cases = {
        "hash differs": [str(broken), *root],
        "no readable checkpoint": [str(tmp_path / "none.safetensors"), *root],
        "--data-root": [plain],
        "other classes": [plain, *root, "--classes", "camvid"],
        "model of every city": [checkpoint_of(finished, "local-only"), *root],
        "no such folder": [plain, "--data-root", str(tmp_path / "nowhere")],
    }
    for said, arguments in cases.items():
        assert run(main, arguments) == 2, said
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
