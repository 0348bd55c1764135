"""What is said of a run before it starts, and what becomes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small

from fl_ppseg import simulate as command
from fl_ppseg.config.loading import dump_config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.experiment import forecasts, simulation, time_forecast
from fl_ppseg.experiment.disk_forecast import disk_bytes, disk_line
from fl_ppseg.experiment.fresh_views import make_round
from fl_ppseg.experiment.memory_forecast import Fit
from fl_ppseg.experiment.time_forecast import Images, Seconds, images_of, seconds_of
from fl_ppseg.system.errors import InputError

ONE = Seconds(step=2.0, image=0.5)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every model takes `ONE`; the models that were asked for."""
    asked: list[Any] = []

    def answer(config: Any, model: Any, images: Images, num_classes: int) -> Seconds:
        asked.append(model)
        return ONE

    monkeypatch.setattr(time_forecast, "_timed", answer)
    return asked


def test_seconds_are_steps_and_scored_images_by_hand(timed: list[Any]) -> None:
    config = small.config(
        None, arms=["plain"], training={"batch_size": 2}, federation={"num_rounds": 3}
    )
    # 3 clients of 10 images: 9 train in 5 steps, 1 is held out; 4 val images
    images = Images(30, 4, (32, 64))
    expected = 3 * 3 * 5 * 2.0 + 4 * (3 + 4) * 0.5
    assert seconds_of(config, images, 1, 19) == expected
    assert seconds_of(config, images, 2, 19) == expected / 2
    seeds = config.model_copy(update={"seeds": (0, 1)})
    assert seconds_of(seeds, images, 1, 19) == 2 * expected
    alone = small.config(
        None, arms=["local-only"], training={"batch_size": 2}, federation={"num_rounds": 3}
    )
    assert seconds_of(alone, images, 1, 19) == 3 * 3 * 5 * 2.0 + 4 * (3 + 3 * 4) * 0.5


def test_each_different_model_is_timed_once(timed: list[Any]) -> None:
    arms = ["plain", "per-client", "per-image-invariant", "per-image"]
    seconds_of(small.config(None, arms=arms), Images(30, 4, (32, 64)), 1, 19)
    assert [model.invariant is None for model in timed] == [True, False]


def test_images_are_those_of_the_tree_or_those_to_be_drawn(scenes: Path) -> None:
    classes = load_class_table("cityscapes")
    assert images_of(small.config(scenes), classes, 8) == (16, 4, (32, 64))
    drawn = small.config(None, data={"num_train": 40, "num_val": 5, "scene_size": [30, 60]})
    assert images_of(drawn, classes, 8) == (40, 5, (30, 60))
    whole = small.config(None, data={"fit": "crop", "image_size": [16, 32], "scene_size": [30, 60]})
    assert images_of(whole, classes, 8).scored == (32, 64)


def test_larger_models_take_longer() -> None:
    def seconds(**model: Any) -> float:
        config = small.config(None, arms=["plain"], model=model)
        return seconds_of(config, Images(32, 4, (32, 64)), 1, 19)

    assert 0 < seconds() < seconds(depth=24, embed_dim=128)


def test_disk_is_what_lies_in_the_vaults(scenes: Path, tmp_path: Path) -> None:
    """Images and label maps of a prepared run, without the heads of their files."""
    arms = ["plain", "local-only", "per-image"]
    for changes in ({}, {"fresh_views": True}):
        config = small.config(scenes, arms=arms, data=changes, seeds=[0, 1])
        place = tmp_path / str(len(changes))
        experiment = small.prepared(config, place)
        if experiment.views is not None:
            for arm_round in experiment.views.next_rounds():
                make_round(experiment.views, arm_round, set())
        arrays = [np.load(file).size for file in place.rglob("*.npy")]
        images = images_of(config, load_class_table("cityscapes"), 8)
        assert sum(arrays) == disk_bytes(config, images)


def test_fewer_clients_a_round_and_larger_data_take_their_share() -> None:
    config = small.config(None, arms=["plain"], clients=10, federation={"fraction_train": 0.2})
    fresh = config.model_copy(update={"data": config.data.model_copy(update={"fresh_views": True})})
    images = Images(100, 10, (64, 128))
    scored = 20 * (3 * 32 * 64 + 64 * 128)
    assert disk_bytes(config, images) == scored + 90 * 2 * 4 * 32 * 64
    assert disk_bytes(fresh, images) == scored + 90 * 2 * 4 * 32 * 64 // 5
    assert disk_line(fresh, images).endswith("(fresh views of two rounds at a time)")


def test_the_command_says_all_and_writes_nothing(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(dump_config(small.config(scenes, arms=["plain"])))
    out = tmp_path / "run"
    options = ["--config", str(tmp_path / "small.yaml"), "--out", str(out), "--forecast"]
    assert command.main([*options, "--vault-dir", str(tmp_path / "vaults")]) == 0
    memory, disk, time = capsys.readouterr().out.splitlines()
    assert memory.startswith("memory: about ") and "1 client process of" in memory
    assert disk.startswith("disk: about 0.0 GB for encrypted images (2 views of each")
    assert time.startswith("time: training and scoring about 0:") and "(estimate: " in time
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


class Cluster:
    num_workers = 8
    most = 8


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_starts_with_as_many_clients_as_fit(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecasts, "fit_memory", lambda *_, **__: Fit(3, "three of eight"))
    monkeypatch.setattr(simulation, "time_line", lambda config, number: f"time for {number}")
    cluster: Any = Cluster()
    simulation._forecast(small.config(None, clients=3), cluster, quiet, is_new=True)
    assert cluster.most == 8  # all three clients fit: there is nothing to limit
    capsys.readouterr()
    simulation._forecast(small.config(None, clients=9), cluster, quiet, is_new=True)
    assert cluster.most == 3
    said = capsys.readouterr().err.splitlines()
    if quiet:
        assert said == []
    else:
        assert said[0] == "! three of eight" and said[2] == "time for 3"


def test_what_cannot_run_here_is_refused_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "machine_bytes", lambda: (10**8, 10**8))
    with pytest.raises(InputError, match=r"in one process, and this machine has 0\.1 GB"):
        simulation.simulate(
            small.config(None), tmp_path / "run", tmp_path / "vaults", None,
            prepare_only=False, quiet=True,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
