"""What all tests share: folders of their own, no telemetry, and one small data set a session."""

import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when Flower is imported, so before all others
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, each with a core of its own
    os.environ["OMP_NUM_THREADS"] = "1"  # PyTorch and NumPy read it once; also the processes begun

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seeded_keys
import small_federation as small
import small_vault
import torch
import yaml
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from clients.vault.assignment import Assignment
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset
from fl_ppseg.data.views import fit
from fl_ppseg.scenes import cities as drawn_cities
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.scenes.worlds import PUBLIC
from fl_ppseg.simulate import main
from fl_ppseg.system import workers
from fl_ppseg.system.command_line import LOGGERS, run

settings.register_profile("here", derandomize=seeded_keys.NAME == "", deadline=None)
settings.load_profile("here")


WHOLE = ("deployment", "deployment_sums", "federated", "flwr_run", "interrupt", "quick")
"""Test files that start whole federations of many processes; two at once would start too slowly."""
LONG = ("resume_after_kill", "secrets", "vault_kills", "vault_killed")
"""Others that take long: begun early, so that no worker is left with one at the end."""


class _Scheduling(LoadScopeScheduling):
    """A file stays in one worker, and whole federations run one after the other."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        is_whole = Path(file).stem.removeprefix("test_") in WHOLE
        return "federations" if is_whole else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """What parallel workers (`-n 2`) are given; `xdist_group` does nothing under pytest 9."""
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole federations begin first, then what takes long, beside everything else."""

    def turn(item: pytest.Item) -> int:
        name = item.path.stem.removeprefix("test_")
        return 0 if name in WHOLE else 1 if name in LONG else 2

    items.sort(key=turn)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before fixtures of any scope: keys that a test makes are its own, and the same every time."""
    seeded_keys.seed(item.nodeid)


@pytest.fixture(scope="session", autouse=True)
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the home of who runs it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "FLWR_HOME"):
            patch.setenv(name, str(home if name == "HOME" else home / name.lower()))
        patch.delenv("CITYSCAPES_DATASET", raising=False)
        patch.delenv("FL_PPSEG_TRACEBACK", raising=False)
        yield home


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Commands and nodes send logs to files of theirs; the next test has them again."""
    found = [logging.getLogger(name) for name in (*LOGGERS, "clients")]
    before = [(log.handlers, log.propagate, log.level) for log in found]
    yield
    for log, (handlers, propagate, level) in zip(found, before, strict=True):
        for handler in set(log.handlers).difference(handlers):
            handler.close()
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if type(h) is logging.FileHandler]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in Cityscapes layout: 3 training cities, 2 val cities, 32x64 pixels; never written.

    Drawn in the public world: attacks are tried where they find most, on pictures of full contrast.
    """
    root = tmp_path_factory.mktemp("scenes") / "tree"
    sizes = ({"aachen": 7, "bochum": 5, "bremen": 4}, {"lindau": 2, "munster": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn_cities, "CLIMATES", {})
        patch.setattr(drawn_cities, "world_of", lambda name: PUBLIC)
        synthesize(root, num_train=16, num_val=4, size=(32, 64), cities=sizes)
    return root


@pytest.fixture(scope="session")
def cities(scenes: Path) -> dict[str, tuple[Scene, ...]]:
    """Its training scenes, by city."""
    return open_dataset(scenes, load_class_table("cityscapes")).split("train")


@pytest.fixture(scope="session")
def images(cities: dict[str, tuple[Scene, ...]]) -> tuple[Scene, ...]:
    """Those of aachen, who is attacked where an adversary is tried."""
    return cities["aachen"]


@pytest.fixture(scope="session")
def own_scenes(cities: dict[str, tuple[Scene, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Images and label maps of other cities, which an adversary has."""
    pairs = [fit(*s.load(), (32, 64), "resize") for c in ("bochum", "bremen") for s in cities[c]]
    return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])


@pytest.fixture(scope="module")
def job(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    """What the owner of aachen prepares: a shard of each kind of protection."""
    return small_vault.assignment(scenes, tmp_path_factory.mktemp("vaults"))


@pytest.fixture(scope="module")
def folders(job: Assignment) -> dict[str, Path]:
    """These shards, by arm."""
    return small_vault.shards(job)


@pytest.fixture
def quick_collection() -> Iterator[None]:
    """`gc.collect()` looks at what the test makes, not at all that was ever imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on a busy machine: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def simulate(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, str, str]]:
    """Run the command on the small data set: exit status, standard output, standard error."""
    monkeypatch.setattr(workers, "ProcessPoolExecutor", small.InlinePool)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*options: str, root: Path | None = scenes, **changes: Any) -> tuple[int, str, str]:
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(small.settings(root, **changes)))
        argv = ["--vault-dir", str(tmp_path / "vaults"), *options]
        if "--resume" not in options and "--config" not in options:
            argv += ["--config", str(tmp_path / "small.yaml")]
        status = run(main, argv)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
