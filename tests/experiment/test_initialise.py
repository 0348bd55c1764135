"""A run folder that several machines can train: no image, no key, the simulation's very models."""

from pathlib import Path
from typing import Any

import pytest
import small_federation as small

from fl_ppseg.config.loading import builtin_arms, dump_config, load_config
from fl_ppseg.deployment.clients import load_clients
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.initialise import main
from fl_ppseg.system.command_line import run as run_command

ARMS = ["plain", "per-client-private", "per-image-invariant"]
CLIENTS = ["--train-clients", "aachen,bochum,bremen", "--val-clients", "lindau,munster"]


def options(place: Path, root: Path | None = None, **changes: Any) -> list[str]:
    file = place / "config.yaml"
    file.write_text(dump_config(small.config(root, **changes)))
    return [*CLIENTS, "--config", str(file), "--out", str(place / "made")]


def test_models_are_those_that_a_simulation_starts_from(scenes: Path, tmp_path: Path) -> None:
    simulated = small.prepared(small.config(scenes, arms=ARMS, seeds=[0, 3]), tmp_path).folder
    assert main(options(tmp_path, scenes, arms=ARMS, seeds=[0, 3])) == 0
    made = RunFolder(tmp_path / "made")
    for arm in ARMS:
        for seed in (0, 3):
            ours, theirs = made.latest(arm, seed), simulated.latest(arm, seed)
            assert ours is not None and theirs is not None
            assert ours.round == 0
            assert small.bits(ours.arrays) == small.bits(theirs.arrays)
            assert ours.description == theirs.description


def test_the_folder_names_the_clients_and_no_images(scenes: Path, tmp_path: Path) -> None:
    assert main(options(tmp_path, scenes, arms=["plain"])) == 0
    made = tmp_path / "made"
    clients = load_clients(made)
    assert clients.train == ("aachen", "bochum", "bremen")
    assert clients.val == ("lindau", "munster")
    config = load_config(made / "config.yaml")
    assert (config.clients, config.data.root) == (3, None)
    for file in made.rglob("*"):
        assert file.is_dir() or str(scenes).encode() not in file.read_bytes(), file
    assert {path.name for path in made.iterdir()} == {"config.yaml", "clients.json", "plain"}


SHARED = [name for name, arm in builtin_arms().items() if arm.key_mode == "shared"]


@pytest.mark.parametrize(
    ("arm", "line"),
    [
        *((name, f"arm {name}: its owners share one key") for name in SHARED),
        ("centralised", "arm centralised: it trains on the images of all owners"),
    ],
)
def test_arms_that_owners_apart_cannot_train_are_refused(
    arm: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, options(tmp_path, arms=["plain", arm])) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_there_are_arms_with_a_shared_key_to_refuse() -> None:
    assert len(SHARED) >= 6


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--train-clients", "aachen,aachen"], "aachen is named twice"),
        (["--val-clients", "aachen"], "aachen is named twice"),
        (["--train-clients", "a/b"], "'a/b' is not the name of a client"),
        (["--train-clients", ""], "'' is not the name of a client"),
        (["--arms", "nonsense"], "unknown arm 'nonsense'"),
        (["--config", "sueyoshi-table1"], "a comparison of cells"),
    ],
)
def test_wrong_options_are_one_line(
    given: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [*options(tmp_path), *given]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_run_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = options(tmp_path, arms=["plain"])
    assert main(argv) == 0
    before = (tmp_path / "made" / "config.yaml").read_bytes()
    assert run_command(main, [*argv, "--set", "federation.num_rounds=9"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "made" / "config.yaml").read_bytes() == before


def test_nodes_that_come_back_are_waited_for_unless_the_config_says_otherwise(
    tmp_path: Path,
) -> None:
    named = [*CLIENTS, "--arms", "plain", "--out"]
    assert main([*named, str(tmp_path / "a")]) == 0
    assert main([*named, str(tmp_path / "b"), "--set", "federation.grace_seconds=0"]) == 0
    found = [load_config(tmp_path / name / "config.yaml").federation for name in ("a", "b")]
    assert [federation.grace_seconds for federation in found] == [90.0, 0.0]
